//! Three replicas of one range, whose messages a test delivers one by one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain::epoch::{Adopted, Epoch};
use simple_dynamo::protocol::chain::{
    Answer, Chain, Context, Effect, LogPlace, Question, Replica, Ticket, Times,
};
use simple_dynamo::protocol::ring::{NodeId, Position, Ring};
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{
    Accepted, Change, Fence, Operation, Outcome, Quorums, Record, Update, origin,
};
use simple_dynamo::storage::Scan;
use simple_dynamo::storage::records::Records;

/// Of a message: who is asked what, or answered.
#[derive(Clone, Debug)]
pub enum Body {
    Ask(Ticket, Question),
    Told(Ticket, Answer),
    PassOn(Ticket, Key, Operation, Epoch),
    Ended(Ticket, Outcome),
    /// The receiver compares the range with these members, for this epoch or to catch up.
    Compare {
        epoch: Option<Epoch>,
        since: Epoch,
        with: Vec<usize>,
        every_key: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Message {
    pub from: usize,
    pub to: usize,
    pub body: Body,
}

/// Whom a replica answers.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    Client(u64),
    Member(usize, Ticket),
    /// The test itself, in the name of a member.
    Test,
}

/// A disk that is as fast as memory, unless it hangs.
pub struct Disk {
    records: Records,
    written: LogPlace,
    hangs_at: Option<LogPlace>,
    /// What the sync that is under way makes durable.
    syncing: LogPlace,
}

impl Disk {
    fn append(&mut self) {
        self.written += 1;
        if self.hangs_at == Some(self.syncing) {
            // No sync is under way, so this one begins at once.
            self.syncing = self.written;
        }
    }

    fn is_durable(&self, place: LogPlace) -> bool {
        self.hangs_at.is_none_or(|hung| place <= hung)
    }
}

impl Replica for Disk {
    fn adopted(&self, range: usize) -> Adopted {
        self.records.adopted(range).clone()
    }

    fn adopt(&mut self, range: usize, adopted: &Adopted) -> LogPlace {
        self.append();
        self.records.adopt(range, adopted.clone());
        self.written
    }

    fn record(&self, key: &Key) -> (Record, LogPlace) {
        let (record, place) = self.records.get(key);
        (record.clone(), place)
    }

    fn fence(&self, range: usize) -> Fence {
        self.records.fence(range).clone()
    }

    fn take(&mut self, key: &Key, accepted: &Accepted) -> LogPlace {
        self.append();
        let update = Update::Accept(accepted.clone());
        self.records.apply(key, update, self.written);
        self.written
    }

    fn written(&self) -> LogPlace {
        self.written
    }

    fn durable(&self) -> LogPlace {
        self.hangs_at.unwrap_or(self.written)
    }
}

pub struct Node {
    pub chain: Chain<Caller>,
    pub disk: Disk,
    pub suspects: Vec<NodeId>,
    /// What waits for the disk.
    held: Vec<(LogPlace, Message)>,
}

/// The range, its three replicas, and what is on its way.
pub struct World {
    ring: Arc<Ring>,
    pub key: Key,
    pub range: usize,
    ids: Vec<NodeId>,
    pub nodes: Vec<Node>,
    pub bag: VecDeque<Message>,
    /// What clients were told, in order.
    pub told: Vec<(u64, Outcome)>,
    /// What the test was answered.
    answers: Vec<Answer>,
    /// How many states were passed on.
    pub passes: usize,
    /// The most states that one step has renewed.
    pub renewed_at_once: LogPlace,
    pub now: Duration,
    /// (asker, asked): this node cannot connect to that one. What that one asks is answered all the same.
    pub unconnected: Vec<(usize, usize)>,
    /// (from, to): nothing arrives.
    pub cut: Vec<(usize, usize)>,
}

const QUORUMS: Quorums = Quorums {
    replicas: 3,
    read: 2,
    write: 2,
};

impl World {
    /// Three replicas that serve one epoch. Node 0 is the head, node 2 the tail.
    pub fn new() -> World {
        let ring = Arc::new(Ring::new([1, 2, 3].map(NodeId), 3));
        let key = Key::from("a");
        let range = ring.range_at(Position::of_key(&key));
        let ids = ring.replicas_of_range(range).to_vec();
        let mut world = World {
            nodes: ids.iter().map(|id| Node::new(*id, &ring)).collect(),
            ring,
            key,
            range,
            ids,
            bag: VecDeque::new(),
            told: Vec::new(),
            answers: Vec::new(),
            passes: 0,
            renewed_at_once: 0,
            now: Duration::from_secs(100),
            unconnected: Vec::new(),
            cut: Vec::new(),
        };
        world.look(0);
        world.run();
        assert!((0..3).all(|node| world.serves(node)), "all three begin");
        world
    }

