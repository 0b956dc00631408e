//! Whatever is said is read as it was meant, and nothing read from outside does harm.

use super::*;

fn lives() -> impl Strategy<Value = Life> {
    (any::<u64>(), any::<u32>()).prop_map(|(incarnation, attempt)| Life {
        incarnation: Incarnation(incarnation),
        attempt,
    })
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(replica, incarnation, seq)| Stamp {
        replica: ReplicaId(replica),
        incarnation: Incarnation(incarnation),
        seq,
    })
}

fn own_items() -> impl Strategy<Value = Item> {
    let who = || (any::<u32>().prop_map(ReplicaId), lives());
    let listed = proptest::collection::vec(who(), 0..4);
    prop_oneof![
        who().prop_map(|(replica, life)| Item::Announce { replica, life }),
        who().prop_map(|(replica, life)| Item::Ready { replica, life }),
        (who(), any::<bool>(), any::<u64>()).prop_map(|((replica, life), known, seen)| {
            Item::Failed {
                replica,
                life: known.then_some(life),
                seen_at: Timestamp(seen),
            }
        }),
        (who(), any::<u64>()).prop_map(|((replica, life), from)| Item::Genesis {
            replica,
            life,
            from: Index(from)
        }),
        stamps().prop_map(|genesis| Item::Objection { genesis }),
        (any::<u64>(), any::<u64>()).prop_map(|(decisions, clock)| Item::Mark {
            decisions,
            clock: Timestamp(clock)
        }),
        (any::<[u64; 4]>(), stamps(), listed).prop_map(
            |([number, known, at, chain], mark, listed)| {
                Item::Decision(Decision {
                    number,
                    mark,
                    known,
                    at: Index(at),
                    chain,
                    listed,
                })
            }
        ),
    ]
}

fn valid_payloads() -> Vec<Bytes> {
    let mut samples: Vec<Bytes> = vec![
        request::query("k", "resp-c1", 7).into(),
        request::insertion("k", "v", "resp-c1", 8).into(),
        r#"{"tipomsg":"falhaserv","idserv":"0","vistoem":1638136800.5}"#.into(),
    ];
    let mut sender = dialect(1);
    let mut out = Vec::new();
    let heartbeat = Message::Heartbeat(sample_heartbeat());
    sender.message(Destination::Group, &heartbeat, &mut out);
    let piece = Message::Piece {
        life: sample_life(),
        from: ReplicaId(1),
        at: Index(9),
        chain: 3,
        offset: 0,
        whole: 20,
        data: Bytes::from_static(b"x\n[\"k\",\"v\"]\n[\"half"),
    };
    sender.message(Destination::One(ReplicaId(0)), &piece, &mut out);
    samples.extend(out.into_iter().map(|(_, payload)| payload));
    samples
}

proptest! {
    #[test]
    fn what_a_server_says_in_the_order_is_read_as_what_it_was(item in own_items(), stamp in stamps()) {
        let published = Published { stamp: Some(stamp), item };
        let bytes = dialect(1).item(&published);
        prop_assert_eq!(dialect(0).read_items(&bytes), vec![published]);
    }

    #[test]
    fn r0_2_keys_and_values_are_any_strings(key in any::<String>(), value in any::<String>()) {
        prop_assume!(key.len() + value.len() < 100);
        let asked = request(&request::insertion(&key, &value, "r", 1));
        let Meant::Insert(read_key, read_value) = meant(&asked) else { panic!() };
        prop_assert_eq!((&read_key, &read_value), (&key, &value));
        let (_, said) = answer(&mut dialect(0), &asked, &Response::Value(value.clone())).expect("told");
        prop_assert_eq!(said["chave"].as_str(), Some(key.as_str()));
        prop_assert_eq!(said["valor"].as_str(), Some(value.as_str()));
    }

    #[test]
    fn nothing_read_from_outside_panics(
        which in any::<proptest::sample::Index>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<proptest::sample::Index>(),
        random in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let samples = valid_payloads();
        let mut bytes = which.get(&samples).to_vec();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        for payload in [Bytes::from(bytes), Bytes::from(random)] {
            let (mut dialect, mut other) = (dialect(0), dialect(2));
            let items = dialect.read_items(&payload);
            prop_assert_eq!(items.len(), 1);
            // A pure function of the bytes: another server reads the same.
            prop_assert_eq!(&items, &other.read_items(&payload));
            if let Item::Request(asked) = &items[0].item {
                let _ = dialect.answer(&asked.reply_to, &done(&Response::Missing));
            }
            for topic in ["inf1406-monitor", "inf1406-rec-0", "other"] {
                let _ = dialect.read_message(topic, &payload);
            }
            let _ = dialect.answer(&payload, &Outcome::Busy);
        }
    }
}
