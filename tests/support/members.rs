//! Members of groups, each on a connection of its own, and what they are told.

use simple_dynamo::client::Client;

use super::cluster::Cluster;
use super::waiting::eventually;

/// A connection that is a member of one group.
pub struct Member {
    pub client: Client,
    group: String,
    /// The number of the last message that it was told, or was not told because it is not kept.
    pub last: u64,
    /// The numbers that it was told it missed.
    pub missed: Vec<(u64, u64)>,
}

impl Member {
    /// Joins at a node: `options` follow the group's name.
    pub fn join(cluster: &Cluster, id: u32, group: &str, options: &str) -> Member {
        let mut client = cluster.client(id);
        let joined = eventually("the group is joined", || {
            let reply = client.call(format!("JOIN {group} {options}").trim()).ok()?;
            let number = reply.strip_prefix(&format!("JOINED {group} "));
            number.map(|number| number.parse().unwrap())
        });
        Member {
            client,
            group: group.to_owned(),
            last: joined,
            missed: Vec::new(),
        }
    }

    /// The text of the next message. Asserts that it follows the last one, but for what was missed.
    pub fn next(&mut self) -> String {
        loop {
            let line = self.client.receive().unwrap();
            if let Some(text) = self.take(&line) {
                return text;
            }
        }
    }

    /// The text in a pushed line, if it is a message.
    fn take(&mut self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        match words[..] {
            ["MSG", group, number, _, _, text] => {
                assert_eq!(group, self.group);
                assert_eq!(number.parse(), Ok(self.last + 1), "{line}");
                self.last += 1;
                return Some(text.to_owned());
            }
            ["MISSED", _, from, to] => {
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                assert_eq!(from, self.last + 1, "{line}");
                assert!(to >= from, "{line}");
                self.last = to;
                self.missed.push((from, to));
            }
            _ => panic!("no message of {}: {line}", self.group),
        }
        None
    }

    /// The texts of the messages up to this number.
    pub fn up_to(&mut self, number: u64) -> Vec<String> {
        let mut texts = Vec::new();
        while self.last < number {
            texts.push(self.next());
        }
        assert_eq!(self.last, number);
        texts
    }

    /// Sends a request. Returns the reply of one line, and the texts that came before it.
    pub fn call(&mut self, request: &str) -> (String, Vec<String>) {
        self.client.send(format!("{request}\n").as_bytes()).unwrap();
        let mut texts = Vec::new();
        loop {
            let line = self.client.receive().unwrap();
            if !line.starts_with("MSG ") && !line.starts_with("MISSED ") {
                return (line, texts);
            }
            texts.extend(self.take(&line));
        }
    }
}

impl Cluster {
    /// Says something, which must succeed. Returns its number.
    pub fn say(&self, id: u32, group: &str, text: &str) -> u64 {
        self.done(id, &format!("SAY {group} {text}"))
            .parse()
            .unwrap()
    }

    /// The texts of a group's messages after a number, as a node reads them.
    pub fn history(&self, id: u32, group: &str, mut after: u64) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let request = format!("HISTORY {group} AFTER {after} COUNT 1000");
            let lines = eventually("the history is read", || self.list(id, &request).ok());
            if lines.is_empty() {
                return texts;
            }
            for line in lines {
                let words: Vec<&str> = line.splitn(6, ' ').collect();
                let number: u64 = words[2].parse().unwrap();
                assert_eq!(number, after + 1, "{line}");
                after = number;
                texts.push(words[5].to_owned());
            }
        }
    }
}
