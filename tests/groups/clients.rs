//! The clients: each speaks, and is a member that is shown messages. Two of the five have no session.

use std::collections::HashSet;

use fastrand::Rng;
use simple_dynamo::client::speaker::Speaker;
use simple_dynamo::protocol::group::{Group, Item, Page, ReadStep, Reader, Saying, Sender};

use super::world::{Purpose, Reply, Sabotage, World};

pub struct Client {
    pub id: usize,
    /// It has no session, and says each message once.
    pub plain: bool,
    pub speaker: Speaker,
    sessions: u32,
    /// What a client without a session waits for.
    waits_for: Option<String>,
    pub said: u64,
    todo: u64,
    pub node: usize,
    life: u64,
    asked_at: u64,
    rests_until: u64,
    /// Texts of which it is not known whether they are there.
    pub unknown: HashSet<String>,
    pub acknowledged: Vec<(String, Option<u64>)>,
    /// What a client without a session was told is not there.
    pub refused: Vec<String>,
    /// The node and the text of each message, in the order in which they were said.
    pub order: Vec<(usize, String)>,
    pub member: Member,
}

/// The side of a client that is shown messages.
#[derive(Default)]
pub struct Member {
    life: u64,
    shown: u64,
    pub seen: Vec<Item>,
    reader: Option<(Reader, u64)>,
    /// What the reader has to read next.
    wants: Option<ReadStep>,
}

impl Client {
    pub fn new(id: usize, sabotage: Sabotage, rng: &mut Rng) -> Client {
        let mut speaker = Speaker::new(format!("c{id}-0"));
        if sabotage == Sabotage::Liar && id == 0 {
            speaker.show(1_000_000);
        }
        Client {
            id,
            plain: id >= 3,
            speaker,
            sessions: 0,
            waits_for: None,
            said: 0,
            todo: [3, 5, 7][rng.usize(..3)],
            node: id % super::world::NODES,
            life: 0,
            asked_at: 0,
            rests_until: 0,
            unknown: HashSet::new(),
            acknowledged: Vec::new(),
            refused: Vec::new(),
            order: Vec::new(),
            member: Member::default(),
        }
    }

    fn waiting(&self) -> usize {
        self.speaker.unacknowledged().count() + usize::from(self.waits_for.is_some())
    }

    pub fn is_done(&self) -> bool {
        self.todo == 0 && self.waiting() == 0
    }
}

impl Member {
    pub fn shown(&self) -> u64 {
        self.shown
    }

    pub fn read_group(&mut self, life: u64, group: &Group) {
        self.read(
            life,
            |reader, items| reader.group(group, items),
            ReadStep::ReadGroup,
        );
    }

    /// Takes the content of a key, which may be that of a page that was wanted before.
    pub fn read_page(&mut self, life: u64, is_of: impl Fn(u64) -> bool, page: Option<&Page>) {
        let wanted = match &self.wants {
            Some(ReadStep::ReadPage(wanted)) if is_of(*wanted) => *wanted,
            _ => return,
        };
        let read = |reader: &mut Reader, items: &mut Vec<Item>| reader.page(page, items);
        self.read(life, read, ReadStep::ReadPage(wanted));
    }

    fn read(
        &mut self,
        life: u64,
        read: impl FnOnce(&mut Reader, &mut Vec<Item>) -> ReadStep,
        answers: ReadStep,
    ) {
        if self.life != life || self.wants.as_ref() != Some(&answers) {
            return;
        }
        let Some((reader, _)) = &mut self.reader else {
            return;
        };
        let mut items = Vec::new();
        let step = read(reader, &mut items);
        items.into_iter().for_each(|item| self.show(item));
        if step == ReadStep::End {
            (self.reader, self.wants) = (None, None);
        } else {
            self.wants = Some(step);
            self.reader.as_mut().expect("it reads").1 = 0;
        }
    }

    fn show(&mut self, item: Item) {
        self.shown = match &item {
            Item::Message(message) => message.number,
            Item::Missed(_, last) => *last,
        };
        self.seen.push(item);
    }
}

impl World {
    pub fn step_client(&mut self, id: usize, quiet: bool) {
        let is_lost = self.nodes[self.clients[id].node].life != self.clients[id].life;
        if is_lost && self.chance(0.3) {
            self.send_again(id);
        }
        let client = &self.clients[id];
        let is_lost = self.nodes[client.node].life != client.life;
        let most = if client.plain { 1 } else { 3 };
        let speaks = client.todo > 0
            && client.waiting() < most
            && self.now >= client.rests_until
            && !is_lost;
        if speaks && self.chance(0.15) {
            self.say(id);
        } else if self.clients[id].todo > 0 && self.chance(0.02) {
            self.clients[id].rests_until = self.now + 60;
        }
        let client = &self.clients[id];
        if client.waiting() > 0 && self.now - client.asked_at > 25 && self.chance(0.1) {
            self.send_again(id);
        }
        if self.chance(0.5) {
            self.feed(id);
        }
        if !quiet && self.chance(0.01) {
            self.send_again(id);
        }
    }

