//! A client that knows the ring: "client-driven coordination", section 6.4 of the Dynamo paper.
//!
//! [`RoutedClient`] asks any node for the ring, and from then on sends each request straight to the coordinator
//! of its key: no other node has to pass it on. It asks again whenever it connects to a node, so it follows a
//! cluster whose nodes have moved as soon as one node tells.
//!
//! A node that refuses a request (`UNAVAILABLE`, `BUSY`) or that cannot be reached has certainly not done it. The
//! request then goes to the next node of the key's preference list, and after the last of the list to the
//! other nodes of the ring, which may reach replicas that this client does not.
//!
//! A node that was sent a request and never replied may have done it. Only a `GET` is then sent to another node,
//! since it changes nothing. For a `PUT`, `CAS` or `DEL` the caller is told `UNKNOWN`, as a node would tell. Sent
//! again, a `PUT` might overwrite what others wrote after its first execution.
//!
//! Requests that are called together are concurrent, even those of one key: each may be done before any other.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::Client;
use crate::bytes::Key;
use crate::error::Failure;
use crate::protocol::ring::{NodeId, Ring};

/// For so long a node that did not answer is the last that a request is sent to. Meanwhile the next node of the
/// list passes requests on, if the silent node answers it.
const AVOIDED: Duration = Duration::from_secs(5);

/// A client with a connection to each node that it has needed so far.
pub struct RoutedClient {
    /// Its preference lists name all nodes: first those that hold the key, then the others in ring order.
    ring: Ring,
    addresses: BTreeMap<NodeId, String>,
    connections: BTreeMap<NodeId, Client>,
    /// Until when nodes that did not answer are avoided.
    avoided: BTreeMap<NodeId, Instant>,
    patience: Duration,
}

/// A request for one key: `GET`, `PUT`, `CAS`, `DEL` or `WHERE`.
pub struct Request {
    pub key: Key,
    /// As it is sent, without the end of the line.
    pub line: String,
}

/// A request, and how far it is.
struct Attempt<'a> {
    request: &'a Request,
    tried: Vec<NodeId>,
    /// The reply, or why the last node did not do it.
    reply: String,
    /// Whether another node is to be tried, if there is one.
    retry: bool,
}

/// A connection, and whether sending requests on it went well.
type Sent = (Client, io::Result<()>);

