//! Conversations in memory, with a clock that is moved.

use super::*;
use tokio::io::duplex;
use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

fn hasty() -> Manners {
    Manners {
        idle: Duration::from_secs(60),
        message: Duration::from_secs(5),
        write: Duration::from_secs(5),
    }
}

fn frames() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(1_000)
        .new_codec()
}

#[tokio::test]
async fn a_conversation_begins_with_the_bytes_that_were_read_already() {
    let (mut far, near) = duplex(64);
    let mut talk = Conversation::continued(near, &[0, 0, 0, 3, b'a'], frames(), hasty());
    far.write_all(b"bc\0\0\0\x01d").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "abc");
    assert_eq!(talk.next().await.unwrap().unwrap(), "d");
    drop(far);
    assert!(talk.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_one_and_one_that_trickles_half_a_message_are_both_given_up() {
    let (_far, near) = duplex(64);
    let mut talk = Conversation::new(near, frames(), hasty());
    let began = Instant::now();
    assert!(matches!(talk.next().await, Err(Ended::Idle(_))));
    assert_eq!(began.elapsed(), hasty().idle);

    let (mut far, near) = duplex(64);
    let mut talk = Conversation::new(near, frames(), hasty());
    far.write_all(&[0, 0, 1, 0]).await.unwrap(); // 256 bytes are to come
    let trickle = tokio::spawn(async move {
        while far.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let began = Instant::now();
    assert!(matches!(talk.next().await, Err(Ended::Slow(_))));
    assert_eq!(began.elapsed(), hasty().message);
    drop(talk);
    trickle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_read_is_given_up() {
    let (_far, near) = duplex(16);
    let mut talk = Conversation::new(near, frames(), hasty());
    let message = bytes::Bytes::from(vec![0; 100]);
    assert!(matches!(talk.send(message).await, Err(Ended::Unread(_))));
}

#[tokio::test]
async fn garbage_huge_lengths_and_half_messages_end_it_with_a_reason() {
    for (sent, why) in [
        (&[0xff, 0xff, 0xff, 0xff][..], "not a message"),
        (&[0, 0, 4, 0, 1], "not a message"),
        (&[0, 0, 0, 9, 1, 2], "not a message"),
        (&[0, 0, 0, 9], "it ended in the middle"),
    ] {
        let (mut far, near) = duplex(64);
        let mut talk = Conversation::new(near, frames(), hasty());
        far.write_all(sent).await.unwrap();
        drop(far);
        let ended = talk.next().await.unwrap_err().to_string();
        assert!(ended.starts_with(why), "{sent:?}: {ended}");
    }
    let (mut far, near) = duplex(64);
    let mut talk = Conversation::new(near, LinesCodec::new_with_max_length(10), hasty());
    far.write_all(b"much longer than ten bytes").await.unwrap();
    assert!(matches!(talk.next().await, Err(Ended::Malformed(_))));
}

#[tokio::test]
async fn what_is_fed_goes_together_and_what_cannot_be_sent_leaves_the_rest_whole() {
    let (near, far) = duplex(64);
    let (mut far, _) = tokio::io::split(far);
    let mut talk = Conversation::new(near, frames(), hasty());
    assert_eq!(talk.feed(bytes::Bytes::from("ab")).unwrap(), 6);
    let refused = talk.feed(bytes::Bytes::from(vec![0; 1_001]));
    assert!(matches!(refused, Err(Ended::Unsendable(_))));
    assert_eq!(talk.feed(bytes::Bytes::from("c")).unwrap(), 11);
    talk.flush().await.unwrap();
    let mut got = [0; 11];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\0\0\0\x02ab\0\0\0\x01c");
}

#[tokio::test]
async fn whoever_leaves_while_an_answer_is_made_is_noticed_and_what_was_said_is_kept() {
    let (mut far, near) = duplex(64);
    let mut talk = Conversation::new(near, frames(), hasty());
    far.write_all(b"\0\0\0\x01a\0\0\0\x01b").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "a");
    let brief = Duration::from_millis(20);
    assert!(timeout(brief, talk.farewell()).await.is_err());
    drop(far);
    assert_eq!(talk.farewell().await, Farewell::SaidAll);
    assert_eq!(talk.next().await.unwrap().unwrap(), "b");
    assert!(talk.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_stands_between_messages_begins_none_and_makes_no_silence_longer() {
    let lines = || LinesCodec::new_with_max_length(10);
    let (mut far, near) = duplex(64);
    let mut talk = Conversation::continued(near, b" \n", lines(), hasty());
    talk = talk.passing_over(b" \n");
    let began = Instant::now();
    let blanks = tokio::spawn(async move {
        while far.write_all(b"\n ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
    });
    assert!(matches!(talk.next().await, Err(Ended::Idle(_))));
    assert_eq!(began.elapsed(), hasty().idle);
    drop(talk);
    blanks.await.unwrap();

    let (mut far, near) = duplex(64);
    let mut talk = Conversation::new(near, lines(), hasty()).passing_over(b" \n");
    far.write_all(b"\n a\n\n ").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "a");
    drop(far);
    assert!(talk.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn whether_more_is_said_is_known_by_the_deadline_and_nothing_of_it_is_lost() {
    let brief = Duration::from_millis(20);
    let (mut far, near) = duplex(64);
    let mut talk = Conversation::new(near, LinesCodec::new(), hasty());
    assert!(!talk.says_more_than(b" ", brief).await);
    far.write_all(b" ").await.unwrap();
    assert!(!talk.says_more_than(b" ", brief).await);
    far.write_all(b"a\n").await.unwrap();
    assert!(talk.says_more_than(b" ", brief).await);
    assert_eq!(talk.next().await.unwrap().unwrap(), " a");
    drop(far);
    assert!(talk.says_more_than(b" ", brief).await);
    assert!(talk.next().await.unwrap().is_none());
}

#[tokio::test]
async fn whoever_says_much_while_an_answer_is_made_costs_no_more_than_a_chunk() {
    let (mut far, near) = duplex(1 << 20);
    let mut talk = Conversation::new(near, frames(), hasty());
    far.write_all(&[0; 1 << 20]).await.unwrap();
    let brief = Duration::from_millis(20);
    assert!(timeout(brief, talk.farewell()).await.is_err());
    assert!(talk.received.len() < 8 * CHUNK_BYTES);
}

#[tokio::test]
async fn the_last_words_arrive_although_more_was_said_than_was_read() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut talk = Conversation::new(stream, LinesCodec::new(), hasty());
        talk.next().await.unwrap();
        talk.send("enough").await.unwrap();
        talk.finish().await;
    });
    let mut stream = dial(&address, Duration::from_secs(30)).await.unwrap();
    stream.write_all(&[b'\n'; 5_000]).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "enough\n");
    drop(stream);
    server.await.unwrap();
}
