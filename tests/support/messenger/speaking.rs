//! Speakers: one says each message once, and one sends it by the client's rule until it is acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::thread;
use std::time::{Duration, Instant};

use simple_dynamo::client::speaker::Speaker;

use super::PATIENCE;
use super::chronicle::{End, Said, Stream};
use super::connection::{ANSWER, Connection};
use super::seat::{AGAIN, Seat, is_down};

/// How many messages a sender has that are not acknowledged, at most.
const AHEAD: usize = 4;
/// How long a sender goes on with its last messages before it gives up.
const UNHEARD: Duration = Duration::from_secs(10);

/// Says messages, each once, until the run is silent. Its messages keep their order at each node.
pub fn say(mut seat: Seat) -> Vec<Stream> {
    let mut streams: BTreeMap<u32, Vec<Said>> = BTreeMap::new();
    let mut count = 0;
    while !seat.is_silent() {
        let Ok(mut connection) = seat.connect() else {
            seat.go_on();
            seat.rest();
            continue;
        };
        while !seat.is_silent() {
            count += 1;
            let text = format!("{} {count}", seat.name);
            let (began, node) = (Instant::now(), seat.node);
            let request = format!("SAY {} {text}", seat.group);
            let asked = connection.send(&request);
            let reply = asked.and_then(|()| connection.answer(PATIENCE));
            let end = reply
                .as_ref()
                .map_or(End::Unknown, |reply| understand(reply));
            if let End::Done(_) = end {
                seat.count();
            }
            streams.entry(node).or_default().push(Said {
                text,
                node,
                end,
                waited: began.elapsed().as_millis() as u64,
                node_failed: reply.as_ref().is_err_and(is_down),
            });
            if reply.is_err() {
                break;
            }
            thread::sleep(seat.think());
        }
        seat.go_on();
    }
    let named = |(node, said)| Stream {
        name: format!("{} at node {node}", seat.name),
        said,
    };
    streams.into_iter().map(named).collect()
}

fn understand(reply: &str) -> End {
    let words: Vec<&str> = reply.splitn(3, ' ').collect();
    match words[..] {
        ["OK", number] => End::Done(Some(number.parse().expect("a number"))),
        ["ERROR", "BUSY" | "UNAVAILABLE", _] => End::NotDone,
        ["ERROR", "UNKNOWN", _] => End::Unknown,
        _ => panic!("SAY is answered {reply:?}"),
    }
}

/// Sends messages until the run is silent, and then until all of them are acknowledged.
pub fn send(mut seat: Seat) -> Vec<Stream> {
    let session = session(&mut seat);
    let mut sender = Sender {
        speaker: Speaker::new(session),
        said: Vec::new(),
        began: Vec::new(),
        next: Instant::now(),
        silent: None,
        seat,
    };
    while !sender.is_done() {
        let ended = match sender.seat.connect() {
            Ok(mut connection) => sender.converse(&mut connection),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            sender.lost(&error);
        }
    }
    vec![sender.end()]
}

/// A random name.
fn session(seat: &mut Seat) -> String {
    format!("{:016x}", seat.rng.u64(..))
}

struct Sender<'a> {
    seat: Seat<'a>,
    speaker: Speaker,
    said: Vec<Said>,
    /// When each of them was said.
    began: Vec<Instant>,
    /// When the next one is said.
    next: Instant,
    /// Since when nothing new is said.
    silent: Option<Instant>,
}

/// Messages that were sent and not answered: their names, and their places among all.
type InFlight = VecDeque<(String, usize)>;

/// What was refused among the messages that were sent together.
#[derive(Default)]
struct Refused {
    any: bool,
    /// The session is forgotten, and messages up to this number may have been of it.
    horizon: Option<u64>,
}