impl RoutedClient {
    /// Learns the ring from the first of `addresses` (`host:port`) that tells it. `patience` bounds each attempt to
    /// connect and each wait for a reply. It should be longer than the cluster's request deadline.
    ///
    /// # Errors
    /// That of the last address.
    pub fn connect(addresses: &[String], patience: Duration) -> io::Result<RoutedClient> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address was given");
        for address in addresses {
            let node = Client::connect(address, patience);
            match node.and_then(|mut node| ask_ring(&mut node)) {
                Ok(addresses) => {
                    return Ok(RoutedClient {
                        ring: ring_of(&addresses),
                        addresses,
                        connections: BTreeMap::new(),
                        avoided: BTreeMap::new(),
                        patience,
                    });
                }
                Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(last)
    }

    /// Where the coordinator of a key serves clients, as far as this client knows: `host:port`.
    pub fn coordinator(&self, key: &Key) -> &str {
        &self.addresses[&self.ring.preference_list(key)[0]]
    }

    /// Sends one request and waits for its reply, see [`RoutedClient::call_all`].
    pub fn call(&mut self, key: &str, line: &str) -> String {
        let (key, line) = (key.into(), line.to_owned());
        self.call_all(&[Request { key, line }]).remove(0)
    }

    /// Sends all requests, each to its coordinator, and then waits for all replies, which it returns in the order
    /// of the requests. What no node replied to ends with `ERROR UNAVAILABLE` (certainly not done) or
    /// `ERROR UNKNOWN` (may or may not have been done). No further node is tried once `patience` has passed.
    pub fn call_all(&mut self, requests: &[Request]) -> Vec<String> {
        let until = Instant::now() + self.patience;
        let mut attempts: Vec<Attempt> = requests.iter().map(Attempt::new).collect();
        loop {
            let mut groups: BTreeMap<NodeId, Vec<&mut Attempt>> = BTreeMap::new();
            for attempt in attempts.iter_mut().filter(|attempt| attempt.retry) {
                if let Some(node) = self.next_node(attempt)
                    && (attempt.tried.is_empty() || Instant::now() < until)
                {
                    attempt.tried.push(node);
                    groups.entry(node).or_default().push(attempt);
                }
            }
            if groups.is_empty() {
                return attempts.into_iter().map(|it| it.reply).collect();
            }
            // All are sent before the first reply is waited for.
            let groups = groups.into_iter();
            let sent = groups.map(|(node, group)| (node, self.send(node, &group), group));
            for (node, sent, group) in sent.collect::<Vec<_>>() {
                self.receive(node, sent, group);
            }
        }
    }

    /// The first node of the request's list that it has not been sent to, and the avoided ones only after the others.
    fn next_node(&self, attempt: &Attempt) -> Option<NodeId> {
        let now = Instant::now();
        let nodes = self.ring.preference_list(&attempt.request.key).iter();
        let untried = nodes.filter(|node| !attempt.tried.contains(node));
        let avoided = |node: &&NodeId| self.avoided.get(node).is_some_and(|until| *until > now);
        untried.min_by_key(avoided).copied()
    }

    /// Sends a group of requests to a node.
    ///
    /// # Errors
    /// The node certainly received none of them.
    fn send(&mut self, node: NodeId, group: &[&mut Attempt]) -> io::Result<Sent> {
        let connected = self.connection(node);
        let mut connection = connected.inspect_err(|_| self.avoid(node))?;
        let lines = group
            .iter()
            .map(|attempt| format!("{}\n", attempt.request.line));
        let sent = connection.send(String::from_iter(lines).as_bytes());
        Ok((connection, sent))
    }

    /// Waits for the replies to a group of requests.
    fn receive(&mut self, node: NodeId, sent: io::Result<Sent>, mut group: Vec<&mut Attempt>) {
        let (mut connection, mut well) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                let text = format!("node {node} cannot be reached: {}", why(&error));
                let refusal = format!("ERROR {}", Failure::Unavailable(text));
                return group.iter_mut().for_each(|it| it.replied(refusal.clone()));
            }
        };
        for attempt in &mut group {
            // After the first error nothing comes any more over this connection.
            match well.and_then(|()| connection.receive()) {
                Ok(reply) => {
                    attempt.replied(reply);
                    well = Ok(());
                }
                Err(error) => {
                    attempt.lost(node, &error);
                    well = Err(error);
                }
            }
        }
        if well.is_err() {
            self.avoid(node);
        } else if !group.iter().any(|attempt| attempt.retry) {
            // A node may close a connection on which it refused something. A new one also brings news of the ring.
            self.connections.insert(node, connection);
        }
    }

    /// A connection to a node, on which no reply is outstanding.
    fn connection(&mut self, node: NodeId) -> io::Result<Client> {
        if let Some(open) = self.connections.remove(&node).filter(is_open) {
            return Ok(open);
        }
        // Another node may just have told that this one is no more.
        let address = self.addresses.get(&node).ok_or(io::ErrorKind::NotFound)?;
        let mut client = Client::connect(address, self.patience)?;
        let addresses = ask_ring(&mut client)?;
        if addresses != self.addresses {
            self.ring = ring_of(&addresses);
            self.addresses = addresses;
            self.avoided.clear();
        }
        Ok(client)
    }

    fn avoid(&mut self, node: NodeId) {
        self.avoided.insert(node, Instant::now() + AVOIDED);
    }
}

impl Attempt<'_> {
    fn new(request: &Request) -> Attempt<'_> {
        Attempt {
            request,
            tried: Vec::new(),
            reply: String::new(),
            retry: true,
        }
    }

    /// Takes the reply of a node. If that refused the request, another node is to be tried.
    fn replied(&mut self, reply: String) {
        self.retry = reply.starts_with("ERROR UNAVAILABLE") || reply.starts_with("ERROR BUSY");
        self.reply = reply;
    }

    /// The node may have received the request, and its reply will never come.
    fn lost(&mut self, node: NodeId, error: &io::Error) {
        let text = format!("node {node} did not reply: {}; read to see", why(error));
        self.reply = format!("ERROR {}", Failure::Unknown(text));
        let word = self.request.line.split_whitespace().next();
        self.retry = word.is_some_and(|word| word.eq_ignore_ascii_case("GET"));
    }
}

/// An error of a connection, for people: that of a wait in vain says little.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it takes too long".to_owned(),
        _ => error.to_string(),
    }
}

/// A ring whose preference lists name all nodes.
fn ring_of(addresses: &BTreeMap<NodeId, String>) -> Ring {
    Ring::new(addresses.keys().copied(), addresses.len())
}

