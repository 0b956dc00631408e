//! Clients of etcd: gRPC over an HTTP/2 connection each, by hand, so that the client costs etcd nothing.
//!
//! A call is one request with the method's path and one message: a byte for "not compressed", the length, and the
//! protobuf. The answer's trailers say whether it went well. Only the fields needed here are written and read:
//! `PutRequest {1: key, 2: value}`, `StatusResponse {1: ResponseHeader {2: member_id}, 4: leader}`.

use super::{Caller, Keys, Load, VALUE_BYTES};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

/// The clients, each with a connection of its own.
pub(super) async fn connect(load: &Load) -> Result<Vec<Writer>, String> {
    let address = load.at.first().ok_or("where is etcd's leader? (--at)")?;
    let mut writers = Vec::new();
    for n in 0..load.clients {
        writers.push(Writer {
            connection: Connection::open(address).await?,
            keys: Keys::of_client(n),
        });
    }
    Ok(writers)
}

pub(super) struct Writer {
    connection: Connection,
    keys: Keys,
}

impl Caller for Writer {
    async fn call(&mut self) -> Result<(), String> {
        let mut put = BytesMut::with_capacity(VALUE_BYTES + 32);
        put_bytes(&mut put, 1, &self.keys.next());
        put_bytes(&mut put, 2, &[b'v'; VALUE_BYTES]);
        let answer = self.connection.call("/etcdserverpb.KV/Put", &put).await;
        answer.map(drop)
    }
}

/// A connection that makes gRPC calls.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    authority: String,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("etcd at {address}: {e}");
        let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let shaken = h2::client::handshake(stream).await;
        let (requests, connection) = shaken.map_err(|e| failed(&e))?;
        // Ends with the connection; whoever calls then is told.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            requests,
            authority: address.to_owned(),
        })
    }

    /// Whether this member leads.
    pub(crate) async fn leads(&mut self) -> Result<bool, String> {
        let answer = self.call("/etcdserverpb.Maintenance/Status", &[]).await?;
        let header = field(&answer, 1).and_then(Field::bytes).unwrap_or_default();
        let me = field(header, 2).and_then(Field::number);
        let leader = field(&answer, 4).and_then(Field::number);
        Ok(leader.is_some_and(|leader| leader != 0) && leader == me)
    }

    /// Calls a method; the answer's message.
    async fn call(&mut self, path: &str, message: &[u8]) -> Result<Bytes, String> {
        let failed = |e: h2::Error| format!("etcd: {e}");
        let head = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|e| e.to_string())?;
        let mut body = BytesMut::with_capacity(5 + message.len());
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).map_err(|e| e.to_string())?);
        body.put_slice(message);
        let mut requests = self.requests.clone().ready().await.map_err(failed)?;
        let (answer, mut stream) = requests.send_request(head, false).map_err(failed)?;
        stream.send_data(body.freeze(), true).map_err(failed)?;
        let mut answer = answer.await.map_err(failed)?.into_body();
        let mut message = BytesMut::new();
        while let Some(data) = answer.data().await {
            let data = data.map_err(failed)?;
            let released = answer.flow_control().release_capacity(data.len());
            released.map_err(failed)?;
            if message.len() + data.len() > ANSWER_BYTES_MAX {
                return Err("etcd answers too much".into());
            }
            message.extend_from_slice(&data);
        }
        let trailers = answer.trailers().await.map_err(failed)?.unwrap_or_default();
        match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"0") if message.len() >= 5 => Ok(message.freeze().slice(5..)),
            status => {
                let why = trailers.get("grpc-message");
                Err(format!("etcd refused: {status:?} {why:?}"))
            }
        }
    }
}

/// A protobuf field of a length and bytes.
fn put_bytes(out: &mut BytesMut, number: u8, bytes: &[u8]) {
    out.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(bytes);
}

/// A protobuf field's value, of the kinds that are read here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(_) => None,
        }
    }

    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }
}

/// The first field of this number; `None` when there is none, or the message cannot be read so far.
fn field(mut message: &[u8], wanted: u64) -> Option<Field<'_>> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some(value);
        }
    }
    None
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const ANSWER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_what_is_cut_off_is_no_field() {
        let mut message = BytesMut::new();
        put_bytes(&mut message, 1, &[7; 300]);
        put_bytes(&mut message, 2, b"two");
        message.put_slice(&[4 << 3, 0xac, 0x02]);
        assert_eq!(field(&message, 2), Some(Field::Bytes(b"two")));
        assert_eq!(field(&message, 4), Some(Field::Number(300)));
        assert_eq!(field(&message, 5), None);
        assert_eq!(field(&message[..200], 1), None);
    }
}
