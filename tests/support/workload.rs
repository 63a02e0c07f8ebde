//! Clients that send random requests to random nodes, and note the replies.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use simple_dynamo::client::Client;

use super::cluster::{Cluster, eventually};
use super::history::{self, Current, End, Operation, Reply, Request};
use super::linearizability::{Verdict, check};

/// How many requests a client that roams sends to one node on average.
const STAY: u32 = 20;
/// One of so many requests goes to any key, and the others to the crowded one: see
/// [`Progress::crowd`].
const STRAY: u32 = 3;
/// One of so many times a client sends several requests before it reads a reply.
const HASTE: u32 = 8;
/// How many requests it sends then.
const AHEAD: usize = 4;
/// One of so many compare-and-sets expects that there is no such key, whatever the client saw last.
const CREATE: u32 = 3;

/// The clients, and what they ask for.
pub struct Workload<'a> {
    pub cluster: &'a Cluster,
    pub clients: u32,
    pub keys: &'a [&'a str],
    pub seed: u64,
}

/// How the clients behave.
pub struct Habits {
    /// The longest pause of a client between two requests. It keeps the history short enough for the
    /// checker.
    pub think: Duration,
    /// Whether each client keeps to one node, so that a paused node holds up only its own clients.
    /// Otherwise sooner or later all clients wait for it.
    pub settled: bool,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits {
            think: Duration::from_millis(6),
            settled: false,
        }
    }
}

/// What the clients observed.
pub struct Observed {
    pub history: Vec<Operation>,
    /// The longest that any request took.
    pub longest: Duration,
    /// Requests that a living node answered with an error.
    pub refused: usize,
    /// Requests without an answer: the node was killed, or did not answer in time.
    pub lost: usize,
    /// Reads at the end, through each node that is up, that did not end well.
    pub unread: usize,
    /// For each error code one line with it.
    pub examples: HashMap<String, String>,
}

/// Steps of the checker's search for one key.
pub const BUDGET: u64 = 5_000_000;

/// Fails the test, and prints the whole history, unless the history is certainly linearizable and each
/// key could be read at the end.
pub fn assert_linearizable(observed: &Observed) {
    let verdict = check(&observed.history, BUDGET);
    if verdict != Verdict::Linearizable || observed.unread > 0 {
        println!("{}", history::print(&observed.history));
        panic!("{verdict:?}, {} keys unread at the end", observed.unread);
    }
}

/// What the clients share.
struct Board {
    habits: Habits,
    began: Instant,
    stop: AtomicBool,
    /// The key that the clients crowd around, by its place among the keys. A place beyond the last key
    /// means none.
    crowded: AtomicUsize,
    answered: AtomicUsize,
    observed: Mutex<Observed>,
}

/// How far the clients are. Whoever injects faults meanwhile looks at this.
pub struct Progress<'a>(&'a Board);

impl Progress<'_> {
    /// The time of the history.
    pub fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// How many requests have been answered well.
    pub fn answered(&self) -> usize {
        self.0.answered.load(Ordering::Relaxed)
    }

    /// From now on most requests are for this key of the workload, by its place among the keys.
    pub fn crowd(&self, key: usize) {
        self.0.crowded.store(key, Ordering::Relaxed);
    }

    /// Waits until that many more requests have been answered well.
    pub fn await_more(&self, count: usize) {
        let goal = self.answered() + count;
        eventually("clients are answered", || {
            (self.answered() >= goal).then_some(())
        });
    }
}

struct Asker<'a> {
    workload: &'a Workload<'a>,
    board: &'a Board,
    number: u32,
    rng: Rng,
    writes: u32,
    connection: Option<(u32, Client)>,
    /// The last version that this client saw of each key.
    versions: HashMap<String, Option<String>>,
}