    fn step(&mut self, node: usize, with: impl FnOnce(&mut Chain<Caller>, Context<'_, Caller>)) {
        let own = &mut self.nodes[node];
        let mut effects = Vec::new();
        let context = Context {
            replica: &mut own.disk,
            now: self.now,
            chance: 0,
            suspects: &own.suspects,
            effects: &mut effects,
        };
        with(&mut own.chain, context);
        for effect in effects {
            self.carry_out(node, effect);
        }
    }

    fn carry_out(&mut self, from: usize, effect: Effect<Caller>) {
        match effect {
            // The three hold other ranges, too, of which nothing is asked here.
            Effect::Ask { ticket, .. } if ticket.range != self.range => {}
            Effect::Collect { range, .. } | Effect::CatchUp { range, .. }
                if range != self.range => {}
            Effect::Ask {
                to,
                ticket,
                question,
                after,
            } => self.send(from, self.place(to), Body::Ask(ticket, question), after),
            Effect::PassOn {
                to,
                ticket,
                key,
                operation,
                epoch,
            } => {
                let body = Body::PassOn(ticket, key, operation, epoch);
                self.send(from, self.place(to), body, 0);
            }
            Effect::Tell {
                handle: Caller::Member(to, ticket),
                answer,
                after,
            } => self.send(from, to, Body::Told(ticket, answer), after),
            Effect::Answer {
                handle: Caller::Member(to, ticket),
                outcome,
                after,
            } => self.send(from, to, Body::Ended(ticket, outcome), after),
            Effect::Answer {
                handle: Caller::Client(client),
                outcome,
                after,
            } => {
                if self.nodes[from].disk.is_durable(after) {
                    self.told.push((client, outcome));
                }
            }
            Effect::Tell {
                handle: Caller::Test,
                answer,
                ..
            } => self.answers.push(answer),
            Effect::Tell { .. } | Effect::Answer { .. } => unreachable!("nobody asked so"),
            Effect::Collect {
                epoch,
                from: with,
                every_key,
                ..
            } => {
                let with = with.into_iter().map(|id| self.place(id)).collect();
                self.compare(from, Some(epoch), epoch, with, every_key);
            }
            Effect::CatchUp {
                since, from: with, ..
            } => {
                let with = vec![self.place(with)];
                self.compare(from, None, since, with, false);
            }
            Effect::Began { .. } | Effect::Disk { .. } => {}
        }
    }

    fn compare(
        &mut self,
        node: usize,
        epoch: Option<Epoch>,
        since: Epoch,
        with: Vec<usize>,
        every_key: bool,
    ) {
        let body = Body::Compare {
            epoch,
            since,
            with,
            every_key,
        };
        self.send(node, node, body, 0);
    }

    fn send(&mut self, from: usize, to: usize, body: Body, after: LogPlace) {
        let message = Message { from, to, body };
        self.passes += usize::from(is_pass(&message));
        if self.nodes[from].disk.is_durable(after) {
            self.bag.push_back(message);
        } else {
            self.nodes[from].held.push((after, message));
        }
    }

    fn place(&self, id: NodeId) -> usize {
        let place = self.ids.iter().position(|own| *own == id);
        place.expect("one of the three")
    }

    /// Brings one message to where it belongs.
    pub fn deliver(&mut self, message: Message) {
        if self.is_lost(&message) {
            return self.fall_silent(message);
        }
        let Message { from, to, body } = message;
        let (id, range) = (self.ids[from], self.range);
        if !self.unconnected.contains(&(to, from)) {
            self.nodes[to].suspects.retain(|suspect| *suspect != id);
        }
        match body {
            Body::Ask(ticket, question) => self.step(to, |chain, context| {
                chain.asked(Caller::Member(from, ticket), id, range, question, context);
            }),
            Body::Told(ticket, answer) => {
                self.step(to, |chain, context| {
                    chain.reply(ticket, Some(answer), context)
                });
            }
            Body::PassOn(ticket, key, operation, epoch) => self.step(to, |chain, context| {
                let caller = Caller::Member(from, ticket);
                chain.request(caller, key, operation, Some(epoch), context);
            }),
            Body::Ended(ticket, outcome) => self.step(to, |chain, context| {
                chain.outcome(ticket, origin::Answer::Outcome(outcome), context);
            }),
            Body::Compare {
                epoch,
                since,
                with,
                every_key,
            } => self.make_comparison(to, (epoch, since), &with, every_key),
        }
    }

    fn is_lost(&self, message: &Message) -> bool {
        let (way, asks) = ((message.from, message.to), is_asked(message));
        self.cut.contains(&way) || asks && self.unconnected.contains(&way)
    }

    /// Whoever waits for this message, or for the answer to it, finds the other one silent.
    fn fall_silent(&mut self, message: Message) {
        let (asker, other) = match is_asked(&message) {
            true => (message.from, self.ids[message.to]),
            false => (message.to, self.ids[message.from]),
        };
        let suspects = &mut self.nodes[asker].suspects;
        suspects.retain(|suspect| *suspect != other);
        suspects.push(other);
        self.step(asker, |chain, context| match message.body {
            Body::Ask(ticket, _) | Body::Told(ticket, _) => chain.reply(ticket, None, context),
            Body::PassOn(ticket, ..) | Body::Ended(ticket, _) => {
                chain.outcome(ticket, origin::Answer::Silent, context);
            }
            Body::Compare { .. } => unreachable!("a node reaches itself"),
        });
    }

    /// Makes a whole comparison at once.
    fn make_comparison(
        &mut self,
        node: usize,
        (epoch, since): (Option<Epoch>, Epoch),
        with: &[usize],
        every_key: bool,
    ) {
        let (range, now) = (self.range, self.now);
        let whole = with
            .iter()
            .all(|&other| self.compare_with(node, (epoch, since), other, every_key));
        match epoch {
            Some(epoch) => {
                self.renew(node, epoch);
                self.step(node, |chain, context| {
                    chain.collected(range, epoch, whole, context);
                });
            }
            None => self.nodes[node].chain.caught_up(range, whole, now),
        }
    }

    /// Renews all that was moved in.
    fn renew(&mut self, node: usize, epoch: Epoch) {
        let Node { chain, disk, .. } = &mut self.nodes[node];
        let mut goes_on = true;
        while goes_on {
            let before = disk.written;
            goes_on = !chain.renew(self.range, epoch, disk);
            self.renewed_at_once = self.renewed_at_once.max(disk.written - before);
        }
    }

    fn compare_with(
        &mut self,
        node: usize,
        (epoch, since): (Option<Epoch>, Epoch),
        other: usize,
        every_key: bool,
    ) -> bool {
        let range = self.range;
        let (there, back) = ((node, other), (other, node));
        if self.unconnected.contains(&there) || [there, back].iter().any(|it| self.cut.contains(it))
        {
            return false;
        }
        let theirs = &self.nodes[other];
        let allowed = match epoch {
            Some(epoch) => theirs.chain.takes_part(range, epoch),
            None => theirs.chain.status(range).is_some_and(|it| it.serves),
        };
        let scan = Scan {
            range,
            states: true,
            ..Scan::default()
        };
        let theirs = theirs.disk.records.scan(&scan).0.entries;
        let own = self.nodes[node].disk.records.scan(&scan).0.entries;
        let mut keys: Vec<Key> = theirs.iter().chain(&own).map(|it| it.key.clone()).collect();
        keys.sort();
        keys.dedup();
        allowed
            && keys.into_iter().all(|key| {
                let theirs = theirs.iter().find(|it| it.key == key);
                let theirs = theirs.and_then(|it| it.record.as_ref()?.accepted.clone());
                let Node { chain, disk, .. } = &mut self.nodes[node];
                let own = disk.record(&key).0.accepted_ballot();
                let is_same = theirs.as_ref().is_some_and(|theirs| theirs.ballot == own);
                if is_same && !every_key {
                    return true;
                }
                match (epoch, &theirs) {
                    (Some(epoch), theirs) => {
                        chain.move_in(range, epoch, &key, theirs.as_ref(), disk)
                    }
                    (None, Some(theirs)) => chain.pull_in(range, since, &key, theirs, disk),
                    (None, None) => true,
                }
            })
    }

    /// Delivers all messages, and those that follow, but for those that are blocked.
    pub fn run_but(&mut self, blocked: impl Fn(&Message) -> bool) {
        for _ in 0..10_000 {
            let Some(next) = self.bag.iter().position(|message| !blocked(message)) else {
                return;
            };
            let message = self.bag.remove(next).expect("it was found there");
            self.deliver(message);
        }
        panic!("this never ends");
    }

    pub fn run(&mut self) {
        self.run_but(|_| false);
    }

    /// Takes those messages out that are such.
    pub fn take(&mut self, is_such: impl Fn(&Message) -> bool) -> Vec<Message> {
        let (taken, left) = self.bag.drain(..).partition(|message| is_such(message));
        self.bag = VecDeque::from(left) as VecDeque<Message>;
        taken
    }

    /// A client's request, straight to a node.
    pub fn request(&mut self, client: u64, node: usize, operation: Operation) {
        self.request_of(self.key.clone(), client, node, operation);
    }

    pub fn request_of(&mut self, key: Key, client: u64, node: usize, operation: Operation) {
        self.step(node, |chain, context| {
            chain.request(Caller::Client(client), key, operation, None, context);
        });
    }

    /// Asks a node in the name of another one. Returns what it answers at once.
    pub fn ask(&mut self, from: usize, to: usize, question: Question) -> Vec<Answer> {
        let (id, range) = (self.ids[from], self.range);
        self.step(to, |chain, context| {
            chain.asked(Caller::Test, id, range, question, context);
        });
        std::mem::take(&mut self.answers)
    }

    /// Time passes, and this node looks around.
    pub fn look(&mut self, node: usize) {
        self.stand_still(node, Duration::from_secs(20));
    }

    /// The others are silent for a node from now on, until it hears of them.
    pub fn suspect(&mut self, node: usize, others: &[usize]) {
        self.nodes[node].suspects = others.iter().map(|other| self.ids[*other]).collect();
    }

    /// Time passes. All nodes look after their chains, and all messages arrive.
    pub fn pass(&mut self, time: Duration) {
        self.pass_but(time, |_| false);
    }

    /// The same, but those messages that are blocked do not arrive.
    pub fn pass_but(&mut self, time: Duration, blocked: impl Fn(&Message) -> bool) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(25);
            for node in 0..3 {
                self.step(node, |chain, mut context| chain.tick(&mut context));
            }
            self.run_but(&blocked);
        }
    }

