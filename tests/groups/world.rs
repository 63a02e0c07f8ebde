//! The nodes, their registers and the messages between them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::group::{
    Delivery, Fate, Gather, Group, GroupName, Message, Page, Said, Say, Saying, Settled, Sizes,
    set_sizes, sizes,
};
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::state::Absorbed;
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{Change, State, Verdict};

use super::clients::Client;

pub const NODES: usize = 3;
/// The number of senders is chosen for each run.
const SIZES: Sizes = Sizes {
    page: 2,
    pages: 4,
    senders: 0,
    open: 8,
    batch: 4,
    ahead: 4,
    recent: 280,
};

/// What a run does wrong, to show that it would be noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    Nothing,
    /// What no push brought is never read.
    NoHealing,
    /// Messages are pushed before it is decided what becomes of them.
    PushedEarly,
    /// A page is cut off before it is stored.
    CutBeforeStored,
    /// A client notes anew what it has been shown when it sends again.
    ShownRenewed,
    /// Messages without a session are expected in order over several nodes.
    PlainOverNodes,
    /// A client claims to have been shown messages that do not exist.
    Liar,
}

/// How often things happened.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub messages: u64,
    pub missed: u64,
    pub retries: u64,
    /// Batches whose messages had different fates.
    pub partly: u64,
    /// Changes that took effect a second time, and were told their answer.
    pub absorbed: u64,
    pub full: u64,
    pub gone: u64,
    /// Requests that found their message appended before.
    pub doubled: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.messages += other.messages;
        self.missed += other.missed;
        self.retries += other.retries;
        self.partly += other.partly;
        self.absorbed += other.absorbed;
        self.full += other.full;
        self.gone += other.gone;
        self.doubled += other.doubled;
    }
}

/// What a client asks of a node, and waits for: which of its messages.
pub type Handle = (usize, String);

pub struct Node {
    pub life: u64,
    pub paused_until: u64,
    pub gather: Gather<Handle>,
    said_at: u64,
    /// The dot of the append in flight.
    appending: u64,
    pub delivery: Option<Delivery>,
    healing_since: Option<u64>,
    storing_since: u64,
}

/// Why a node uses a register.
#[derive(Clone)]
pub enum Purpose {
    Append(Vec<Saying>),
    /// The group is read so that its first page can be stored.
    FindPage,
    StorePage(u64),
    Heal,
    /// A client is told of a message that needs the group's state.
    Tell(Handle, Fate),
    /// A member reads the group, or a page of it.
    Member(usize),
}

/// A use of a register that has not taken effect.
#[derive(Clone)]
struct Operation {
    node: usize,
    life: u64,
    key: Key,
    change: Option<Change>,
    dot: u64,
    purpose: Purpose,
}

/// What became of a message, as its client hears it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    Done(Option<u64>),
    Gone(u64),
    /// It was not done by this request: gap, or beyond the end.
    NotNow,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    pub sabotage: Sabotage,
    pub name: GroupName,
    pub registers: HashMap<Key, State>,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    in_flight: Vec<Operation>,
    /// What takes effect much later.
    aside: Vec<Operation>,
    pushes: Vec<(usize, Vec<Arc<Message>>)>,
    dots: u64,
    loss: f64,
    crash: f64,
    late: f64,
    twice: f64,
    /// Each number's text, and each text's number.
    pub log: BTreeMap<u64, String>,
    pub numbers: HashMap<String, u64>,
    /// The texts that the change of this dot appended.
    appended: HashMap<u64, HashSet<String>>,
    pub breaches: Vec<String>,
    pub counts: Counts,
}