impl Workload<'_> {
    /// Runs the clients until `meanwhile` returns, and then reads each key through each node.
    pub fn run<T>(&self, meanwhile: impl FnOnce(&Progress) -> T) -> (Observed, T) {
        self.run_with(Habits::default(), meanwhile)
    }

    /// The same with clients of other habits.
    pub fn run_with<T>(
        &self,
        habits: Habits,
        meanwhile: impl FnOnce(&Progress) -> T,
    ) -> (Observed, T) {
        let board = Board {
            habits,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            crowded: AtomicUsize::new(usize::MAX),
            answered: AtomicUsize::new(0),
            observed: Mutex::new(Observed {
                history: Vec::new(),
                longest: Duration::ZERO,
                refused: 0,
                lost: 0,
                unread: 0,
                examples: HashMap::new(),
            }),
        };
        let result = thread::scope(|scope| {
            for number in 0..self.clients {
                let board = &board;
                let mut asker = Asker::new(self, board, number);
                scope.spawn(move || {
                    while !board.stop.load(Ordering::Relaxed) {
                        asker.ask_something();
                    }
                });
            }
            let _stop = StopWhenDone(&board.stop);
            meanwhile(&Progress(&board))
        });
        let mut last = Asker::new(self, &board, self.clients);
        for id in self.cluster.ids() {
            for key in self.keys {
                last.connection = last.connection.take().filter(|(node, _)| *node == id);
                last.ask(id, vec![(key, Request::Get)]);
            }
        }
        let mut observed = board.observed.into_inner().unwrap();
        let last = |operation: &&Operation| operation.client == self.clients;
        let failed = observed.history.iter().filter(last);
        observed.unread = failed.filter(|read| read.returned().is_none()).count();
        (observed, result)
    }
}

/// Stops the clients when it is dropped, also when the test panics.
pub struct StopWhenDone<'a>(pub &'a AtomicBool);

impl Drop for StopWhenDone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Asker<'a> {
    fn new(workload: &'a Workload, board: &'a Board, number: u32) -> Asker<'a> {
        Asker {
            workload,
            board,
            number,
            rng: Rng::with_seed(workload.seed ^ (u64::from(number) << 32)),
            writes: 0,
            connection: None,
            versions: HashMap::new(),
        }
    }

    fn ask_something(&mut self) {
        let Habits { think, settled } = self.board.habits;
        thread::sleep(think.mul_f64(self.rng.f64()));
        if !settled && self.rng.u32(..STAY) == 0 {
            self.connection = None;
        }
        let hasty = self.rng.u32(..HASTE) == 0;
        let requests = (0..if hasty { AHEAD } else { 1 })
            .map(|_| {
                let key = self.choose_key();
                (key, self.choose_request(key))
            })
            .collect();
        let id = match &self.connection {
            Some((id, _)) => *id,
            None => {
                let ids: Vec<u32> = self.workload.cluster.ids().collect();
                if settled {
                    ids[self.number as usize % ids.len()]
                } else {
                    ids[self.rng.usize(..ids.len())]
                }
            }
        };
        self.ask(id, requests);
    }

    fn choose_key(&mut self) -> &'a str {
        let keys = self.workload.keys;
        let crowded = keys.get(self.board.crowded.load(Ordering::Relaxed));
        match crowded {
            Some(key) if self.rng.u32(..STRAY) > 0 => key,
            _ => keys[self.rng.usize(..keys.len())],
        }
    }

    fn choose_request(&mut self, key: &str) -> Request {
        match self.rng.u32(..100) {
            0..45 => Request::Get,
            45..65 => Request::Put {
                value: self.new_value(),
            },
            65..80 => Request::Delete,
            _ => {
                let seen = self.versions.get(key).cloned().flatten();
                Request::CompareAndSet {
                    expected: seen.filter(|_| self.rng.u32(..CREATE) > 0),
                    value: self.new_value(),
                }
            }
        }
    }

    /// A value that no other write writes, so that it shows which write a read saw.
    fn new_value(&mut self) -> String {
        self.writes += 1;
        format!("{}-{}", self.number, self.writes)
    }

    /// Sends requests, and only then waits for their replies.
    fn ask(&mut self, id: u32, requests: Vec<(&str, Request)>) {
        if self.connection.is_none() {
            // A node that is down gets no request.
            let Ok(client) = self.workload.cluster.try_client(id) else {
                return;
            };
            self.connection = Some((id, client));
        }
        let Some((_, mut client)) = self.connection.take() else {
            return;
        };
        let lines = requests.iter().map(|(key, request)| line(key, request));
        let called = self.board.began.elapsed();
        let mut lost = client.send(lines.collect::<String>().as_bytes()).is_err();
        for (key, request) in requests {
            let waiting = self.board.began.elapsed();
            let reply = if lost { None } else { client.receive().ok() };
            lost = reply.is_none();
            self.note(key, request, called, waiting, reply);
        }
        self.connection = Some((id, client)).filter(|_| !lost);
    }

    /// Notes a request that was sent at `called`. The client has waited for its reply since `waiting`.
    fn note(
        &mut self,
        key: &str,
        request: Request,
        called: Duration,
        waiting: Duration,
        reply: Option<String>,
    ) {
        let returned = self.board.began.elapsed();
        let end = match &reply {
            Some(text) => understand(text, &request, returned),
            // The node may yet do whatever it was sent.
            None => End::Unknown,
        };
        if let End::Returned { reply, .. } = &end {
            self.board.answered.fetch_add(1, Ordering::Relaxed);
            self.note_version(key, reply);
        }
        let mut observed = self.board.observed.lock().unwrap();
        observed.longest = observed.longest.max(returned - waiting);
        observed.lost += usize::from(reply.is_none());
        if let Some(text) = reply
            && let Some(error) = text.strip_prefix("ERROR ")
        {
            observed.refused += 1;
            let code = error.split(' ').next().unwrap_or_default();
            observed.examples.entry(code.to_owned()).or_insert(text);
        }
        observed.history.push(Operation {
            client: self.number,
            key: key.to_owned(),
            request,
            called: called.as_micros() as u64,
            end,
        });
    }

    fn note_version(&mut self, key: &str, reply: &Reply) {
        let version = match reply {
            Reply::Found { version, .. }
            | Reply::Done {
                version: Some(version),
            } => Some(version.clone()),
            Reply::Conflict {
                current: Current::Version(version),
            } => Some(version.clone()),
            _ => None,
        };
        self.versions.insert(key.to_owned(), version);
    }
}

