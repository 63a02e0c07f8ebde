//! The questions of a link when its connection is reset and when its peer reads nothing. After a reset it
//! asks for votes again, but sends no forwarded request again. The test plays the peer.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{Change, Operation, VoteRequest};
use simple_dynamo::storage::Start;
use simple_dynamo::transport::handshake::{Introduction, LocalNode, Welcome};
use simple_dynamo::transport::link::{Answer, Settings};
use simple_dynamo::transport::message::line;
use simple_dynamo::transport::{Link, Request};

/// Long enough that a busy machine does not turn a reset into a silence.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

fn link_to(listener: &TcpListener) -> Arc<Link> {
    link_that_notifies(listener, READ_TIMEOUT, |_| {})
}

/// The node of a link. It lasts until the tests end.
struct Owner(Box<dyn Fn(NodeId) + Send + Sync>);

impl LocalNode for Owner {
    fn introduction(&self) -> Introduction {
        let (start, cluster_id) = (Start::numbered(1), None);
        Introduction { start, cluster_id }
    }

    fn meet(&self, _: NodeId, _: &Introduction) -> Result<(), Welcome> {
        Ok(())
    }

    fn outdated(&self, _: NodeId, why: &str) {
        panic!("{why}");
    }

    fn returned(&self, peer: NodeId) {
        self.0(peer);
    }
}

/// A link with this read time-out that calls `returned` when its peer may have missed something.
fn link_that_notifies(
    listener: &TcpListener,
    read_timeout: Duration,
    returned: impl Fn(NodeId) + Send + Sync + 'static,
) -> Arc<Link> {
    let owner: &'static Arc<Owner> = Box::leak(Box::new(Arc::new(Owner(Box::new(returned)))));
    let owner = Arc::downgrade(owner);
    Link::new(Settings {
        node: NodeId(1),
        peer: NodeId(2),
        address: listener.local_addr().unwrap().to_string(),
        cluster: "test".into(),
        read_timeout,
        patience: 5 * read_timeout,
        owner,
    })
}

/// Accepts the link's next connection, with the handshake.
fn welcome(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream);
    assert!(next(&mut lines).contains("\"protocol\""));
    let (start, cluster_id) = (Start::numbered(1), None);
    let welcome = Welcome::Welcome(Introduction { start, cluster_id });
    lines.get_mut().write_all(&line(&welcome)).unwrap();
    lines
}

fn next(lines: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line
}

/// Forwards a request. The channel receives its answer.
fn forward(link: &Link, key: &str) -> mpsc::Receiver<Answer> {
    let (sender, forwarded) = mpsc::channel();
    let request = Request::Coordinate {
        key: key.into(),
        operation: Operation::Get,
        seen: None,
        vouched: None,
    };
    // The test may have dropped the receiver.
    link.ask(request, move |answer| drop(sender.send(answer)));
    forwarded
}

#[test]
fn after_a_reset_a_forwarded_request_is_given_up_in_time_though_other_bytes_keep_coming() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link_to(&listener);
    let running = link.clone();
    let thread = thread::spawn(move || running.run());
    let mut first = welcome(&listener);
    let began = Instant::now();
    let forwarded = forward(&link, "k");
    assert!(next(&mut first).contains("coordinate"));
    drop(first);
    let mut second = welcome(&listener);
    let answer = loop {
        // A reply to no question keeps the peer from being silent.
        let write = second
            .get_mut()
            .write_all(b"{\"id\":99,\"tell\":\"abstain\"}\n");
        write.unwrap();
        if let Ok(answer) = forwarded.recv_timeout(READ_TIMEOUT / 20) {
            break answer;
        }
        assert!(began.elapsed() < READ_TIMEOUT * 2, "not given up");
    };
    assert!(matches!(answer, Answer::Silent));
    link.end();
    thread.join().unwrap();
}

#[test]
fn after_a_reset_votes_are_asked_again_and_a_forwarded_request_is_given_up_as_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link_to(&listener);
    let running = link.clone();
    let thread = thread::spawn(move || running.run());
    let mut first = welcome(&listener);

    let forwarded = forward(&link, "k");
    assert!(next(&mut first).contains("coordinate"));
    let (sender, voted) = mpsc::channel();
    let vote = VoteRequest::Read { state: false };
    let request = Request::Vote {
        key: "k".into(),
        vote,
    };
    // The test may have dropped the receiver.
    link.ask(request, move |answer| drop(sender.send(answer)));
    assert!(next(&mut first).contains("vote"));
    drop(first);

    let mut second = welcome(&listener);
    let again = next(&mut second);
    assert!(
        again.contains("vote"),
        "sent first after the reset: {again}"
    );
    let id: String = again.chars().filter(char::is_ascii_digit).collect();
    let reply = format!("{{\"id\":{id},\"tell\":{{\"vote\":\"taken\"}}}}\n");
    second.get_mut().write_all(reply.as_bytes()).unwrap();
    assert!(matches!(voted.recv().unwrap(), Answer::Reply(_)));
    assert!(matches!(forwarded.recv().unwrap(), Answer::Silent));
    assert!(!link.suspect(), "a reset is no silence");

    link.end();
    thread.join().unwrap();
}

