//! `dynamo chat` in a pipe: people talk through different nodes while nodes die and stand still.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, dynamo, eventually};
use crate::support::process::{Process, run};

/// How many lines each says at a time.
const LINES: usize = 20;

/// One who talks in the group `g`.
struct Chat {
    process: Process,
    input: Option<ChildStdin>,
    name: &'static str,
    said: usize,
    screen: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Chat {
    /// Begins at this node.
    fn start(cluster: &Cluster, name: &'static str, node: u32) -> Chat {
        let node = node.to_string();
        let mut command = dynamo(
            &["chat", "g", "--as", name, "--node", &node],
            &cluster.file(FIVE[0]),
        );
        let command = command.stdin(Stdio::piped());
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (input, output, errors) = process.pipes();
        Chat {
            process,
            input: Some(input),
            name,
            said: 0,
            screen: collect(output),
            errors: collect(errors),
        }
    }

    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Says the next numbered lines.
    fn say_more(&mut self) {
        for _ in 0..LINES {
            self.said += 1;
            self.say(&self.said.to_string());
        }
    }

    /// What it has printed, without the time of each message.
    fn messages(&self) -> Vec<String> {
        let lines = self.screen.lock().unwrap();
        let rest = |line: &String| line.split_once(' ').unwrap().1.to_owned();
        lines.iter().map(rest).collect()
    }

    fn errors(&self) -> String {
        self.errors.lock().unwrap().join("\n")
    }

    /// Ends its input. Returns how it ended.
    fn end(&mut self) -> ExitStatus {
        self.input = None;
        self.process.await_end()
    }
}

/// The lines that come, from a thread of their own.
fn collect(from: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let all = lines.clone();
    thread::spawn(move || {
        let lines = BufReader::new(from).lines().map_while(Result::ok);
        lines.for_each(|line| all.lock().unwrap().push(line));
    });
    lines
}

/// Waits until each has printed all that everybody has said.
fn await_all(chats: &[Chat]) {
    let said = chats.iter().map(|chat| chat.said).sum();
    for chat in chats {
        eventually(&format!("{} is shown {said} messages", chat.name), || {
            (chat.messages().len() >= said).then_some(())
        });
    }
}

/// Three talk through three of five nodes. One of these leaves in the middle of a sentence, and comes back.
fn talk_while_a_node_is_away(
    leave: impl Fn(&Cluster, u32),
    come_back: impl Fn(&Cluster, u32),
    notice: &str,
) {
    let cluster = Cluster::start(&FIVE);
    let start = |(name, node)| Chat::start(&cluster, name, node);
    let mut chats: Vec<Chat> = ["ann", "bob", "eve"]
        .into_iter()
        .zip(FIVE)
        .map(start)
        .collect();
    // Who joins is shown the last 20 messages only, so nobody speaks before all are there.
    for name in ["ann", "bob", "eve"] {
        eventually(&format!("{name} is in the group"), || {
            let members = cluster.list(FIVE[4], "WHO g").ok()?;
            members
                .iter()
                .any(|line| line.ends_with(name))
                .then_some(())
        });
    }
    let away = FIVE[1];
    chats.iter_mut().for_each(Chat::say_more);
    leave(&cluster, away);
    chats.iter_mut().for_each(Chat::say_more);
    await_all(&chats);
    chats.iter_mut().for_each(Chat::say_more);
    come_back(&cluster, away);
    chats.iter_mut().for_each(Chat::say_more);
    await_all(&chats);
    let first = chats[0].messages();
    for chat in &mut chats {
        let end = chat.end();
        assert!(end.success(), "{}: {end}: {}", chat.name, chat.errors());
        assert_eq!(chat.messages(), first, "{}", chat.name);
        let start = format!("{} ", chat.name);
        let own = first.iter().filter_map(|line| line.strip_prefix(&start));
        let numbers: Vec<String> = (1..=chat.said).map(|number| number.to_string()).collect();
        assert_eq!(own.collect::<Vec<_>>(), numbers, "{}", chat.name);
    }
    let notices = chats[1].errors();
    assert!(notices.contains(notice), "{notices:?}");
    assert_eq!(notices.matches("going on").count(), 1, "{notices}");
}

#[test]
fn all_are_shown_the_same_and_each_line_once_though_a_node_is_killed_and_started_again() {
    talk_while_a_node_is_away(
        Cluster::kill,
        Cluster::start_node,
        "node 5556 has closed the connection; going on at node 5558",
    );
}

#[test]
fn all_are_shown_the_same_and_each_line_once_though_a_node_is_paused_and_goes_on() {
    talk_while_a_node_is_away(
        Cluster::pause,
        Cluster::resume,
        "node 5556 does not answer; going on at node 5558",
    );
}

/// What `dynamo chat` prints to standard output and to standard error if this is said, and its exit code.
fn chat(cluster: &Cluster, group: &str, name: &str, input: &str) -> (String, String, i32) {
    let mut command = dynamo(&["chat", group, "--as", name], &cluster.file(FIVE[0]));
    let output = run(&mut command, input);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (text(output.stdout), text(output.stderr), code)
}

#[test]
fn at_the_end_of_its_input_all_is_acknowledged_and_shown_or_it_fails_and_says_why() {
    let cluster = Cluster::start(&THREE);
    let (output, errors, code) = chat(&cluster, "g", "ann", "one\n  \"two\" \n\nlast");
    assert_eq!((errors.as_str(), code), ("", 0));
    let messages: Vec<_> = output
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let messages: Vec<_> = messages.iter().map(|(_, message)| *message).collect();
    assert_eq!(messages, ["ann one", "ann   \"two\" ", "ann ", "ann last"]);
    // What was said before is shown first.
    let (output, _, code) = chat(&cluster, "g", "bob", "more\n");
    assert!(
        output.contains(" ann one\n") && output.ends_with(" bob more\n"),
        "{output}"
    );
    assert_eq!(code, 0);
    let long = format!("{}\nshort\na\tb\n", "x".repeat(1100));
    let (output, errors, code) = chat(&cluster, "g", "bob", &long);
    assert!(output.ends_with(" bob short\n"), "{output}");
    assert!(
        errors.contains("not sent: the message has 1102 bytes as a JSON string; "),
        "{errors}"
    );
    assert!(
        errors.contains("not sent: a message must not contain control characters: "),
        "{errors}"
    );
    assert!(
        errors.ends_with("2 lines were not sent, or perhaps not; see above\n"),
        "{errors}"
    );
    assert_eq!(code, 1);
}

#[test]
fn a_wrong_group_name_or_node_is_refused_before_anything_else() {
    let cluster = Plan::of(&THREE).lay_out();
    let (_, errors, code) = chat(&cluster, "a/b", "ann", "");
    assert!(
        code == 2 && errors.contains("a group is named by 1 to 32 bytes"),
        "{errors}"
    );
    let (_, errors, code) = chat(&cluster, "g", "a b", "");
    assert!(
        code == 2 && errors.contains("a nick is named by 1 to 32 bytes"),
        "{errors}"
    );
    let mut command = dynamo(
        &["chat", "g", "--as", "ann", "--node", "1"],
        &cluster.file(5554),
    );
    let errors = String::from_utf8(run(&mut command, "").stderr).unwrap();
    assert!(errors.contains("node 1 is not in the cluster"), "{errors}");
}

#[test]
fn without_any_node_a_pipe_gives_up_and_says_what_is_not_said() {
    let cluster = Plan::of(&THREE).lay_out();
    let (output, errors, code) = chat(&cluster, "g", "ann", "one\ntwo\n");
    assert_eq!((output.as_str(), code), ("", 1));
    let notice =
        "dynamo: no node can be reached, the last: node 5558 cannot be reached; still trying\n";
    let end = "dynamo: gave up: node 5554 cannot be reached. 2 messages are not acknowledged, and none after \
               them is sent; the first: one. dynamo status tells how the nodes are\n";
    assert_eq!(errors, [notice, end].concat());
}

#[test]
fn what_is_not_acknowledged_makes_it_fail_though_its_input_has_not_ended() {
    let cluster = Cluster::start(&THREE);
    let mut chat = Chat::start(&cluster, "ann", THREE[0]);
    chat.say("one");
    eventually("a message is shown", || {
        (!chat.messages().is_empty()).then_some(())
    });
    cluster.pause(THREE[1]);
    cluster.pause(THREE[2]);
    chat.say("two");
    let code = chat.process.await_end().code();
    assert_eq!(code, Some(1));
    eventually("it says why", || {
        let errors = chat.errors();
        errors
            .contains("1 messages are not acknowledged")
            .then_some(())
    });
}