fn line(key: &str, request: &Request) -> String {
    match request {
        Request::Get => format!("GET {key}\n"),
        Request::Put { value } => format!("PUT {key} {value}\n"),
        Request::Delete => format!("DEL {key}\n"),
        Request::Add { .. } => unreachable!("no client can ask for it"),
        Request::CompareAndSet { expected, value } => {
            format!("CAS {key} {} {value}\n", expected.as_deref().unwrap_or("-"))
        }
    }
}

/// Turns a line of reply into what the checker reads.
fn understand(text: &str, request: &Request, returned: Duration) -> End {
    let version = |version: &str| Some(version.to_owned()).filter(|version| version != "?");
    let words: Vec<&str> = text.splitn(3, ' ').collect();
    let reply = match words[..] {
        ["VALUE", version, value] => Reply::Found {
            value: value.into(),
            version: version.into(),
        },
        ["NOT_FOUND"] => Reply::Missing,
        ["OK", made] => Reply::Done {
            version: version(made),
        },
        ["CONFLICT", "-"] => Reply::Conflict {
            current: Current::Missing,
        },
        ["CONFLICT", "?"] => Reply::Conflict {
            current: Current::Unsaid,
        },
        ["CONFLICT", version] => Reply::Conflict {
            current: Current::Version(version.into()),
        },
        ["ERROR", "UNAVAILABLE" | "BUSY", _] => return End::Failed,
        ["ERROR", "UNKNOWN", _] => return End::Unknown,
        _ => panic!("{request:?} was answered {text:?}"),
    };
    // The moment is rounded up. Rounded down it could invent an order of two operations that overlapped.
    let at = returned.as_micros() as u64 + 1;
    End::Returned { at, reply }
}
