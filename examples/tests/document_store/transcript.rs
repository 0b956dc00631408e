//! The command line, as its transcript has it.

use crate::{USERS, ok};
use kvrep_examples::common::processes::Program;
use kvrep_examples::document_store::cli::args::HELP;
use kvrep_examples::document_store::stage::{PATIENCE, Port, Stage};
use kvrep_examples::document_store::wire::framed;
use std::io::{Read as _, Write as _};
use uuid::Uuid;

/// What is printed when these lines are typed, and whether the program was content.
async fn typed(port: Port, options: &[&str], lines: &[&str]) -> (String, bool) {
    let program = Program::beside("the command line", "docstore-cli").expect("it is built");
    let program = program.arg(format!("localhost:{port}")).args(options);
    let mut cli = program.start().expect("it starts");
    for line in lines {
        cli.type_line(line).await.expect("it reads");
    }
    cli.close_input();
    let status = cli.ended(PATIENCE).await.expect("it ends");
    (cli.printed().join("\n"), status.success())
}

#[tokio::test]
async fn r2_20_the_help_argument_prints_the_list_of_commands_and_nothing_else() {
    let program = Program::beside("the command line", "docstore-cli").expect("it is built");
    let mut cli = program.arg("help").start().expect("it starts");
    assert!(cli.ended(PATIENCE).await.expect("it ends").success());
    assert_eq!(cli.printed().join("\n"), HELP);
}

#[tokio::test]
async fn r2_21_to_r2_27_the_transcript_is_printed_word_for_word() {
    let (_stage, [leader]) = Stage::with().await.unwrap();
    let lines = [
        "addcol users *email=str,name=str,*age=int",
        "add users email=a name=a age=18",
        "add users email=b name=b age=18",
        "search users age>10 age<20",
    ];
    let (printed, content) = typed(leader, &[], &lines).await;
    assert!(content, "{printed}");
    let ids: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("db > Doc added with _id "))
        .map(|id| id.strip_suffix('.').expect("a period"))
        .collect();
    let [a, b] = ids[..] else {
        panic!("two documents were added: {printed}");
    };
    for id in [a, b] {
        assert_eq!(Uuid::try_parse(id).expect("a UUID").to_string(), id);
    }
    assert_eq!(
        printed,
        format!(
            "db > Col added.\ndb > Doc added with _id {a}.\ndb > Doc added with _id {b}.\n\
             db > Results:\n- id: {a}\n  email: a\n  name: a\n  age: 18\n- id: {b}\n  email: b\n  name: b\n  age: 18\ndb > Bye"
        )
    );
    let lines = [
        &format!("search users _id={a}"),
        &format!("update users _id={a} email=c,age=19"),
        &format!("search users _id={a}"),
        "exit",
    ];
    let (printed, _) = typed(leader, &[], &lines).await;
    assert_eq!(
        printed,
        format!(
            "db > Results:\n- id: {a}\n  email: a\n  name: a\n  age: 18\ndb > Doc updated.\n\
             db > Results:\n- id: {a}\n  email: c\n  name: a\n  age: 19\ndb > Bye"
        )
    );
}

#[tokio::test]
async fn r2_28_and_a2_8_the_other_commands_and_what_meets_nothing() {
    let (_stage, [leader]) = Stage::with().await.unwrap();
    let lines = [
        "desc",
        "addcol users *email=str,age=int",
        "desc",
        "update users age>3 email=a",
        "remove users age>3",
        "add users age=4",
        "remove users age>3",
        "rmcol users",
        "help",
    ];
    let (printed, content) = typed(leader, &[], &lines).await;
    let printed: Vec<&str> = printed.lines().collect();
    assert!(content, "{printed:?}");
    assert_eq!(
        printed[..6],
        [
            "db > No cols.",
            "db > Col added.",
            "db > Cols:",
            "- users: *email=str,age=int",
            "db > No docs.",
            "db > No docs."
        ]
    );
    assert!(printed[6].starts_with("db > Doc added with _id "));
    assert_eq!(printed[7..9], ["db > Doc removed.", "db > Col removed."]);
    assert_eq!(printed[9..].join("\n"), format!("db > {HELP}\ndb > Bye"));
}

#[tokio::test]
async fn r2_29_errors_are_shown_with_their_reason_and_a_script_learns_of_them() {
    let (_stage, [leader, follower]) = Stage::with().await.unwrap();
    let (printed, content) = typed(leader, &[], &["add users a=1", "fly", "add users age"]).await;
    assert!(!content);
    assert!(
        printed.contains("db > Error: no collection \"users\""),
        "{printed}"
    );
    assert!(
        printed.contains("db > Error: no command \"fly\""),
        "{printed}"
    );

    ok(leader, USERS).await;
    let add = ["add users email=a"];
    let (printed, content) = typed(follower, &[], &add).await;
    assert!(!content);
    let refusal = format!("db > Error: not leader; leader is 127.0.0.1:{leader}\ndb > Bye");
    assert_eq!(printed, refusal, "a2_12");
    let (printed, content) = typed(follower, &["--follow-leader"], &add).await;
    assert!(content && printed.contains("Doc added"), "a2_12: {printed}");
}

#[tokio::test]
async fn a_reason_cannot_play_with_the_terminal() {
    let hostile = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hostile.local_addr().unwrap().port();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = hostile.accept().unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut request).unwrap();
        let answer = framed(r#"["ko", "\u001b[2Jevil\nCol added."]"#).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let (printed, content) = typed(port, &[], &["desc"]).await;
    answers.join().unwrap();
    assert!(!content);
    assert!(
        printed.contains(r"Error: \u{1b}[2Jevil\nCol added."),
        "{printed:?}"
    );
}

#[tokio::test]
async fn a_command_line_without_a_server_says_so() {
    let [port] = kvrep_examples::common::processes::free_ports().unwrap();
    let (printed, content) = typed(port, &[], &["desc"]).await;
    assert!(!content);
    assert!(
        printed.contains("not sent: cannot connect to localhost"),
        "{printed}"
    );
}