impl Sender<'_> {
    fn is_done(&mut self) -> bool {
        if self.seat.is_silent() {
            self.silent.get_or_insert_with(Instant::now);
        }
        let gives_up = self.silent.is_some_and(|since| since.elapsed() > UNHEARD);
        let has_all = self.speaker.unacknowledged().next().is_none();
        self.seat.is_over() || gives_up || (self.silent.is_some() && has_all)
    }

    /// Speaks on one connection, until it is lost or there is nothing more to say.
    fn converse(&mut self, connection: &mut Connection) -> io::Result<()> {
        while !self.is_done() {
            let mut in_flight = self.send_all(connection)?;
            let mut refused = Refused::default();
            loop {
                while !refused.any && in_flight.len() < AHEAD && self.has_more_to_say() {
                    in_flight.push_back(self.say(connection)?);
                }
                let Some((name, place)) = in_flight.pop_front() else {
                    break;
                };
                let reply = connection.answer(ANSWER)?;
                self.take(&name, place, &reply, &mut refused);
            }
            if let Some(horizon) = refused.horizon {
                self.begin_anew(horizon);
            }
            if refused.any {
                thread::sleep(AGAIN);
            } else {
                thread::sleep(self.next.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    fn has_more_to_say(&self) -> bool {
        !self.seat.is_silent() && Instant::now() >= self.next
    }

    fn say(&mut self, connection: &mut Connection) -> io::Result<(String, usize)> {
        let place = self.said.len();
        let text = format!("{} {}", self.seat.name, place + 1);
        self.speaker.say(text.clone());
        self.began.push(Instant::now());
        self.said.push(Said {
            text,
            node: self.seat.node,
            end: End::Unheard,
            waited: 0,
            node_failed: false,
        });
        self.next = Instant::now() + self.seat.think();
        let last = self.speaker.unacknowledged().next_back();
        let (name, text) = last.expect("it was said just now");
        connection.send(&format!("SEND {} {name} {text}", self.seat.group))?;
        Ok((name, place))
    }

    fn send_all(&mut self, connection: &mut Connection) -> io::Result<InFlight> {
        let mut in_flight = InFlight::new();
        for (name, text) in self.speaker.unacknowledged() {
            connection.send(&format!("SEND {} {name} {text}", self.seat.group))?;
            in_flight.push_back((name, place_of(text)));
        }
        Ok(in_flight)
    }

    fn take(&mut self, name: &str, place: usize, reply: &str, refused: &mut Refused) {
        let words: Vec<&str> = reply.splitn(3, ' ').collect();
        match words[..] {
            ["OK", number] => {
                let number = (number != "?").then(|| number.parse().expect("a number"));
                self.speaker.acknowledged(name, number);
                self.note(place, End::Done(number));
                self.seat.count();
            }
            ["GONE", horizon] => {
                refused.any = true;
                refused.horizon = Some(horizon.parse().expect("a number"));
            }
            ["CONFLICT", _] | ["ERROR", "BUSY" | "UNAVAILABLE" | "UNKNOWN", _] => {
                refused.any = true
            }
            _ => panic!("SEND is answered {reply:?}"),
        }
    }

    fn begin_anew(&mut self, horizon: u64) {
        let session = session(&mut self.seat);
        for text in self.speaker.gone(horizon, session) {
            self.note(place_of(&text), End::Unknown);
        }
    }

    fn note(&mut self, place: usize, end: End) {
        self.said[place].end = end;
        self.said[place].waited = self.began[place].elapsed().as_millis() as u64;
    }

    /// The node is down, or does not answer.
    fn lost(&mut self, error: &io::Error) {
        if is_down(error) {
            let places = self
                .speaker
                .unacknowledged()
                .map(|(_, text)| place_of(text));
            for place in places.collect::<Vec<_>>() {
                self.said[place].node_failed = true;
            }
        }
        self.seat.go_on();
        // Other errors come at once, again and again while all nodes are down.
        if error.kind() != ErrorKind::TimedOut {
            self.seat.rest();
        }
    }

    fn end(self) -> Stream {
        Stream {
            name: self.seat.name,
            said: self.said,
        }
    }
}

/// The place of a message among all of its sender, which its text ends with.
fn place_of(text: &str) -> usize {
    let number: Option<usize> = text.rsplit(' ').next().and_then(|word| word.parse().ok());
    number.expect("a text ends with a number") - 1
}
