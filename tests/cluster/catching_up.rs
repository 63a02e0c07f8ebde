//! A node that catches up is sent little more than it missed, and disturbs nobody.

use std::thread;
use std::time::{Duration, Instant};

use simple_dynamo::bytes::MAX_VALUE;

use crate::support::cluster::{Plan, THREE};

/// A node that asks for more at a time than arrives within a time-out would take the peer for silent, give
/// all of it up, and ask for it once more.
#[test]
fn large_values_that_a_node_missed_are_sent_to_it_once() {
    let cluster = Plan::of(&THREE).proxied().start();
    let absent = 5558;
    cluster.kill(absent);
    let large = "x".repeat(MAX_VALUE);
    let mut client = cluster.client(5554);
    let count = 60;
    for number in 0..count {
        let reply = client.call(&format!("PUT key{number} {large}")).unwrap();
        assert!(reply.starts_with("OK "), "{reply}");
    }
    let before = cluster.network().carried();
    cluster.start_node(absent);
    cluster.await_keys(absent, count);
    cluster.await_ready(absent);
    let carried = cluster.network().carried() - before;
    let missed = (count * MAX_VALUE) as u64;
    assert!(
        carried < missed + missed / 2,
        "{carried} bytes were sent for {missed} that were missed"
    );
}

/// When a node pulls a state and a write replaces it meanwhile, no refresh is needed.
#[test]
fn listings_beside_writers_need_no_refreshes() {
    let cluster = Plan::of(&THREE).start();
    let refreshes = || -> u64 {
        let of = |id| cluster.stat(id, "keys_restored").unwrap().parse::<u64>();
        THREE.into_iter().map(|id| of(id).unwrap()).sum()
    };
    let before = refreshes();
    let until = Instant::now() + Duration::from_secs(4);
    let listings: usize = thread::scope(|scope| {
        for writer in 0..8 {
            let mut client = cluster.client(THREE[writer % THREE.len()]);
            scope.spawn(move || {
                for number in (writer..).take_while(|_| Instant::now() < until) {
                    let reply = client.call(&format!("PUT hot{} x", number % 4)).unwrap();
                    assert!(reply.starts_with("OK "), "{reply}");
                }
            });
        }
        let list = |id| {
            let own = || cluster.list(id, "GET @").expect("all others answer");
            let until_then = || (Instant::now() < until).then(own);
            std::iter::from_fn(until_then).count()
        };
        let lists = THREE.map(|id| scope.spawn(move || list(id)));
        lists.into_iter().map(|it| it.join().unwrap()).sum()
    });
    let refreshed = refreshes() - before;
    println!("{listings} listings, {refreshed} refreshes");
    assert!(listings > 0);
    assert!(
        refreshed < 5,
        "{refreshed} refreshes in {listings} listings"
    );
}
