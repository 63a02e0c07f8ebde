//! Groups: requests that are wrong, and more of everything than there may be.

use simple_dynamo::bytes::Value;
use simple_dynamo::protocol::Change;
use simple_dynamo::protocol::Operation;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::transport::Request;

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::impostor::Impostor;
use crate::support::members::Member;
use crate::support::usage::Usage;

#[test]
fn wrong_requests_about_groups_are_told_why_and_the_connection_goes_on() {
    let cluster = Cluster::start(&FIVE);
    cluster.say(5554, "g", "one");
    let mut client = cluster.client(5556);
    let wrong = [
        ("JOIN a/b", "ERROR SYNTAX a group is named by "),
        ("JOIN #", "ERROR SYNTAX a group is named by "),
        ("NICK two words", "ERROR SYNTAX a nick is named by "),
        (
            "SAY g \"a\\u0007\"",
            "ERROR SYNTAX a message must not contain control ",
        ),
        ("SEND g s/0/0 x", "ERROR SYNTAX \"0\" is no number from 1 "),
        ("SEND g s/2/1 x", "ERROR SYNTAX nobody was shown message 2 "),
        ("JOIN g AFTER 2", "CONFLICT 1"),
        ("PUT #g x", "ERROR SYNTAX keys that begin with # "),
        ("DEL #g", "ERROR SYNTAX keys that begin with # "),
        ("CAS #g/0 - x", "ERROR SYNTAX keys that begin with # "),
    ];
    for (request, start) in wrong {
        let reply = client.call(request).unwrap();
        assert!(reply.starts_with(start), "{request}: {reply}");
    }
    let long = client.call(&format!("SAY g {}", "x".repeat(1100))).unwrap();
    assert!(
        long.starts_with("ERROR SYNTAX the message has 1102 bytes"),
        "{long}"
    );
    client.send(b"SAY g \xff\xfe\n").unwrap();
    assert!(client.receive().unwrap().starts_with("ERROR SYNTAX "));
    assert_eq!(client.list("HISTORY none").unwrap(), ["END 0"]);
    assert_eq!(client.call("LEAVE none").unwrap(), "OK");
    // Without NICK there is a nick, and a second JOIN begins anew.
    let mut member = Member::join(&cluster, 5556, "g", "LAST 5");
    assert_eq!(member.next(), "one");
    let (joined, texts) = member.call("JOIN g");
    assert_eq!((joined.as_str(), texts.len()), ("JOINED g 1", 0));
    assert_eq!(cluster.say(5554, "g", "two"), 2);
    assert_eq!(member.next(), "two");
    assert_eq!(member.call("LEAVE g").0, "OK");
    cluster.say(5556, "g", "three");
    assert_eq!(member.client.call("PING").unwrap(), "PONG");
    let members = cluster.list(5558, "WHO g").unwrap();
    assert!(members.is_empty(), "{members:?}");
    let history = cluster.list(5558, "HISTORY g").unwrap();
    assert!(history[0].contains(" guest-5554-"), "{history:?}");
}

#[test]
fn the_keys_of_groups_are_in_no_listing_and_get_shows_them() {
    let cluster = Cluster::start(&FIVE);
    for text in 0..40 {
        cluster.say(5554, "g", &text.to_string());
    }
    cluster.done(5554, "PUT k v");
    let all = cluster.list(5556, "GET *").unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        FIVE.iter()
            .all(|&id| !cluster.own_keys(id).iter().any(|key| key.starts_with('#')))
    );
    assert!(
        cluster
            .get(5558, "#g")
            .unwrap()
            .starts_with("{\"next\":41,")
    );
    eventually("the first page is stored", || cluster.get(5558, "#g/0"));
    assert_eq!(cluster.done(5560, "DEL *"), "1");
    assert_eq!(cluster.history(5560, "g", 0).len(), 40);
}

#[test]
fn a_name_whose_key_holds_something_else_is_refused_with_a_clear_error() {
    let cluster = Cluster::start(&FIVE);
    let from = 5562;
    let coordinator = *cluster
        .replicas("#x")
        .iter()
        .find(|id| **id != from)
        .unwrap();
    cluster.kill(from);
    let mut impostor = Impostor::greet(&cluster, from, coordinator);
    let change = Change::Put(Value::from("something else"));
    let dot = Dot {
        origin: NodeId(from),
        sequence: 1 << 50,
    };
    impostor.ask(Request::Coordinate {
        key: "#x".into(),
        operation: Operation::Write { dot, change },
        seen: None,
        vouched: None,
    });
    eventually("the value is there", || cluster.get(5554, "#x"));
    for request in ["SAY x a", "SEND x s/0/1 a", "JOIN x", "HISTORY x", "TRIM x"] {
        let reply = cluster.call(5554, request);
        assert!(
            reply.starts_with("ERROR SYNTAX the key #x holds something else"),
            "{request}: {reply}"
        );
    }
    assert_eq!(cluster.get(5554, "#x").as_deref(), Some("something else"));
}