#[test]
fn a_peer_that_was_sent_a_large_value_has_more_time_to_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let time_out = Duration::from_millis(100);
    let link = link_that_notifies(&listener, time_out, |_| {});
    let running = link.clone();
    let thread = thread::spawn(move || running.run());
    let mut peer = welcome(&listener);
    let dot = Dot {
        origin: NodeId(1),
        sequence: 1,
    };
    let change = Change::Put(vec![b'v'; 1 << 20].as_slice().into());
    let operation = Operation::Write { dot, change };
    let request = Request::Coordinate {
        key: "k".into(),
        operation,
        seen: None,
        vouched: None,
    };
    let (sender, answer) = mpsc::channel();
    let began = Instant::now();
    link.ask(request, move |answer| sender.send(answer).unwrap());
    assert!(next(&mut peer).len() > 1 << 20);
    assert!(matches!(answer.recv().unwrap(), Answer::Silent));
    assert!(began.elapsed() >= time_out + Duration::from_millis(250));
    link.end();
    thread.join().unwrap();
}

/// Large values excuse the silence of a peer only if it was sent them.
#[test]
fn values_that_were_not_sent_give_a_peer_no_more_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let time_out = Duration::from_millis(100);
    let link = link_that_notifies(&listener, time_out, |_| {});
    drop(listener);
    let running = link.clone();
    let thread = thread::spawn(move || running.run());
    let began = Instant::now();
    let long = "k".repeat(1 << 20);
    let change = Change::Put(long.as_str().into());
    let dot = Dot {
        origin: NodeId(1),
        sequence: 1,
    };
    let (sender, answers) = mpsc::channel();
    for _ in 0..20 {
        let request = Request::Coordinate {
            key: "k".into(),
            operation: Operation::Write {
                dot,
                change: change.clone(),
            },
            seen: None,
            vouched: None,
        };
        let sender = sender.clone();
        link.ask(request, move |answer| sender.send(answer).unwrap());
    }
    for _ in 0..20 {
        assert!(matches!(answers.recv().unwrap(), Answer::Unreached));
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "20 of them take 5 s"
    );
    link.end();
    thread.join().unwrap();
}

#[test]
fn a_request_that_a_full_queue_does_not_take_ends_at_once_as_unreached() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link_to(&listener);
    let running = link.clone();
    let thread = thread::spawn(move || running.run());
    // The peer reads one request and no more.
    let mut deaf = welcome(&listener);
    let first = forward(&link, "k");
    assert!(next(&mut deaf).contains("coordinate"));
    let long = "k".repeat(1 << 20);
    let more: Vec<_> = (0..100).map(|_| forward(&link, &long)).collect();
    let answer = more.iter().find_map(|answer| answer.try_recv().ok());
    assert!(matches!(answer, Some(Answer::Unreached)), "{answer:?}");
    assert!(
        first.try_recv().is_err(),
        "it was sent, and may be answered"
    );
    link.end();
    thread.join().unwrap();
}

/// Checks that `send` drops messages while the peer reads nothing, and that the node learns once that the
/// peer may have missed them, when it reads and answers again.
fn check_that_the_node_learns_of_dropped_messages(send: impl Fn(&Link) -> bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (sender, returned) = mpsc::channel();
    // Long enough that the peer is never suspected.
    let read_timeout = Duration::from_secs(600);
    let link = link_that_notifies(&listener, read_timeout, move |_| sender.send(()).unwrap());
    let running = link.clone();
    let thread = thread::spawn(move || running.run());
    let mut peer = welcome(&listener);
    let (soon, a_while) = (Duration::from_secs(60), Duration::from_millis(200));
    returned.recv_timeout(soon).expect("it is connected");
    assert!(send(&link), "all of them were sent");
    let mut chatter = peer.get_ref().try_clone().unwrap();
    let chatting = thread::spawn(move || {
        // The other thread writes to the same connection, so each write is a whole line.
        while chatter
            .write_all(b"{\"id\":0,\"tell\":\"abstain\"}\n")
            .is_ok()
        {
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(
        returned.recv_timeout(a_while).is_err(),
        "the peer reads nothing yet"
    );
    let answering = thread::spawn(move || {
        let mut question = String::new();
        // The end of the link may be a reset.
        while peer.read_line(&mut question).is_ok_and(|length| length > 0) {
            let id = question.trim_start_matches("{\"id\":").split(',').next();
            let answer = format!("{{\"id\":{},\"tell\":\"abstain\"}}\n", id.unwrap());
            if peer.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            question.clear();
        }
    });
    returned.recv_timeout(soon).expect("the peer reads again");
    assert!(returned.recv_timeout(a_while).is_err(), "once is enough");
    link.end();
    thread.join().unwrap();
    chatting.join().unwrap();
    answering.join().unwrap();
}

/// Forwards so many requests, and returns whether one of them could not be sent.
fn forward_all(link: &Link, count: usize, key: &str) -> bool {
    let forwarded: Vec<_> = (0..count).map(|_| forward(link, key)).collect();
    let mut answers = forwarded.iter().filter_map(|answer| answer.try_recv().ok());
    answers.any(|answer| matches!(answer, Answer::Unreached))
}

#[test]
fn a_node_learns_that_a_full_queue_dropped_questions() {
    let long = "k".repeat(1 << 20);
    check_that_the_node_learns_of_dropped_messages(|link| forward_all(link, 100, &long));
}

#[test]
fn a_node_learns_that_too_many_questions_were_dropped() {
    check_that_the_node_learns_of_dropped_messages(|link| forward_all(link, 20_001, "k"));
}

#[test]
fn a_node_learns_that_a_full_queue_dropped_messages_without_an_answer() {
    check_that_the_node_learns_of_dropped_messages(|link| {
        for _ in 0..100 {
            let key = vec![b'k'; 1 << 20].as_slice().into();
            let vote = VoteRequest::Read { state: true };
            link.tell(Request::Vote { key, vote });
        }
        // Nothing says here whether a message was dropped.
        true
    });
}