/// Asks a node for the ring: all nodes, and the addresses where they serve clients.
fn ask_ring(node: &mut Client) -> io::Result<BTreeMap<NodeId, String>> {
    let lines = node.list("RING")?;
    let parse = |line: &String| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["NODE", id, _position, address, ..] => Some((id.parse().ok()?, address.to_owned())),
        _ => None,
    };
    let nodes: Option<BTreeMap<_, _>> = lines[..lines.len() - 1].iter().map(parse).collect();
    nodes.filter(|nodes| !nodes.is_empty()).ok_or_else(|| {
        let text = format!("no ring was told: {}", lines.join(" / "));
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// Whether the node has neither closed the connection nor said anything unasked: what is sent on a closed
/// connection might seem to have arrived.
fn is_open(client: &Client) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = recv(&client.sending, &mut [0; 1], flags);
    client.receiving.buffer().is_empty() && matches!(peeked, Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    const IDS: [u32; 3] = [5554, 5556, 5558];
    const PATIENCE: Duration = Duration::from_secs(20);

    /// What a node of the test does with a request.
    #[derive(Clone, Copy, PartialEq)]
    enum Does {
        /// It replies `OK` and its id.
        Serve,
        /// The same, and it closes the connection.
        ServeOnce,
        Say(&'static str),
        Close,
        Nothing,
        /// It cannot even be reached.
        Refuse,
    }

    /// Three nodes that the test plays.
    struct Nodes {
        addresses: BTreeMap<NodeId, String>,
        /// What they reply to `RING`.
        ring: Arc<Mutex<String>>,
        /// What else they received, and which of them.
        received: Arc<Mutex<Vec<(u32, String)>>>,
    }

    /// The nodes in the order of the key's preference list.
    fn list(key: &str) -> Vec<u32> {
        let ring = Ring::new(IDS.map(NodeId), 3);
        let list = ring.preference_list(&key.into());
        list.iter().map(|node| node.0).collect()
    }

    impl Nodes {
        /// What they do is given in the order of the preference list of `k`.
        fn start(does: [Does; 3]) -> Nodes {
            let mut nodes = Nodes {
                addresses: BTreeMap::new(),
                ring: Arc::default(),
                received: Arc::default(),
            };
            for (id, does) in list("k").into_iter().zip(does) {
                let address = nodes.add(id, does);
                nodes.addresses.insert(NodeId(id), address);
            }
            nodes.tell_ring();
            nodes
        }

        /// Starts a node on a port of its own.
        fn add(&self, id: u32, does: Does) -> String {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (ring, received) = (self.ring.clone(), self.received.clone());
            if does != Does::Refuse {
                thread::spawn(move || {
                    for stream in listener.incoming() {
                        let (ring, received) = (ring.clone(), received.clone());
                        thread::spawn(move || serve(stream.unwrap(), id, does, &ring, &received));
                    }
                });
            }
            address
        }

        fn tell_ring(&self) {
            let line = |(id, address): (&NodeId, &String)| {
                format!(
                    "NODE {id} {} {address} up\n",
                    crate::protocol::ring::Position::of_node(*id)
                )
            };
            let lines: String = self.addresses.iter().map(line).collect();
            *self.ring.lock().unwrap() = lines + "END 3\n";
        }

        fn client(&self, patience: Duration) -> RoutedClient {
            // Any node that can be reached will do.
            let addresses: Vec<_> = self.addresses.values().cloned().collect();
            RoutedClient::connect(&addresses, patience).unwrap()
        }

        /// Which nodes received a request, in this order.
        fn asked(&self) -> Vec<u32> {
            let received = self.received.lock().unwrap();
            received.iter().map(|(id, _)| *id).collect()
        }
    }

    fn serve(
        stream: TcpStream,
        id: u32,
        does: Does,
        ring: &Mutex<String>,
        received: &Mutex<Vec<(u32, String)>>,
    ) {
        let mut replies = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line == "RING" {
                let _ = replies.write_all(ring.lock().unwrap().as_bytes());
                continue;
            }
            received.lock().unwrap().push((id, line));
            let reply = match does {
                Does::Serve | Does::ServeOnce => format!("OK {id}\n"),
                Does::Say(reply) => format!("{reply}\n"),
                Does::Nothing => continue,
                Does::Close | Does::Refuse => return,
            };
            let _ = replies.write_all(reply.as_bytes());
            if does == Does::ServeOnce {
                return;
            }
        }
    }

    #[test]
    fn each_request_goes_to_the_coordinator_of_its_key_and_replies_keep_the_order() {
        let nodes = Nodes::start([Does::Serve; 3]);
        let keys: Vec<String> = (0..50).map(|number| format!("key{number}")).collect();
        let request = |key: &String| Request {
            key: key[..].into(),
            line: format!("PUT {key} v"),
        };
        let requests: Vec<_> = keys.iter().map(request).collect();
        let replies = nodes.client(PATIENCE).call_all(&requests);
        let expected: Vec<_> = keys
            .iter()
            .map(|key| format!("OK {}", list(key)[0]))
            .collect();
        assert_eq!(replies, expected);
        assert_eq!(nodes.asked().len(), keys.len());
    }

    #[test]
    fn a_refused_request_goes_to_the_next_node_of_the_list_and_after_the_last_its_refusal_is_told()
    {
        let [busy, unavailable] = ["ERROR BUSY x", "ERROR UNAVAILABLE x"].map(Does::Say);
        let nodes = Nodes::start([busy, unavailable, Does::Serve]);
        let list = list("k");
        assert_eq!(
            nodes.client(PATIENCE).call("k", "PUT k v"),
            format!("OK {}", list[2])
        );
        assert_eq!(nodes.asked(), list);
        let nodes = Nodes::start([unavailable, Does::Refuse, busy]);
        assert_eq!(nodes.client(PATIENCE).call("k", "PUT k v"), "ERROR BUSY x");
    }

    #[test]
    fn a_client_whose_first_node_is_dead_begins_with_another_and_a_dead_coordinator_gets_nothing() {
        let nodes = Nodes::start([Does::Refuse, Does::Serve, Does::Serve]);
        let list = list("k");
        let mut addresses = vec![nodes.addresses[&NodeId(list[0])].clone()];
        let dead = RoutedClient::connect(&addresses, PATIENCE).err().unwrap();
        assert_eq!(dead.kind(), io::ErrorKind::ConnectionRefused);
        addresses.push(nodes.addresses[&NodeId(list[2])].clone());
        let mut client = RoutedClient::connect(&addresses, PATIENCE).unwrap();
        assert_eq!(client.call("k", "PUT k v"), format!("OK {}", list[1]));
    }

    #[test]
    fn a_change_whose_reply_never_came_is_unknown_and_a_read_is_asked_elsewhere() {
        for line in ["PUT k v", "CAS k - v", "del k"] {
            let nodes = Nodes::start([Does::Close, Does::Serve, Does::Serve]);
            let reply = nodes.client(PATIENCE).call("k", line);
            assert!(reply.starts_with("ERROR UNKNOWN "), "{line}: {reply}");
            assert_eq!(nodes.asked(), list("k")[..1], "{line}");
        }
        let nodes = Nodes::start([Does::Close, Does::Serve, Does::Serve]);
        let list = list("k");
        let reply = nodes.client(PATIENCE).call("k", "get k");
        assert_eq!(reply, format!("OK {}", list[1]));
        assert_eq!(nodes.asked(), list[..2]);
    }

    #[test]
    fn a_silent_node_is_waited_for_once_and_then_avoided() {
        let nodes = Nodes::start([Does::Nothing, Does::Serve, Does::Serve]);
        let list = list("k");
        let mut client = nodes.client(Duration::from_secs(2));
        let reply = client.call("k", "PUT k v");
        assert!(reply.starts_with("ERROR UNKNOWN "), "{reply}");
        assert_eq!(client.call("k", "PUT k v"), format!("OK {}", list[1]));
        assert_eq!(nodes.asked(), list[..2]);
    }

    #[test]
    fn nothing_is_sent_on_a_connection_that_the_node_has_closed() {
        let nodes = Nodes::start([Does::ServeOnce, Does::Serve, Does::Serve]);
        let mut client = nodes.client(PATIENCE);
        let coordinator = list("k")[0];
        for _ in 0..3 {
            assert_eq!(client.call("k", "PUT k v"), format!("OK {coordinator}"));
            let until = Instant::now() + PATIENCE;
            while client.connections.values().any(is_open) {
                assert!(Instant::now() < until, "the close does not arrive");
                thread::yield_now();
            }
        }
    }

    #[test]
    fn the_ring_is_learnt_again_with_each_new_connection() {
        let mut nodes = Nodes::start([Does::Say("ERROR BUSY x"), Does::Serve, Does::Serve]);
        let list = list("k");
        let mut client = nodes.client(PATIENCE);
        assert_eq!(client.call("k", "PUT k v"), format!("OK {}", list[1]));
        let moved = nodes.add(list[0], Does::Serve);
        nodes.addresses.insert(NodeId(list[0]), moved);
        nodes.tell_ring();
        // The connection on which it refused is not used again. The new one tells where the node is by now.
        assert_eq!(client.call("k", "PUT k v"), format!("OK {}", list[1]));
        assert_eq!(client.call("k", "PUT k v"), format!("OK {}", list[0]));
    }

    #[test]
    fn a_node_that_tells_no_ring_is_not_taken_for_one() {
        let nodes = Nodes::start([Does::Serve; 3]);
        for reply in [
            "ERROR UNAVAILABLE it starts\n",
            "NODE x\nEND 1\n",
            "END 0\n",
        ] {
            *nodes.ring.lock().unwrap() = reply.to_owned();
            let addresses: Vec<_> = nodes.addresses.values().cloned().collect();
            let error = RoutedClient::connect(&addresses, PATIENCE).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{reply}");
        }
    }
}
