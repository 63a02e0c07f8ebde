//! The link: each question gets exactly one answer, and never another question's.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use shuttle::sync::mpsc;

use crate::protocol::ring::NodeId;
use crate::storage::{LogPosition, Start};
use crate::sync::thread::{self, JoinHandle};
use crate::transport::handshake::{Introduction, LocalNode, Welcome};
use crate::transport::link::{Answer, Link, Settings};
use crate::transport::message::{self, Ask, MAX_LINE, Reply, Request, Tell};
use crate::transport::socket::{self, TcpStream};
use crate::transport::{Lines, Received};
use crate::{SCHEDULES, draw, explore, wait_up_to};

const ASKERS: usize = 2;
const QUESTIONS: usize = 2;

/// What the scenarios have observed. Its lock is not the model checker's, so that it changes no schedule.
#[derive(Default)]
struct Seen {
    connections: usize,
    /// The questions that reached the peer, each with the number of its connection.
    reached: Vec<(usize, usize)>,
    answers: BTreeMap<usize, Vec<Answer>>,
}

type Shared = Arc<Mutex<Seen>>;

/// A peer that answers now, later, out of order or never, and breaks connections off.
fn serve(seen: &Shared, stream: TcpStream) {
    let connection = {
        let mut seen = seen.lock().unwrap();
        seen.connections += 1;
        seen.connections
    };
    let mut stream_out = stream.try_clone().unwrap();
    let mut lines = Lines::new(stream, MAX_LINE);
    let mut later = Vec::new();
    let mut greeted = false;
    loop {
        while let Some(line) = lines.next_line().unwrap() {
            let reply = if greeted {
                let Ask { id, ask } = serde_json::from_slice(line).expect("a whole question");
                let question = number_of(&ask);
                if let Some(question) = question {
                    seen.lock().unwrap().reached.push((connection, question));
                }
                let tell = question.map_or(Reply::Pong(LogPosition::default()), |n| {
                    Reply::Digests(vec![n as u64])
                });
                message::line(&Tell { id, tell })
            } else {
                message::line(&Welcome::Welcome(introduction()))
            };
            match draw(8) {
                0 => return,
                1 | 2 if greeted => later.push(reply),
                3 if greeted => {}
                _ => {
                    // A link that is gone needs no answer.
                    let _ = stream_out.write_all(&reply);
                    greeted = true;
                }
            }
            while let Some(late) = later.pop_if(|_| draw(2) == 0) {
                let _ = stream_out.write_all(&late);
            }
        }
        if matches!(lines.receive(), Ok(Received::End) | Err(_)) {
            return;
        }
    }
}

fn introduction() -> Introduction {
    let (start, cluster_id) = (Start::numbered(1), None);
    Introduction { start, cluster_id }
}

/// The node of the link, which takes everybody for the peer.
struct Owner;

impl LocalNode for Owner {
    fn introduction(&self) -> Introduction {
        introduction()
    }

    fn meet(&self, _: NodeId, _: &Introduction) -> Result<(), Welcome> {
        Ok(())
    }

    fn outdated(&self, _: NodeId, _: &str) {}

    fn returned(&self, _: NodeId) {}
}

static OWNER: LazyLock<Arc<Owner>> = LazyLock::new(|| Arc::new(Owner));

/// Whether a question may be sent again after a reset.
fn may_be_repeated(number: usize) -> bool {
    number.is_multiple_of(2)
}

fn question(number: usize) -> Request {
    if may_be_repeated(number) {
        return Request::Digests {
            range: number,
            within: None,
        };
    }
    Request::Coordinate {
        key: number.to_string().as_str().into(),
        operation: simple_dynamo::protocol::Operation::Get,
        seen: None,
        vouched: None,
    }
}

fn number_of(request: &Request) -> Option<usize> {
    match request {
        Request::Digests { range, .. } => Some(*range),
        Request::Coordinate { key, .. } => Some(key.to_string().parse().unwrap()),
        _ => None,
    }
}

