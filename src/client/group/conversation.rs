//! One client's part in a group, without sockets and threads: what it sends, what it shows, and when it goes on
//! at another node.
//!
//! | What happens | What the client does |
//! |---|---|
//! | it has connected | `NICK`, then `JOIN` after the last message that it has shown |
//! | it has joined | sends all that is unacknowledged, in order |
//! | a second has passed | `PING` |
//! | no reply for 1 s while one is awaited, or no connection within 1 s | next node |
//! | the connection is lost, the node refuses the `JOIN` or says `BEHIND` | next node |
//! | `CONFLICT`, `BUSY`, `UNAVAILABLE`, `UNKNOWN` to a `SEND` | waits 100 ms, sends all again |
//! | `GONE` | a new session; says what is perhaps sent, and sends the others again |

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::outbox::{Outbox, Receipt, Sending};
use super::route::Route;
use super::{News, pushed};
use crate::protocol::group::{GroupName, check_text};

/// How long to wait for a connection and for each reply before going on at the next node.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often the node is asked whether it is there.
const PING_PERIOD: Duration = Duration::from_secs(1);

/// What the world has to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Connect to the node at this place of the list, and call [`Conversation::connected`] or
    /// [`Conversation::lost`].
    Connect(usize),
    /// Close the connection, and drop what still comes on it.
    Close,
    /// Send a line, given without its end.
    Send(String),
    Show(News),
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// There is no connection until this time.
    Resting(Instant),
    Connecting,
    Joining,
    Joined,
    /// It went wrong for good.
    Failed,
}

/// A request whose reply has not come.
enum Awaited {
    Nick,
    Join,
    Ping,
    /// `SEND` of this name.
    Send(String),
}

/// What one client does in one group.
pub struct Conversation {
    group: GroupName,
    nick: String,
    /// How many messages from before it joined are shown.
    last: u64,
    route: Route,
    phase: Phase,
    /// In the order in which they were sent, which is that of the replies.
    awaited: VecDeque<Awaited>,
    /// When the last reply came, or the first request after it was sent.
    heard: Instant,
    next_ping: Instant,
    outbox: Outbox,
    /// The number of the last message that was shown, from the first `JOINED` on. [`Outbox::shown`] may be
    /// ahead: an `OK n` may come before message n.
    shown: Option<u64>,
    progress: Instant,
    actions: Vec<Action>,
}

impl Conversation {
    /// Begins with the node at place `first` of a list of so many nodes. A [`Conversation::tick`] is due.
    pub fn new(
        group: GroupName,
        nick: String,
        last: u64,
        (first, nodes): (usize, usize),
        now: Instant,
    ) -> Conversation {
        Conversation {
            outbox: Outbox::new(group.clone()),
            group,
            nick,
            last,
            route: Route::new(first, nodes),
            phase: Phase::Resting(now),
            awaited: VecDeque::new(),
            heard: now,
            next_ping: now,
            shown: None,
            progress: now,
            actions: Vec::new(),
        }
    }

    /// What is to be done now, in this order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`Conversation::tick`] is due.
    pub fn wakes_at(&self) -> Instant {
        let silent_at = self.heard + PATIENCE;
        match self.phase {
            Phase::Resting(until) => until,
            Phase::Connecting | Phase::Joining | Phase::Failed => silent_at,
            Phase::Joined => {
                let silent_at = (!self.awaited.is_empty()).then_some(silent_at);
                let times = [silent_at, self.outbox.sends_again_at()]
                    .into_iter()
                    .flatten();
                times.fold(self.next_ping, Instant::min)
            }
        }
    }

    /// Whether something more may be said: it has joined once, and not too much is unacknowledged.
    pub fn has_room(&self) -> bool {
        self.shown.is_some() && self.outbox.has_room()
    }

    /// Whether all that was said is acknowledged, and shown.
    pub fn is_settled(&self) -> bool {
        let all_shown = self.shown >= Some(self.outbox.shown());
        self.phase == Phase::Joined && self.outbox.is_empty() && all_shown
    }

    /// Since when it is not settled, and nothing was acknowledged.
    pub fn stuck_since(&self) -> Instant {
        self.progress
    }

    /// The texts that are not acknowledged.
    pub fn unacknowledged(&self) -> Vec<String> {
        self.outbox.unacknowledged()
    }

    /// Which node it has left since it was in the group, and why.
    pub fn left(&self) -> Option<(usize, String)> {
        self.route.left()
    }

    /// Whether it is in the group.
    pub fn is_joined(&self) -> bool {
        self.phase == Phase::Joined
    }

