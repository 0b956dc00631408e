//! What stands in the order beside requests.

use super::*;

#[test]
fn r0_17_what_nobody_can_be_told_of_is_no_item_and_is_counted() {
    for wrong in [
        "",
        "nada",
        "[]",
        "{}",
        r#"{"tipomsg":"consulta","chave":"k","idpedido":7}"#,
        r##"{"tipomsg":"consulta","chave":"k","idpedido":7,"topico-resp":"a/#"}"##,
        r#"{"tipomsg":"consulta","chave":"k","idpedido":7,"topico-resp":7}"#,
        r#"{"tipomsg":"apaga","idpedido":7,"topico-resp":"$SYS/x"}"#,
        r#"{"tipomsg":"novoserv","topico-resp":"inf1406-rec-0"}"#,
        r#"{"tipomsg":"servpronto","idserv":0}"#,
        r#"{"tipomsg":"falhaserv","idserv":"zero"}"#,
        r#"{"tipomsg":"marca","decisoes":0,"relogio":1}"#,
    ] {
        let mut dialect = dialect(0);
        let refused = dialect.refused();
        let items = dialect.read_items(&Bytes::copy_from_slice(wrong.as_bytes()));
        assert_eq!(items[0].item, Item::Unreadable, "{wrong}");
        assert_eq!(refused.take().map(|(times, _)| times), Some(1), "{wrong}");
        assert_eq!(refused.take(), None);
    }
}

#[test]
fn r0_23_a0_3_a0_4_a_foreign_monitors_falhaserv_is_read_in_all_its_forms() {
    let million_seconds = 1_638_136_800_000_000;
    for (json, seen) in [
        (r#""idserv":0,"vistoem":1638136800000"#, million_seconds),
        (r#""idServ":"0","vistoem":"1638136800000""#, million_seconds),
        (r#""idserv":0,"vistoem":1638136800"#, million_seconds),
        (
            r#""idserv":0,"vistoem":1638136800.25"#,
            million_seconds + 250_000,
        ),
        (
            r#""idserv":"0","vistoem":"1638136800.25""#,
            million_seconds + 250_000,
        ),
        (r#""idserv":0,"vistoem":1.6381368e12"#, million_seconds),
        (r#""idserv":0"#, 0),
        (r#""idserv":0,"vistoem":"ontem""#, 0),
        (r#""idserv":0,"vistoem":-5"#, 0),
        (r#""idserv":0,"vistoem":1e999"#, 0),
    ] {
        let wanted = Item::Failed {
            replica: ReplicaId(0),
            life: None,
            seen_at: Timestamp(seen),
        };
        assert_eq!(
            read(&format!(r#"{{"tipomsg":"falhaserv",{json}}}"#)),
            wanted,
            "{json}"
        );
    }
}

#[test]
fn r0_23_r0_28_the_items_of_the_text_have_its_fields() {
    let life = Life {
        incarnation: Incarnation(5),
        attempt: 2,
    };
    let replica = ReplicaId(0);
    let seen_at = Timestamp(1_638_136_800_000_000);
    let written = |item| {
        let stamp = Some(Stamp {
            replica,
            incarnation: Incarnation(5),
            seq: 1,
        });
        let bytes = dialect(0).item(&Published { stamp, item });
        serde_json::from_slice::<Value>(&bytes).expect("JSON")
    };
    let failed = written(Item::Failed {
        replica,
        life: Some(life),
        seen_at,
    });
    assert_eq!(
        (&failed["tipomsg"], &failed["idserv"], &failed["vistoem"]),
        (
            &json!("falhaserv"),
            &json!(0),
            &json!(1_638_136_800_000_u64)
        )
    );
    let new = written(Item::Announce { replica, life });
    assert_eq!(
        (&new["tipomsg"], &new["topico-resp"], &new["idserv"]),
        (&json!("novoserv"), &json!("inf1406-rec-0"), &json!(0))
    );
    let ready = written(Item::Ready { replica, life });
    assert_eq!(
        (&ready["tipomsg"], &ready["idserv"]),
        (&json!("servpronto"), &json!(0))
    );
    assert_eq!(
        (&ready["encarnacao"], &ready["tentativa"]),
        (&json!(5), &json!(2))
    );
}

#[test]
fn a0_11_novoserv_without_an_id_is_of_the_server_that_its_topic_names() {
    let said = r#"{"tipomsg":"novoserv","topico-resp":"inf1406-rec-12","encarnacao":5,"tentativa":1,
                   "carimbo":{"idserv":12,"encarnacao":5,"numero":1},"acordo":18446744073709551610}"#;
    assert!(matches!(
        read(said),
        Item::Announce {
            replica: ReplicaId(12),
            ..
        }
    ));
}

#[test]
fn what_a_server_with_another_agreement_says_is_nothing() {
    let item = Item::Announce {
        replica: ReplicaId(1),
        life: sample_life(),
    };
    let stamp = Some(Stamp {
        replica: ReplicaId(1),
        incarnation: Incarnation(5),
        seq: 1,
    });
    let mut other = dialect(1);
    other.agreement = 1;
    let bytes = other.item(&Published { stamp, item });
    assert_eq!(dialect(0).read_items(&bytes)[0].item, Item::Unreadable);
}