    pub fn miss(&mut self, node: usize) {
        self.nodes[node].chain.missed(self.range);
    }

    /// Loses the memory of a node.
    pub fn restart(&mut self, node: usize) {
        let id = self.ids[node];
        let own = &mut self.nodes[node];
        own.chain = new_chain(id, &self.ring);
        own.chain.start(&own.disk);
        own.held.clear();
        self.bag
            .retain(|message| message.to != node || matches!(message.body, Body::Ask(..)));
    }

    /// A comparison of this node breaks off after what it has compared was moved in.
    pub fn cut_short(&mut self, node: usize) {
        let comparisons =
            self.take(|message| message.to == node && matches!(message.body, Body::Compare { .. }));
        for message in comparisons {
            if let Body::Compare {
                epoch,
                since,
                with,
                every_key,
            } = message.body
            {
                for other in with {
                    self.compare_with(node, (epoch, since), other, every_key);
                }
            }
        }
    }

    /// Loses the disk of a node, which then copies the higher state of both others.
    pub fn lose_folder(&mut self, node: usize) {
        let records = Records::new(self.ring.clone());
        self.nodes[node].disk.records = records;
        let others: Vec<usize> = (0..3).filter(|other| *other != node).collect();
        let mut adopted = Adopted::default();
        for other in others {
            let (record, _) = self.nodes[other].disk.record(&self.key);
            adopted = adopted.max(self.nodes[other].disk.adopted(self.range));
            let disk = &mut self.nodes[node].disk;
            let own = disk.record(&self.key).0.accepted_ballot();
            if let Some(accepted) = record.accepted.filter(|it| it.ballot > own) {
                disk.take(&self.key, &accepted);
            }
        }
        self.nodes[node].disk.adopt(self.range, &adopted.copied(1));
        self.restart(node);
    }

