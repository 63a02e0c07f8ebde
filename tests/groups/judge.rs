//! What must hold at the end of a run.

use simple_dynamo::protocol::group::{Item, Page, sizes};

use super::world::{NODES, Sabotage, World};

impl World {
    pub fn judge(&mut self) {
        let clients = std::mem::take(&mut self.clients);
        for client in &clients {
            for (text, number) in &client.acknowledged {
                let there = self.numbers.get(text).copied();
                let kept = there.is_some() && number.is_none_or(|number| there == Some(number));
                self.must(kept, || {
                    format!("{text} was acknowledged as {number:?}, and is {there:?}")
                });
            }
            for text in &client.refused {
                let there = self.numbers.contains_key(text);
                self.must(!there, || format!("{text} was refused, and is there"));
            }
            self.judge_order(client);
            let lies = self.sabotage == Sabotage::Liar && client.id == 0;
            self.must(client.is_done() || lies, || {
                format!("client {} was not heard", client.id)
            });
            self.judge_member(client.id, &client.member.seen);
        }
        self.clients = clients;
    }

    fn judge_order(&mut self, client: &super::clients::Client) {
        let prefix = format!("{}.", client.id);
        let own = |text: &&String| text.starts_with(&prefix);
        let there: Vec<u64> = self
            .log
            .values()
            .filter(own)
            .map(|text| text[prefix.len()..].parse().unwrap())
            .collect();
        if client.plain {
            let over_nodes = self.sabotage == Sabotage::PlainOverNodes;
            for node in 0..NODES {
                let said = client
                    .order
                    .iter()
                    .filter(|(at, _)| over_nodes || *at == node);
                let numbers: Vec<u64> = said
                    .filter_map(|(_, text)| self.numbers.get(text).copied())
                    .collect();
                self.must(numbers.is_sorted(), || {
                    format!("{prefix}*: not in order: {numbers:?}")
                });
            }
            return;
        }
        let ascending = there.windows(2).all(|pair| pair[0] < pair[1]);
        self.must(ascending, || {
            format!("{prefix}*: not once each in order: {there:?}")
        });
        if self.sabotage == Sabotage::Liar && client.id == 0 {
            return; // It is refused.
        }
        for number in 1..=client.said {
            let text = format!("{prefix}{number}");
            let found = there.contains(&number) || client.unknown.contains(&text);
            self.must(found, || format!("{text} is lost"));
        }
    }

    /// The last number of the pages whose place a later page has taken.
    fn last_overwritten(&self) -> u64 {
        let values = self.registers.values().map(|state| state.value.as_ref());
        let newest = values.filter_map(|value| Some(Page::of(value)?.page)).max();
        newest.map_or(0, |newest| {
            (newest + 1).saturating_sub(sizes().pages) * sizes().page
        })
    }

    fn judge_member(&mut self, client: usize, seen: &[Item]) {
        let mut at = 0;
        for item in seen {
            match item {
                Item::Message(message) => {
                    let text = self.log.get(&message.number);
                    let right = message.number == at + 1 && text == Some(&message.text);
                    self.must(right, || {
                        format!("member {client} is shown {message:?} after {at}")
                    });
                    at = message.number;
                }
                Item::Missed(first, last) => {
                    self.counts.missed += 1;
                    self.must(*first == at + 1 && last >= first, || {
                        format!("member {client} missed {first} to {last} after {at}")
                    });
                    let overwritten = self.last_overwritten();
                    self.must(*last <= overwritten, || {
                        format!("member {client} missed what is there: {last}")
                    });
                    at = *last;
                }
            }
        }
        let end = self.group().next - 1;
        self.must(at == end, || format!("member {client} has {at} of {end}"));
    }
}
