//! A store that holds as much data as it may says so, loses nothing, and takes more once some is
//! deleted.

mod support;

use support::cluster::{Cluster, FIVE, Plan, eventually};

/// Some sixty of them are all that a node may hold here.
const VALUE: usize = 16 << 10;

/// Nodes that may hold one MiB each, and soon forget what is deleted.
fn small() -> Cluster {
    let plan = Plan::of(&FIVE).set("data_memory_mib", 1);
    let plan = plan.set("request_deadline_ms", 400);
    let plan = plan.set("tombstone_age_ms", 800);
    plan.set("anti_entropy_ms", 100).start()
}

fn put(cluster: &Cluster, id: u32, key: &str) -> Result<(), String> {
    let value = "x".repeat(VALUE);
    let reply = cluster.call(id, &format!("PUT {key} {value}"));
    if reply.starts_with("OK ") {
        Ok(())
    } else {
        Err(reply)
    }
}

fn is_full(cluster: &Cluster, id: u32) -> bool {
    cluster.stat(id, "full").as_deref() == Some("yes")
}

/// Puts keys of one coordinator, until it says that there is no room. Returns those that it took.
fn fill(cluster: &Cluster, coordinator: u32) -> Vec<String> {
    let mut taken = Vec::new();
    for key in cluster.keys_of(coordinator) {
        if let Err(reply) = put(cluster, 5554, &key) {
            assert!(reply.starts_with("ERROR BUSY node "), "{reply}");
            assert!(reply.contains("data_memory_mib"), "{reply}");
            return taken;
        }
        taken.push(key);
        assert!(taken.len() < 1000, "a thousand keys, and still room");
    }
    unreachable!("there are always more keys");
}

#[test]
fn a_full_store_takes_no_more_tells_what_it_has_and_lets_it_be_deleted() {
    let cluster = small();
    let coordinator = 5558;
    let taken = fill(&cluster, coordinator);
    assert!(taken.len() > 50, "only {}", taken.len());
    let replicas = cluster.replicas(&taken[0]);
    let bytes = |id| -> usize { cluster.stat(id, "data_bytes").unwrap().parse().unwrap() };
    let held = replicas.iter().map(|id| bytes(*id)).max().unwrap();
    // What came in before the full node had told so, one request at a time.
    assert!(held < 8 << 20, "{held} bytes");
    let new = cluster.keys_of(coordinator).nth(taken.len() + 5).unwrap();
    for request in ["PUT {} x", "CAS {} - x", "DEL {}"] {
        let reply = cluster.call(5556, &request.replace("{}", &new));
        assert!(reply.starts_with("ERROR BUSY "), "{request}: {reply}");
    }
    assert_eq!(cluster.get(5560, &new), None);
    for key in &taken {
        assert_eq!(cluster.get(5562, key).map(|value| value.len()), Some(VALUE));
    }
    for key in &taken {
        cluster.done(5554, &format!("DEL {key}"));
        assert_eq!(cluster.get(5556, key), None);
    }
    eventually("there is room again", || put(&cluster, 5554, &new).ok());
    let size = cluster.get(5556, &new).map(|value| value.len());
    assert_eq!(size, Some(VALUE));
}

/// A node holds the keys of three coordinators, and each of these may hold much less than it.
#[test]
fn a_full_replica_is_heeded_by_coordinators_that_have_room() {
    let cluster = small();
    let ring: Vec<u32> = cluster.replicas(&cluster.keys_of(5554).next().unwrap());
    let [first, _, full] = ring[..] else {
        panic!("{ring:?}");
    };
    // Half as much for the two before it as for itself: it is a replica of both.
    let mut keys_of_first = cluster.keys_of(first);
    let mut keys_of_full = cluster.keys_of(full);
    let mut count = 0;
    loop {
        let keys = if count % 2 == 0 {
            &mut keys_of_first
        } else {
            &mut keys_of_full
        };
        if put(&cluster, 5554, &keys.next().unwrap()).is_err() {
            break;
        }
        count += 1;
        assert!(count < 1000, "a thousand keys, and still room");
    }
    assert!(is_full(&cluster, full) && !is_full(&cluster, first));
    let busy = |key: &str| {
        // Small ones, lest the coordinator is full before it hears.
        let reply = cluster.call(first, &format!("PUT {key} x"));
        let full = reply.starts_with(&format!("ERROR BUSY node {full}, "));
        assert!(full || reply.starts_with("OK "), "{reply}");
        full.then_some(())
    };
    eventually("the coordinator has heard", || {
        busy(&keys_of_first.next().unwrap())
    });
    // Silent, it holds up nobody.
    cluster.kill(full);
    let key = keys_of_first.next().unwrap();
    eventually("its absence is noticed", || put(&cluster, first, &key).ok());
    // It tells again when it is back,
    cluster.restart(full);
    eventually("the coordinator has heard again", || {
        busy(&keys_of_first.next().unwrap())
    });
    // and those that were away themselves.
    cluster.kill(first);
    cluster.restart(first);
    eventually("the coordinator has heard after its start", || {
        busy(&keys_of_first.next().unwrap())
    });
}