impl World {
    pub fn new(seed: u64, sabotage: Sabotage) -> World {
        let mut rng = Rng::with_seed(seed);
        let senders = [2, 3, 6][rng.usize(..3)];
        set_sizes(Sizes { senders, ..SIZES });
        let clients = (0..5)
            .map(|id| Client::new(id, sabotage, &mut rng))
            .collect();
        World {
            now: 0,
            sabotage,
            name: GroupName::parse("g").unwrap(),
            registers: HashMap::new(),
            nodes: (0..NODES).map(|_| Node::new(0)).collect(),
            clients,
            in_flight: Vec::new(),
            aside: Vec::new(),
            pushes: Vec::new(),
            dots: 0,
            loss: [0.0, 0.03, 0.15][rng.usize(..3)],
            crash: [0.0, 0.003, 0.01][rng.usize(..3)],
            late: [0.0, 0.02, 0.1][rng.usize(..3)],
            twice: [0.05, 0.3][rng.usize(..2)],
            log: BTreeMap::new(),
            numbers: HashMap::new(),
            appended: HashMap::new(),
            breaches: Vec::new(),
            counts: Counts::default(),
            rng,
        }
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.rng.f64() < share
    }

    pub fn must(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.breaches.push(text());
        }
    }

    pub fn clock(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    /// The group as its register holds it.
    pub fn group(&self) -> Group {
        let state = self.registers.get(&self.name.key());
        Group::of(state.and_then(|state| state.value.as_ref())).expect("a group")
    }

    pub fn run(&mut self) {
        while self.now < 400 {
            self.now += 1;
            self.step(false);
        }
        // Now all goes well, and everybody must come to an end.
        (self.loss, self.crash) = (0.0, 0.0);
        self.twice = 0.02;
        while self.now < 3_000 && !self.is_done() && self.breaches.is_empty() {
            self.now += 1;
            self.step(true);
        }
        self.counts.messages = self.log.len() as u64;
    }

    fn is_done(&self) -> bool {
        let end = self.group().next - 1;
        let done = |client: &Client| client.is_done() && client.member.shown() == end;
        self.in_flight.is_empty() && self.aside.is_empty() && self.clients.iter().all(done)
    }

    fn step(&mut self, quiet: bool) {
        for node in 0..NODES {
            self.step_node(node, quiet);
        }
        for client in 0..self.clients.len() {
            self.step_client(client, quiet);
        }
        for _ in 0..3 {
            self.take_effect(quiet);
        }
        if !self.pushes.is_empty() && self.chance(0.8) {
            let place = self.rng.usize(..self.pushes.len());
            let (node, messages) = self.pushes.swap_remove(place);
            if self.nodes[node].paused_until <= self.now
                && let Some(delivery) = &mut self.nodes[node].delivery
            {
                delivery.push(messages);
            }
        }
    }

    fn step_node(&mut self, place: usize, quiet: bool) {
        if self.nodes[place].paused_until > self.now {
            return;
        }
        let crash = self.crash;
        if !quiet && self.chance(crash) {
            self.nodes[place] = Node::new(self.nodes[place].life + 1);
            return;
        }
        if !quiet && self.chance(crash) {
            self.nodes[place].paused_until = self.now + [10, 40][self.rng.usize(..2)];
            return;
        }
        let patient = self.now - self.nodes[place].said_at <= 15;
        if !patient && (quiet || self.chance(0.2)) {
            // Nobody answered in time. Its clients learn it by their own patience.
            self.nodes[place].appending = 0;
            self.nodes[place].gather.failed();
        }
        if self.chance(0.4)
            && let Some(say) = self.nodes[place].gather.next_append()
        {
            self.nodes[place].said_at = self.now;
            self.append(place, say);
        }
        if self.now - self.nodes[place].storing_since > 20 {
            self.nodes[place].gather.page_stored(None);
        }
        if self.chance(0.5) && self.nodes[place].gather.take_page_due() {
            self.nodes[place].storing_since = self.now;
            self.use_register(place, self.name.key(), None, Purpose::FindPage);
        }
        let delivery = &self.nodes[place].delivery;
        let has_gap = delivery.as_ref().is_none_or(Delivery::has_gap);
        let healing = self.nodes[place]
            .healing_since
            .is_some_and(|since| self.now - since <= 20);
        let heals = self.sabotage != Sabotage::NoHealing || delivery.is_none();
        if (has_gap || self.chance(0.05)) && !healing && heals && self.chance(0.3) {
            self.nodes[place].healing_since = Some(self.now);
            self.use_register(place, self.name.key(), None, Purpose::Heal);
        }
    }

    fn append(&mut self, place: usize, say: Say) {
        if self.sabotage == Sabotage::PushedEarly {
            let next = self.group().next;
            let messages = say.batch.iter().zip(next..).map(|(saying, number)| {
                Arc::new(Message {
                    number,
                    nick: saying.nick.clone(),
                    text: saying.text.clone(),
                    time: 0,
                })
            });
            self.multicast(messages.collect());
        }
        let batch = say.batch.clone();
        let change = Change::Say(Arc::new(say));
        self.use_register(place, self.name.key(), Some(change), Purpose::Append(batch));
        self.nodes[place].appending = self.dots;
    }

    fn multicast(&mut self, messages: Vec<Arc<Message>>) {
        for node in 0..NODES {
            let loss = self.loss;
            if messages.is_empty() || self.chance(loss) {
                continue;
            }
            for _ in 0..=u32::from(self.chance(0.05)) {
                self.pushes.push((node, messages.clone()));
            }
        }
    }

    pub fn use_register(
        &mut self,
        node: usize,
        key: Key,
        change: Option<Change>,
        purpose: Purpose,
    ) {
        self.dots += 1;
        self.in_flight.push(Operation {
            node,
            life: self.nodes[node].life,
            key,
            change,
            dot: self.dots,
            purpose,
        });
    }

    fn take_effect(&mut self, quiet: bool) {
        if !self.in_flight.is_empty() && self.chance(0.8) {
            let place = if self.chance(0.3) {
                self.rng.usize(..self.in_flight.len())
            } else {
                0
            };
            let operation = self.in_flight[place].clone();
            let is_paused = self.nodes[operation.node].paused_until > self.now;
            if quiet || !is_paused || self.chance(0.3) {
                let (twice, late) = (self.twice, self.late);
                if !self.chance(twice) {
                    self.in_flight.remove(place);
                }
                if self.chance(late) {
                    self.aside.push(operation);
                } else {
                    self.effect(operation);
                }
            }
        }
        if !self.aside.is_empty() && (quiet || self.chance(0.01)) {
            let place = self.rng.usize(..self.aside.len());
            let operation = self.aside.swap_remove(place);
            self.effect(operation);
        }
    }

    /// The operation takes effect, and its node may hear of it.
    fn effect(&mut self, operation: Operation) {
        let mut answer = None;
        if let Some(change) = &operation.change {
            let dot = Dot {
                origin: NodeId(operation.node as u32),
                sequence: operation.dot,
            };
            let state = self.registers.entry(operation.key.clone()).or_default();
            let retried = state.decided_of(dot.origin) == dot.sequence;
            let before = state.clone();
            let Absorbed::Into(next, verdict) = state.absorb(dot, change) else {
                return; // A later one of this node has taken effect.
            };
            *state = next;
            if let Verdict::Answered(text) = &verdict {
                answer = text.parse::<Said>().ok();
            }
            if let Purpose::Append(batch) = &operation.purpose {
                self.counts.absorbed += u64::from(retried);
                self.check_append(&before, batch, operation.dot, retried, answer.as_ref());
            }
        }
        let loss = self.loss;
        if self.nodes[operation.node].life == operation.life && !self.chance(loss) {
            self.heard(operation, answer);
        }
    }

    /// Checks what a change of the group did, and what it answers.
    fn check_append(
        &mut self,
        before: &State,
        batch: &[Saying],
        dot: u64,
        retried: bool,
        said: Option<&Said>,
    ) {
        let before = Group::of(before.value.as_ref()).expect("a group");
        let there_before: HashSet<String> = if retried {
            self.appended.get(&dot).cloned().unwrap_or_default()
        } else {
            self.numbers.keys().cloned().collect()
        };
        for message in self.group().open {
            if message.number >= before.next {
                let known = self.log.insert(message.number, message.text.clone());
                self.must(known.is_none(), || {
                    format!("number {} is given twice", message.number)
                });
                let text = message.text.clone();
                self.appended.entry(dot).or_default().insert(text);
                let other = self.numbers.insert(message.text.clone(), message.number);
                self.must(other.is_none(), || {
                    format!("{} is there twice", message.text)
                });
            }
        }
        let open = self.group().open.len();
        self.must(open <= sizes().open, || format!("{open} messages are open"));
        let Some(said) = said else {
            return self.must(false, || "a change of the group has no answer".to_owned());
        };
        let fates: HashSet<_> = said.fates.iter().map(|fate| format!("{fate:?}")).collect();
        self.counts.partly += u64::from(fates.len() > 1);
        for ((saying, fate), number) in batch.iter().zip(&said.fates).zip(said.numbers()) {
            let there = self.numbers.get(&saying.text).copied();
            self.counts.full += u64::from(*fate == Fate::Full);
            let right = match fate {
                Fate::Appended => there == number,
                Fate::Before => there.is_some(),
                // No client is told that it was full.
                Fate::Gone | Fate::Full => true,
                Fate::Gap | Fate::Beyond | Fate::Conflict => !there_before.contains(&saying.text),
            };
            self.must(right, || {
                format!(
                    "{} is told {fate:?} {number:?}, and is {there:?}",
                    saying.text
                )
            });
        }
    }

    /// A node hears that an operation of its own has taken effect.
    fn heard(&mut self, operation: Operation, said: Option<Said>) {
        let place = operation.node;
        match operation.purpose {
            Purpose::Append(_) => {
                let is_awaited = self.nodes[place].appending == operation.dot;
                if let Some(said) = said.filter(|_| is_awaited) {
                    self.nodes[place].appending = 0;
                    self.said(place, &said);
                }
            }
            Purpose::FindPage => match self.group().front_page() {
                Some(page) => {
                    let number = page.page;
                    let key = self.name.page_key(number);
                    if self.sabotage == Sabotage::CutBeforeStored {
                        self.nodes[place].gather.page_stored(Some(number));
                    }
                    let change = Change::PutPage(Arc::new(page));
                    self.use_register(place, key, Some(change), Purpose::StorePage(number));
                }
                None => self.nodes[place].gather.page_stored(None),
            },
            Purpose::StorePage(page) => self.nodes[place].gather.page_stored(Some(page)),
            Purpose::Heal => {
                let group = self.group();
                let node = &mut self.nodes[place];
                node.healing_since = None;
                match &mut node.delivery {
                    Some(delivery) => delivery.heal(&group),
                    None => node.delivery = Some(Delivery::new(&group)),
                }
            }
            Purpose::Tell(handle, fate) => {
                let group = self.group();
                let reply = match fate {
                    Fate::Gone => Reply::Gone(group.horizon),
                    _ => Reply::Done(None),
                };
                self.tell(place, handle, reply);
            }
            Purpose::Member(client) => {
                let state = self.registers.get(&operation.key);
                let value = state.and_then(|state| state.value.clone());
                self.member_read(client, operation.life, &operation.key, value.as_ref());
            }
        }
    }

    fn said(&mut self, place: usize, said: &Said) {
        let (told, messages) = self.nodes[place].gather.answered(said);
        if self.sabotage != Sabotage::PushedEarly {
            self.multicast(messages);
        }
        for Settled {
            handle,
            fate,
            number,
            ..
        } in told
        {
            match fate {
                Fate::Appended => self.tell(place, handle, Reply::Done(number)),
                Fate::Before | Fate::Gone => {
                    self.counts.doubled += u64::from(fate == Fate::Before);
                    self.use_register(place, self.name.key(), None, Purpose::Tell(handle, fate));
                }
                _ => self.tell(place, handle, Reply::NotNow),
            }
        }
    }

    /// What a page's key or the group's key holds, for a member that reads it.
    fn member_read(
        &mut self,
        client: usize,
        life: u64,
        key: &Key,
        value: Option<&simple_dynamo::bytes::Value>,
    ) {
        let name = self.name.clone();
        let member = &mut self.clients[client].member;
        if *key == name.key() {
            member.read_group(life, &Group::of(value).expect("a group"));
        } else {
            member.read_page(
                life,
                |page| name.page_key(page) == *key,
                Page::of(value).as_ref(),
            );
        }
    }
}

impl Node {
    fn new(life: u64) -> Node {
        Node {
            life,
            paused_until: 0,
            gather: Gather::default(),
            said_at: 0,
            appending: 0,
            delivery: None,
            healing_since: None,
            storing_since: 0,
        }
    }
}