    /// Whether it went wrong for good.
    pub fn has_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    /// The connection is there.
    pub fn connected(&mut self, now: Instant) {
        self.phase = Phase::Joining;
        self.request(format!("NICK {}", self.nick), Awaited::Nick, now);
        let since = match self.shown {
            None => format!("LAST {}", self.last),
            Some(number) => format!("AFTER {number}"),
        };
        self.request(format!("JOIN {} {since}", self.group), Awaited::Join, now);
    }

    /// The connection could not be made, or is lost, or is of no use. Goes on at the next node.
    pub fn lost(&mut self, why: &str, now: Instant) {
        let node = self.route.node();
        self.phase = Phase::Resting(self.route.leave(why.to_owned(), now));
        if self.route.is_exhausted() {
            self.show(News::Unreachable((node, why.to_owned())));
        }
        self.awaited.clear();
        self.actions.push(Action::Close);
    }

    /// Says something. What cannot be a message is not sent.
    pub fn say(&mut self, text: String, now: Instant) {
        if let Err(why) = check_text(&text) {
            return self.show(News::NotSent { text, why });
        }
        let sending = self.outbox.say(text, self.phase == Phase::Joined);
        sending
            .into_iter()
            .for_each(|sending| self.send(sending, now));
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        let awaits_something = self.phase == Phase::Connecting || !self.awaited.is_empty();
        if let Phase::Resting(until) = self.phase {
            if now >= until {
                self.phase = Phase::Connecting;
                self.heard = now;
                self.actions.push(Action::Connect(self.route.node()));
            }
        } else if awaits_something && now >= self.heard + PATIENCE {
            self.lost("does not answer", now);
        } else if self.phase == Phase::Joined && now >= self.next_ping {
            self.next_ping = now + PING_PERIOD;
            self.request("PING".to_owned(), Awaited::Ping, now);
        }
        self.send_again(now);
    }

    /// A line came.
    pub fn line(&mut self, line: &str, now: Instant) {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        if let Some((number, news)) = pushed::parse(&words) {
            self.advance(number, news, now);
        } else if let ["BEHIND", _] = words[..] {
            self.lost("cannot read the group", now);
        } else {
            self.reply(line, &words, now);
        }
        self.send_again(now);
        if self.is_settled() {
            self.progress = now;
        }
    }

    fn show(&mut self, news: News) {
        self.actions.push(Action::Show(news));
    }

    fn request(&mut self, line: String, awaited: Awaited, now: Instant) {
        if self.awaited.is_empty() {
            self.heard = now;
        }
        self.awaited.push_back(awaited);
        self.actions.push(Action::Send(line));
    }

    fn send(&mut self, sending: Sending, now: Instant) {
        self.request(sending.line, Awaited::Send(sending.name), now);
    }

    fn send_again(&mut self, now: Instant) {
        if self.phase == Phase::Joined {
            let (all, perhaps_sent) = self.outbox.take_due(now);
            let perhaps_sent = perhaps_sent.into_iter().map(News::PerhapsSent);
            perhaps_sent.for_each(|news| self.show(news));
            all.into_iter().for_each(|sending| self.send(sending, now));
        }
    }

    /// Shows what a node has pushed, once.
    fn advance(&mut self, number: u64, news: News, now: Instant) {
        if self.shown < Some(number) {
            self.shown = Some(number);
            self.outbox.show(number);
            self.show(news);
            if self.outbox.is_empty() {
                self.progress = now;
            }
        }
    }

    fn reply(&mut self, line: &str, words: &[&str], now: Instant) {
        // A line that nobody asked for tells why the connection is about to be closed.
        let Some(awaited) = self.awaited.pop_front() else {
            return;
        };
        self.heard = now;
        match (awaited, words) {
            (Awaited::Nick, ["OK"]) | (Awaited::Ping, ["PONG"]) => {}
            (Awaited::Join, ["JOINED", _, number]) => self.joined(number, now),
            (Awaited::Join, ["CONFLICT", end]) => self.fail(format!(
                "says that the group ends at message {end}, and later ones were shown: messages are lost"
            )),
            (Awaited::Send(name), _) => match self.outbox.receive(&name, words, now) {
                Receipt::Acknowledged => self.progress = now,
                Receipt::SentAgain => {}
                Receipt::Refused => self.fail(format!("refuses a message: {line}")),
            },
            _ => self.lost(&format!("says {line}"), now),
        }
    }