    /// From now on nothing more becomes durable at a node.
    pub fn hang(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        disk.hangs_at = Some(disk.written);
        disk.syncing = disk.written;
    }

    /// A sync of a node that hangs comes to its end, and the next one begins. It makes durable what was written by
    /// then.
    pub fn sync(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        own.disk.hangs_at = Some(own.disk.syncing);
        own.disk.syncing = own.disk.written;
        self.release(node);
    }

    /// What a node holds, durable or not.
    pub fn records(&self, node: usize) -> Records {
        self.nodes[node].disk.records.clone()
    }

    /// A node loses power. Of its disk is left what was durable.
    pub fn crash(&mut self, node: usize, durable: Records) {
        let disk = &mut self.nodes[node].disk;
        (disk.records, disk.hangs_at) = (durable, None);
        self.restart(node);
    }

    /// A node stands still, and then looks after its chains.
    pub fn stand_still(&mut self, node: usize, time: Duration) {
        self.now += time;
        self.step(node, |chain, mut context| chain.tick(&mut context));
    }

    /// The disk of a node goes on, and is as fast as before.
    pub fn heal(&mut self, node: usize) {
        self.nodes[node].disk.hangs_at = None;
        self.release(node);
    }

    /// Sends what waited for the disk, but for questions that were given up meanwhile.
    fn release(&mut self, node: usize) {
        let Node {
            chain, disk, held, ..
        } = &mut self.nodes[node];
        let durable = |(place, _): &mut (LogPlace, Message)| *place <= disk.durable();
        let messages = held.extract_if(.., durable).map(|(_, message)| message);
        self.bag
            .extend(messages.filter(|message| match message.body {
                Body::Ask(ticket, _) => chain.still_asks(ticket),
                _ => true,
            }));
    }