    fn say(&mut self, id: usize) {
        let client = &mut self.clients[id];
        client.said += 1;
        client.todo -= 1;
        let text = format!("{id}.{}", client.said);
        client.order.push((client.node, text.clone()));
        if client.plain {
            client.waits_for = Some(text.clone());
            self.send(id, &text, text.clone());
        } else {
            client.speaker.say(text.clone());
            let (name, _) = client
                .speaker
                .unacknowledged()
                .next_back()
                .expect("it was said");
            self.send(id, &name, text);
        }
    }

    fn send(&mut self, id: usize, name: &str, text: String) {
        let client = &mut self.clients[id];
        client.asked_at = self.now;
        let sender = (!client.plain).then(|| Sender::parse(name).expect("a name"));
        let saying = Saying {
            sender,
            nick: format!("c{id}"),
            text,
            time: 0,
        };
        let (node, now) = (client.node, self.clock());
        self.nodes[node]
            .gather
            .add((id, name.to_owned()), saying, now);
    }

    /// Goes to some node, and sends what is not acknowledged.
    fn send_again(&mut self, id: usize) {
        let moves =
            self.chance(0.7) || self.nodes[self.clients[id].node].life != self.clients[id].life;
        if moves {
            self.clients[id].node = self.rng.usize(..super::world::NODES);
        }
        let client = &mut self.clients[id];
        client.life = self.nodes[client.node].life;
        client.member.reader = None;
        client.member.wants = None;
        client.member.life = client.life;
        if let Some(text) = client.waits_for.take() {
            client.unknown.insert(text);
        }
        if self.sabotage == Sabotage::ShownRenewed {
            client.speaker.renew_shown();
        }
        let again: Vec<_> = client
            .speaker
            .unacknowledged()
            .map(|(name, text)| (name, text.to_owned()))
            .collect();
        self.counts.retries += again.len() as u64;
        for (name, text) in again {
            self.send(id, &name, text);
        }
    }

    /// A node answers a client, if that is still there and the reply is not lost.
    pub fn tell(&mut self, node: usize, (id, name): (usize, String), reply: Reply) {
        let client = &mut self.clients[id];
        if client.node != node || client.life != self.nodes[node].life {
            return;
        }
        if client.plain {
            if client.waits_for.as_ref() == Some(&name) {
                client.waits_for = None;
                match reply {
                    Reply::Done(number) => client.acknowledged.push((name, number)),
                    _ => client.refused.push(name),
                }
            }
            return;
        }
        let waits = client
            .speaker
            .unacknowledged()
            .find(|(own, _)| *own == name);
        let Some(text) = waits.map(|(_, text)| text.to_owned()) else {
            return;
        };
        match reply {
            Reply::Done(number) => {
                client.speaker.acknowledged(&name, number);
                client.acknowledged.push((text, number));
            }
            Reply::Gone(horizon) => {
                self.counts.gone += 1;
                client.sessions += 1;
                let session = format!("c{id}-{}", client.sessions);
                client.unknown.extend(client.speaker.gone(horizon, session));
                let again: Vec<_> = client
                    .speaker
                    .unacknowledged()
                    .map(|(name, text)| (name, text.to_owned()))
                    .collect();
                for (name, text) in again {
                    self.send(id, &name, text);
                }
            }
            Reply::NotNow => {}
        }
    }

    /// Shows a member what is new.
    fn feed(&mut self, id: usize) {
        let (now, name) = (self.now, self.name.clone());
        let client = &mut self.clients[id];
        let (place, life) = (client.node, client.life);
        let node = &self.nodes[place];
        let Some(delivery) = node
            .delivery
            .as_ref()
            .filter(|_| node.life == life && node.paused_until <= now)
        else {
            return;
        };
        let member = &mut client.member;
        if member.shown >= delivery.delivered() {
            return;
        }
        if let Some(recent) = delivery.from(member.shown + 1) {
            let recent: Vec<_> = recent
                .map(|message| Item::Message(message.clone()))
                .collect();
            recent.into_iter().for_each(|item| member.show(item));
            (member.reader, member.wants) = (None, None);
        } else {
            let shown = member.shown;
            let (_, asked) = member
                .reader
                .get_or_insert_with(|| (Reader::new(shown + 1), 0));
            if *asked > 0 && now - *asked <= 20 {
                return;
            }
            *asked = now;
            let step = member.wants.get_or_insert(ReadStep::ReadGroup).clone();
            member.life = life;
            let key = match step {
                ReadStep::ReadPage(page) => name.page_key(page),
                _ => name.key(),
            };
            self.use_register(place, key, None, Purpose::Member(id));
        }
        let shown = self.clients[id].member.shown;
        self.clients[id].speaker.show(shown);
    }
}