#[test]
fn a_connection_is_in_sixteen_groups_and_a_node_has_members_of_256() {
    let cluster = Cluster::start(&FIVE);
    let mut clients: Vec<_> = (0..16).map(|_| cluster.client(5554)).collect();
    for group in 0..256 {
        let reply = clients[group / 16].call(&format!("JOIN g{group}")).unwrap();
        assert_eq!(reply, format!("JOINED g{group} 0"));
    }
    let one_more = clients[0].call("JOIN other").unwrap();
    assert!(
        one_more.starts_with("ERROR BUSY a connection is in at most 16 groups"),
        "{one_more}"
    );
    assert_eq!(clients[0].call("JOIN g0").unwrap(), "JOINED g0 0");
    let mut other = cluster.client(5554);
    let full = other.call("JOIN other").unwrap();
    assert!(
        full.starts_with("ERROR BUSY 256 groups have members at node 5554"),
        "{full}"
    );
    assert_eq!(other.call("JOIN g7").unwrap(), "JOINED g7 0");
    assert_eq!(cluster.stat(5554, "groups").as_deref(), Some("256"));
    assert_eq!(cluster.list(5554, "GROUPS").unwrap().len(), 256);
    assert_eq!(other.call("SAY other x").unwrap(), "OK 1");
    drop(clients);
    eventually("the groups of the clients that left are gone", || {
        (cluster.stat(5554, "groups")? == "1").then_some(())
    });
    assert_eq!(other.call("JOIN other").unwrap(), "JOINED other 1");
}

#[test]
fn a_full_store_refuses_messages_and_takes_them_again_once_a_group_is_trimmed() {
    let plan = Plan::of(&FIVE).set("data_memory_mib", 1);
    let cluster = plan.set("request_deadline_ms", 1000).start();
    let mut client = cluster.client(5554);
    let mut member = Member::join(&cluster, 5556, "g", "");
    let text = "x".repeat(1000);
    let mut said = 0;
    let full = eventually("the store is full", || {
        for _ in 0..20 {
            let reply = client.call(&format!("SAY g {text}")).unwrap();
            match reply.strip_prefix("OK ") {
                Some(_) => said += 1,
                None => return Some(reply),
            }
        }
        None
    });
    assert!(full.starts_with("ERROR BUSY "), "{full}");
    assert_eq!(member.up_to(said).len() as u64, said);
    assert_eq!(cluster.history(5558, "g", 0).len() as u64, said);
    assert_eq!(cluster.done(5560, "TRIM g"), said.to_string());
    eventually("something is said again", || {
        let reply = client.call("SAY g again").ok()?;
        (reply == format!("OK {}", said + 1)).then_some(())
    });
    assert_eq!(member.next(), "again");
}

#[test]
fn a_member_learns_that_its_node_cannot_read_the_group_and_goes_on_when_it_can() {
    let cluster = Cluster::start(&FIVE);
    let replicas = cluster.replicas("#g");
    let outside = cluster.ids().find(|id| !replicas.contains(id)).unwrap();
    let mut member = Member::join(&cluster, outside, "g", "");
    let dead = &replicas[..2];
    dead.iter().for_each(|&id| cluster.kill(id));
    assert_eq!(member.client.receive().unwrap(), "BEHIND g");
    let present = cluster.list(outside, "WHO g").unwrap();
    let silent = dead.iter().map(|id| format!("SILENT {id}"));
    assert!(
        silent.clone().all(|line| present.contains(&line)),
        "{present:?}"
    );
    assert_eq!(present.len(), 3, "{present:?}");
    let refused = cluster.call(outside, "JOIN g");
    assert!(refused.starts_with("ERROR UNAVAILABLE "), "{refused}");
    dead.iter().for_each(|&id| cluster.start_node(id));
    cluster.await_all_ready();
    cluster.say(replicas[2], "g", "on");
    assert_eq!(member.next(), "on");
}

#[test]
fn a_thousand_members_at_one_node_are_all_told() {
    const MEMBERS: usize = 1000;
    let cluster = Cluster::start(&THREE);
    let mut members: Vec<Member> = (0..MEMBERS)
        .map(|_| Member::join(&cluster, 5554, "g", ""))
        .collect();
    assert_eq!(cluster.list(5556, "WHO g").unwrap().len(), MEMBERS);
    for text in 1..=20 {
        assert_eq!(cluster.say(5556, "g", &text.to_string()), text);
    }
    for member in &mut members {
        assert_eq!(member.up_to(20).len(), 20);
    }
}

#[test]
fn ten_thousand_groups_are_spoken_in_and_take_no_memory_afterwards() {
    const GROUPS: usize = 10_000;
    let cluster = Cluster::start(&THREE);
    let before = Usage::of(cluster.pid(5554)).unwrap().resident;
    let mut client = cluster.client(5554);
    let groups: Vec<String> = (0..GROUPS)
        .map(|group| format!("SAY g{group} x\n"))
        .collect();
    for some in groups.chunks(500) {
        client.send(some.concat().as_bytes()).unwrap();
        for _ in some {
            assert_eq!(client.receive().unwrap(), "OK 1");
        }
    }
    let taken = Usage::of(cluster.pid(5554)).unwrap().resident - before;
    assert!(taken < 32 << 20, "the node grew by {taken} bytes");
    assert_eq!(cluster.stat(5554, "groups").as_deref(), Some("0"));
    assert_eq!(client.call("SAY g7 y").unwrap(), "OK 2");
}