    pub fn serves(&self, node: usize) -> bool {
        let status = self.nodes[node].chain.status(self.range);
        status.is_some_and(|status| status.serves)
    }

    /// The epoch that a node has adopted, and its members.
    pub fn adopted(&self, node: usize) -> (Epoch, Vec<usize>) {
        let adopted = self.nodes[node].disk.adopted(self.range);
        let members = adopted.members.iter().map(|id| self.place(*id));
        (adopted.epoch, members.collect())
    }

    /// The replicas, in the order of the preference list.
    pub fn replicas(&self) -> [NodeId; 3] {
        [0, 1, 2].map(|node| self.ids[node])
    }

    /// Other keys of the range.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let keys = (0..).map(|number| Key::from(format!("key{number}").as_str()));
        keys.filter(|key| self.ring.range_at(Position::of_key(key)) == self.range)
    }

    /// The value that a node holds.
    pub fn value(&self, node: usize) -> Option<String> {
        self.value_of(&self.key, node)
    }

    pub fn value_of(&self, key: &Key, node: usize) -> Option<String> {
        let record = self.nodes[node].disk.record(key).0;
        record.value().map(ToString::to_string)
    }

    /// What a client was told last.
    pub fn outcome(&self, client: u64) -> Option<&Outcome> {
        let mut told = self.told.iter().rev();
        told.find(|(own, _)| *own == client).map(|(_, it)| it)
    }

    /// The value that a read was told.
    pub fn read(&self, client: u64) -> Option<String> {
        match self.outcome(client)? {
            Outcome::Found { value, .. } => Some(value.to_string()),
            Outcome::Missing => Some("nothing".to_owned()),
            other => panic!("{other:?}"),
        }
    }

    /// The value that a read was told, if it was told any.
    pub fn read_if_told(&self, client: u64) -> Option<String> {
        let found = self.told.iter().rev().find(|(own, _)| *own == client);
        found.and_then(|(_, outcome)| match outcome {
            Outcome::Found { value, .. } => Some(value.to_string()),
            Outcome::Missing => Some("nothing".to_owned()),
            _ => None,
        })
    }

    /// Drops a tombstone that this node holds, if the rules allow it now.
    pub fn drop_tombstone(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        let ballot = own.disk.record(&self.key).0.accepted_ballot();
        if own.chain.may_drop(self.range) {
            own.disk.append();
            let place = own.disk.written;
            own.disk.records.drop_tombstone(&self.key, ballot, place);
        }
    }
}