    fn joined(&mut self, number: &str, now: Instant) {
        let number = number.parse().unwrap_or(0);
        self.shown.get_or_insert(number);
        self.outbox.show(number);
        self.outbox.begin(now);
        self.phase = Phase::Joined;
        self.next_ping = now + PING_PERIOD;
        let (node, left) = (self.route.node(), self.route.joined());
        self.show(News::Joined { node, left });
    }

    fn fail(&mut self, why: String) {
        self.route.end(why);
        self.actions.push(Action::Close);
        self.phase = Phase::Failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::group::Message;

    const NODES: usize = 3;

    /// A conversation, its clock, and what it sent and showed lately.
    struct Played {
        conversation: Conversation,
        now: Instant,
        sent: Vec<String>,
        shown: Vec<News>,
        connects: Vec<usize>,
        is_open: bool,
    }

    impl Played {
        /// Nothing has happened but that it wants to connect to the first node.
        fn begin() -> Played {
            let group = GroupName::parse("g").unwrap();
            let now = Instant::now();
            let mut played = Played {
                conversation: Conversation::new(group, "ann".to_owned(), 20, (0, NODES), now),
                now,
                sent: Vec::new(),
                shown: Vec::new(),
                connects: Vec::new(),
                is_open: false,
            };
            played.after(0);
            played
        }

        /// In the group after message 7, with nothing else noted.
        fn joined() -> Played {
            let mut played = Played::begin();
            played.join(7);
            played.note();
            played
        }

        fn join(&mut self, number: u64) {
            self.conversation.connected(self.now);
            self.carry_out();
            self.line("OK");
            self.line(&format!("JOINED g {number}"));
        }

        fn carry_out(&mut self) {
            for action in self.conversation.take_actions() {
                match action {
                    Action::Connect(node) => {
                        self.is_open = true;
                        self.connects.push(node);
                    }
                    Action::Close => self.is_open = false,
                    Action::Send(line) => {
                        assert!(self.is_open, "{line}");
                        self.sent.push(line);
                    }
                    Action::Show(news) => self.shown.push(news),
                }
            }
        }

        /// Lets so many milliseconds pass, with a tick whenever one is due.
        fn after(&mut self, millis: u64) {
            let until = self.now + Duration::from_millis(millis);
            let mut ticks = 0;
            while self.conversation.wakes_at() <= until {
                self.now = self.now.max(self.conversation.wakes_at());
                self.conversation.tick(self.now);
                self.carry_out();
                ticks += 1;
                assert!(ticks < 100, "a tick does not do what is due");
            }
            self.now = until;
        }

        fn line(&mut self, line: &str) {
            self.conversation.line(line, self.now);
            self.carry_out();
            self.after(0);
        }

        fn say(&mut self, text: &str) {
            self.conversation.say(text.to_owned(), self.now);
            self.carry_out();
        }

        fn lose(&mut self) {
            self.conversation.lost("is lost", self.now);
            self.carry_out();
            self.after(0);
        }

        /// What was sent and shown since the last call. The random name of a session is cut out of `SEND`.
        fn note(&mut self) -> (Vec<String>, Vec<News>) {
            let sent = std::mem::take(&mut self.sent).into_iter();
            let sent = sent.map(|line| match line.strip_prefix("SEND g ") {
                Some(rest) => rest[32..].to_owned(),
                None => line,
            });
            (sent.collect(), std::mem::take(&mut self.shown))
        }

        fn sent(&mut self) -> Vec<String> {
            self.note().0
        }

        fn shown(&mut self) -> Vec<News> {
            self.note().1
        }
    }

    fn message(number: u64, text: &str) -> News {
        News::Message(Message {
            number,
            nick: "bob".to_owned(),
            text: text.to_owned(),
            time: 5,
        })
    }

    fn moved(node: usize, from: usize, why: &str) -> News {
        News::Joined {
            node,
            left: Some((from, why.to_owned())),
        }
    }

    #[test]
    fn it_joins_with_the_last_messages_and_elsewhere_after_the_last_that_was_shown() {
        let mut played = Played::begin();
        assert_eq!(played.connects, [0]);
        played.join(7);
        let (sent, shown) = played.note();
        assert_eq!(sent, ["NICK ann", "JOIN g LAST 20"]);
        assert_eq!(
            shown,
            [News::Joined {
                node: 0,
                left: None
            }]
        );
        played.line("MSG g 8 5 bob  two  words ");
        played.line(r#"MSG g 9 5 bob "\"quoted\"""#);
        played.lose();
        assert_eq!(played.connects, [0, 1]);
        played.join(9);
        let (sent, shown) = played.note();
        assert_eq!(sent, ["NICK ann", "JOIN g AFTER 9"]);
        assert_eq!(
            shown,
            [
                message(8, " two  words "),
                message(9, "\"quoted\""),
                moved(1, 0, "is lost")
            ]
        );
    }

    #[test]
    fn each_message_is_shown_once_and_what_is_missed_is_told() {
        let mut played = Played::joined();
        played.line("MSG g 8 5 bob a");
        played.line("MSG g 8 5 bob a");
        played.line("MISSED g 9 11");
        played.line("MSG g 12 5 bob b");
        let missed = News::Missed { from: 9, to: 11 };
        assert_eq!(played.shown(), [message(8, "a"), missed, message(12, "b")]);
    }

    #[test]
    fn an_acknowledgement_before_its_message_hides_no_message() {
        let mut played = Played::joined();
        played.say("x");
        played.line("OK 9");
        assert!(!played.conversation.is_settled(), "8 and 9 are to come");
        played.lose();
        played.join(7);
        assert!(played.sent().contains(&"JOIN g AFTER 7".to_owned()));
        played.line("MSG g 8 5 bob a");
        played.line("MSG g 9 5 bob x");
        assert!(played.conversation.is_settled());
    }

    #[test]
    fn all_that_is_not_acknowledged_is_sent_again_in_order_after_joining_and_keeps_its_names() {
        let mut played = Played::joined();
        for text in ["a", "b", "c"] {
            played.say(text);
        }
        let names = [r#"/7/1 "a""#, r#"/7/2 "b""#, r#"/7/3 "c""#];
        assert_eq!(played.sent(), names);
        played.line("OK 8");
        played.lose();
        // It is said while there is no connection.
        played.say("d");
        assert_eq!(played.sent(), [""; 0]);
        played.join(7);
        let again = [
            "NICK ann",
            "JOIN g AFTER 7",
            names[1],
            names[2],
            r#"/7/4 "d""#,
        ];
        assert_eq!(played.sent(), again);
    }

    #[test]
    fn a_node_that_is_silent_for_a_second_is_left() {
        let mut played = Played::joined();
        for _ in 0..5 {
            played.after(1000);
            assert_eq!(played.sent(), ["PING"]);
            played.after(900);
            played.line("PONG");
            played.after(100);
            assert_eq!(played.sent(), ["PING"]);
            played.line("PONG");
        }
        assert_eq!(played.connects, [0]);
        played.after(1999);
        assert_eq!(played.connects, [0]);
        played.after(1);
        assert_eq!(played.connects, [0, 1]);
        played.join(7);
        assert_eq!(played.shown(), [moved(1, 0, "does not answer")]);
    }

    #[test]
    fn messages_are_no_answers_and_each_answer_gives_another_second() {
        let mut played = Played::joined();
        played.say("a");
        played.say("b");
        played.after(900);
        played.line("OK 8");
        played.after(900);
        assert_eq!(played.connects, [0]);
        played.line("MSG g 8 5 bob a");
        played.after(100);
        assert_eq!(played.connects, [0, 1]);
    }

    #[test]
    fn a_node_that_does_not_take_the_connection_or_the_join_within_a_second_is_left() {
        let mut played = Played::begin();
        played.after(999);
        assert_eq!(played.connects, [0]);
        played.after(1);
        assert_eq!(played.connects, [0, 1]);
        played.conversation.connected(played.now);
        played.carry_out();
        played.line("OK");
        played.after(1000);
        assert_eq!(played.connects, [0, 1, 2]);
    }

    #[test]
    fn a_node_that_cannot_read_the_group_is_left() {
        let mut played = Played::joined();
        played.line("BEHIND g");
        played.join(7);
        assert_eq!(played.shown(), [moved(1, 0, "cannot read the group")]);
        played.lose();
        played.conversation.connected(played.now);
        played.carry_out();
        played.line("OK");
        played.line("ERROR UNAVAILABLE two replicas are silent");
        played.join(7);
        assert_eq!(played.connects, [0, 1, 2, 0]);
    }

    #[test]
    fn what_a_node_could_not_append_is_sent_again_after_100_ms_and_nothing_meanwhile() {
        for reply in [
            "CONFLICT 1",
            "ERROR BUSY too much",
            "ERROR UNAVAILABLE two replicas are silent",
            "ERROR UNKNOWN no answer",
        ] {
            let mut played = Played::joined();
            played.say("a");
            played.say("b");
            played.line(reply);
            played.line("CONFLICT 2");
            played.say("c");
            played.after(99);
            assert_eq!(played.sent(), [r#"/7/1 "a""#, r#"/7/2 "b""#], "{reply}");
            played.after(1);
            let all = [r#"/7/1 "a""#, r#"/7/2 "b""#, r#"/7/3 "c""#];
            assert_eq!(played.sent(), all, "{reply}");
            assert_eq!(played.connects, [0]);
        }
    }

    #[test]
    fn nothing_is_sent_again_while_an_earlier_try_is_in_flight() {
        let mut played = Played::joined();
        played.say("a");
        played.say("b");
        played.line("ERROR UNKNOWN no answer");
        played.note();
        played.after(500);
        assert_eq!(played.sent(), [""; 0]);
        played.line("CONFLICT 2");
        played.after(100);
        assert_eq!(played.sent(), [r#"/7/1 "a""#, r#"/7/2 "b""#]);
    }

    #[test]
    fn of_a_forgotten_session_only_what_is_certainly_not_there_is_said_again() {
        let mut played = Played::joined();
        played.say("a");
        played.line("MSG g 20 5 bob x");
        played.say("b");
        played.note();
        played.line("GONE 15");
        // The group has grown meanwhile, and the reply to b says so. That makes b no more likely to be there.
        played.line("GONE 30");
        assert_eq!(
            played.note(),
            (
                vec![r#"/30/1 "b""#.to_owned()],
                vec![News::PerhapsSent("a".to_owned())]
            )
        );
        played.line("OK 31");
        assert_eq!(played.conversation.unacknowledged(), [""; 0]);
    }

    #[test]
    fn a_message_that_is_sent_again_keeps_what_had_been_shown_when_it_was_said() {
        let mut played = Played::joined();
        played.say("a");
        played.lose();
        played.join(7);
        played.line("MSG g 20 5 bob x");
        played.line("GONE 15");
        // What was shown when it was sent again, 20, would make it certain.
        assert!(played.shown().contains(&News::PerhapsSent("a".to_owned())));
    }

    #[test]
    fn what_cannot_be_a_message_is_not_sent_and_takes_no_number() {
        let mut played = Played::joined();
        played.say(&"x".repeat(1100));
        played.say("a\tb");
        played.say("c");
        let (sent, shown) = played.note();
        assert_eq!(sent, [r#"/7/1 "c""#]);
        assert!(matches!(
            shown[..],
            [News::NotSent { .. }, News::NotSent { .. }]
        ));
    }

    #[test]
    fn that_no_node_can_be_reached_is_told_once_and_it_goes_on_trying() {
        let mut played = Played::begin();
        for _ in 0..3 * NODES {
            played.lose();
            played.after(500);
        }
        assert_eq!(played.connects, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(
            played.shown(),
            [News::Unreachable((2, "is lost".to_owned()))]
        );
        played.join(7);
        assert_eq!(played.shown(), [moved(0, 0, "is lost")]);
        for _ in 0..NODES {
            played.lose();
        }
        assert_eq!(played.connects.len(), 12, "it rests after each round");
        assert_eq!(
            played.shown(),
            [News::Unreachable((2, "is lost".to_owned()))]
        );
    }

    #[test]
    fn there_is_room_for_32_messages_once_it_has_joined() {
        let mut played = Played::begin();
        assert!(!played.conversation.has_room());
        played.join(7);
        for number in 0..32 {
            assert!(played.conversation.has_room());
            played.say(&number.to_string());
        }
        assert!(!played.conversation.has_room());
        played.line("OK 8");
        assert!(played.conversation.has_room());
    }

    #[test]
    fn it_is_stuck_while_nothing_is_acknowledged_though_nodes_let_it_in() {
        let mut played = Played::joined();
        played.say("a");
        let said = played.now;
        for _ in 0..4 {
            played.after(1000);
            played.join(7);
            played.line("MSG g 8 5 bob x");
        }
        assert_eq!(played.conversation.stuck_since(), said);
        played.line("OK 9");
        assert_eq!(played.conversation.stuck_since(), played.now);
    }

    #[test]
    fn a_group_that_is_shorter_than_what_was_shown_ends_it() {
        let mut played = Played::joined();
        played.lose();
        played.conversation.connected(played.now);
        played.line("OK");
        played.line("CONFLICT 3");
        assert!(played.conversation.has_failed());
        let (node, why) = played.conversation.left().unwrap();
        assert!(node == 1 && why.contains("ends at message 3"), "{why}");
    }
}