fn start(seen: &Shared) -> (Arc<Link>, JoinHandle<()>) {
    let serving = seen.clone();
    socket::listen(move |stream| {
        let seen = serving.clone();
        thread::spawn(move || serve(&seen, stream));
    });
    let link = Link::new(Settings {
        node: NodeId(1),
        peer: NodeId(2),
        address: "127.0.0.1:1".into(),
        cluster: "model".into(),
        read_timeout: Duration::from_millis(100),
        patience: Duration::from_millis(300),
        owner: Arc::downgrade(&*OWNER) as Weak<dyn LocalNode>,
    });
    let running = link.clone();
    (link, thread::spawn(move || running.run()))
}

/// Whether an asker waits for the answer to one question before it asks the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Patient,
    Hasty,
}

fn asker(seen: &Shared, link: &Arc<Link>, name: usize, pace: Pace) -> JoinHandle<()> {
    let (seen, link) = (seen.clone(), link.clone());
    thread::spawn(move || {
        for number in (0..QUESTIONS).map(|place| name * QUESTIONS + place) {
            let (sender, answered) = mpsc::channel();
            let seen = seen.clone();
            link.ask(question(number), move |answer| {
                let mut seen = seen.lock().unwrap();
                seen.answers.entry(number).or_default().push(answer);
                drop(seen);
                // A hasty asker has dropped the receiver.
                let _ = sender.send(());
            });
            if pace == Pace::Patient {
                // A forgotten question is a deadlock here.
                answered.recv().unwrap();
            }
        }
    })
}

/// How often there was a reply, a silence, a question that was not sent, and a question that was sent again. A
/// scenario in which one of these never happens proves nothing about it.
#[derive(Debug)]
struct Met([AtomicUsize; 4]);

impl Met {
    const fn nothing() -> Met {
        Met([const { AtomicUsize::new(0) }; 4])
    }

    fn count(&self, case: usize) {
        self.0[case].fetch_add(1, Relaxed);
    }

    fn check(&self, seen: &Shared) {
        let seen = seen.lock().unwrap();
        for number in 0..ASKERS * QUESTIONS {
            let reached = seen.reached.iter().filter(|(_, it)| *it == number);
            let mut connections: Vec<_> = reached.map(|(connection, _)| *connection).collect();
            let times = connections.len();
            connections.dedup();
            assert_eq!(times, connections.len(), "{number} was sent twice");
            let repeated = times > 1;
            assert!(
                !repeated || may_be_repeated(number),
                "{number} was forwarded twice"
            );
            let answers = seen.answers.get(&number).map_or(&[][..], Vec::as_slice);
            self.count(match answers {
                [Answer::Reply(Reply::Digests(reply))] if reply[..] == [number as u64] => 0,
                [Answer::Silent] => 1,
                [Answer::Unreached] if times == 0 => 2,
                _ => panic!("{number} reached the peer {times} times and got {answers:?}"),
            });
            if repeated {
                self.count(3);
            }
        }
    }

    fn check_coverage(&self) {
        let often = |times: &AtomicUsize| times.load(Relaxed) > SCHEDULES / 100;
        assert!(self.0.iter().all(often), "{self:?}");
    }
}

#[test]
fn each_question_has_one_answer_in_the_end_whatever_the_peer_does() {
    static MET: Met = Met::nothing();
    explore(|| {
        let seen = Shared::default();
        let (link, running) = start(&seen);
        for asker in [0, 1].map(|name| asker(&seen, &link, name, Pace::Patient)) {
            asker.join().unwrap();
        }
        link.end();
        running.join().unwrap();
        MET.check(&seen);
    });
    MET.check_coverage();
}

#[test]
fn each_question_has_one_answer_when_the_link_ends_at_any_moment() {
    static MET: Met = Met::nothing();
    explore(|| {
        let seen = Shared::default();
        let (link, running) = start(&seen);
        let askers = [0, 1].map(|name| asker(&seen, &link, name, Pace::Hasty));
        wait_up_to(100);
        link.end();
        for asker in askers {
            asker.join().unwrap();
        }
        running.join().unwrap();
        MET.check(&seen);
    });
    MET.check_coverage();
}