fn new_chain(id: NodeId, ring: &Arc<Ring>) -> Chain<Caller> {
    let times = Times {
        time_out: Duration::from_millis(100),
        deadline: Duration::from_secs(3_600),
    };
    Chain::new(id, ring.clone(), QUORUMS, times, 64)
}

impl Node {
    fn new(id: NodeId, ring: &Arc<Ring>) -> Node {
        let disk = Disk {
            records: Records::new(ring.clone()),
            written: 0,
            hangs_at: None,
            syncing: 0,
        };
        let mut chain = new_chain(id, ring);
        chain.start(&disk);
        Node {
            chain,
            disk,
            suspects: Vec::new(),
            held: Vec::new(),
        }
    }
}

/// A write of a client, which has one origin of its own.
pub fn write(client: u64, sequence: u64, change: Change) -> Operation {
    let origin = NodeId(100 + client as u32);
    let dot = Dot { origin, sequence };
    Operation::Write { dot, change }
}

pub fn put(client: u64, value: &str) -> Operation {
    write(client, 1, Change::Put(value.into()))
}

fn is_asked(message: &Message) -> bool {
    matches!(message.body, Body::Ask(..) | Body::PassOn(..))
}

pub fn is_pass(message: &Message) -> bool {
    matches!(&message.body, Body::Ask(_, Question::Pass { .. }))
}

/// Whether a message is to or from a node.
pub fn touches(node: usize) -> impl Fn(&Message) -> bool {
    move |message| message.from == node || message.to == node
}

/// Whether a message tells a node what its sender serves.
pub fn tells_status_to(node: usize) -> impl Fn(&Message) -> bool {
    move |message| message.to == node && matches!(message.body, Body::Told(_, Answer::Status(_)))
}
