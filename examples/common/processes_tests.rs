//! Lines, signals and ports, with a shell.

use super::*;

const WITHIN: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Process {
    let shell = Program::at("the shell", "/bin/sh").args(["-c", script]);
    shell.start().expect("a shell")
}

#[tokio::test]
async fn lines_are_found_in_order_and_typed_lines_arrive() {
    let mut cat = shell("echo ready >&2; cat; echo gone");
    cat.line("ready", WITHIN).await.unwrap();
    cat.type_line("first").await.unwrap();
    assert_eq!(cat.line("f", WITHIN).await.unwrap(), "first");
    cat.type_line("second").await.unwrap();
    cat.close_input();
    assert!(cat.ended(WITHIN).await.unwrap().success());
    assert_eq!(cat.line("", WITHIN).await.unwrap(), "second");
    assert_eq!(cat.printed(), ["ready", "first", "second", "gone"]);
    let late = cat
        .line("never", Duration::from_millis(1))
        .await
        .unwrap_err();
    assert!(late.to_string().contains("second\ngone"), "{late}");
}

#[tokio::test]
async fn a_paused_process_says_nothing_until_it_goes_on_and_a_killed_one_is_gone() {
    let mut cat = shell("exec cat");
    cat.type_line("one").await.unwrap();
    cat.line("one", WITHIN).await.unwrap();
    assert!(cat.resident_bytes().is_none_or(|bytes| bytes > 0));
    cat.pause().unwrap();
    cat.type_line("two").await.unwrap();
    let silent = cat.line("two", Duration::from_millis(50)).await;
    assert!(silent.is_err());
    cat.resume().unwrap();
    cat.line("two", WITHIN).await.unwrap();
    cat.kill().await.unwrap();
    assert!(!cat.ended(WITHIN).await.unwrap().success());
    assert!(cat.pause().is_err());
}

#[tokio::test]
async fn one_that_is_dropped_is_gone_when_the_next_one_starts() {
    for _ in 0..20 {
        let cat = shell("exec cat");
        let id = i32::try_from(cat.id().expect("it runs")).unwrap();
        cat.pause().unwrap();
        drop(cat);
        let id = rustix::process::Pid::from_raw(id).unwrap();
        assert!(rustix::process::test_kill_process(id).is_err());
    }
}

#[test]
fn free_ports_differ_and_can_be_listened_on() {
    let [one, other] = free_ports::<2>().unwrap();
    assert_ne!(one, other);
    assert!(PORTS.contains(&one) && PORTS.contains(&other));
}

#[test]
fn a_program_that_is_not_built_is_named_with_the_command_that_builds_it() {
    let missing = Program::beside("nobody", "no-such-program").unwrap_err();
    assert!(missing.to_string().contains("cargo build"), "{missing}");
}
