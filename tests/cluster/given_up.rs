//! So many folders are lost that no node can copy everything. An operator says that they are gone for good.

use crate::support::cluster::{Cluster, FIVE, THREE, eventually};

#[test]
fn after_two_lost_folders_of_a_range_the_operator_can_have_the_third_taken_for_the_truth() {
    let cluster = Cluster::start(&THREE);
    let (first, second, survivor) = (5554, 5556, 5558);
    for number in 0..50 {
        cluster.done(survivor, &format!("PUT key{number} v"));
    }
    cluster.await_keys(survivor, 50);
    for id in [first, second] {
        cluster.kill(id);
    }
    for id in [first, second] {
        cluster.wipe(id);
        cluster.start_node(id);
    }
    eventually("both log the way out", || {
        let names = |id, other| {
            cluster
                .log(id)
                .contains(&format!("once with --give-up {other}"))
        };
        (names(first, second) && names(second, first)).then_some(())
    });
    assert_eq!(cluster.stat(first, "votes").as_deref(), Some("no"));
    assert!(cluster.call(survivor, "PUT k v").starts_with("ERROR UN"));

    // Other nodes than those that lost their folders cannot be given up.
    cluster.kill(first);
    cluster.start_node_with_options(first, &["--give-up", "5558"]);
    assert_eq!(cluster.await_end(first).code(), Some(1));
    let log = cluster.end_of_log(first);
    assert!(
        log.contains("start this node once with --give-up 5556"),
        "{log}"
    );

    cluster.start_node_with_options(first, &["--give-up", "5556"]);
    cluster.await_ready(first);
    let log = cluster.log(first);
    let loss = "Writes that only 5554 and 5556 had are lost";
    assert!(log.contains(loss), "{log}");
    // The second node copies by itself.
    cluster.await_ready(second);
    cluster.kill(survivor);
    for number in 0..50 {
        let read = cluster.get(second, &format!("key{number}"));
        assert_eq!(read.as_deref(), Some("v"));
    }
    cluster.done(second, "PUT k v");
}

#[test]
fn a_node_whose_data_are_there_is_not_given_up() {
    let cluster = Cluster::start(&THREE);
    cluster.done(5554, "PUT k v");
    cluster.kill(5554);
    cluster.wipe(5554);
    cluster.start_node_with_options(5554, &["--give-up", "5556"]);
    assert_eq!(cluster.await_end(5554).code(), Some(1));
    let log = cluster.end_of_log(5554);
    assert!(
        log.contains("start this node once without --give-up"),
        "{log}"
    );
    cluster.restart(5554);
    assert_eq!(cluster.get(5554, "k").as_deref(), Some("v"));
}

#[test]
fn after_four_lost_folders_of_five_what_the_last_one_holds_is_kept() {
    let cluster = Cluster::start(&FIVE);
    let survivor = 5558;
    let keys: Vec<String> = cluster.keys_of(survivor).take(10).collect();
    for key in &keys {
        cluster.done(survivor, &format!("PUT {key} v"));
    }
    cluster.await_keys(survivor, 10);
    let lost: Vec<u32> = FIVE.into_iter().filter(|id| *id != survivor).collect();
    lost.iter().for_each(|id| cluster.kill(*id));
    for id in &lost {
        cluster.wipe(*id);
        cluster.start_node(*id);
    }
    for id in &lost {
        // The log says whom to give up. A node that is back meanwhile cannot be given up: a start with too
        // many names is refused with an error.
        let named = || {
            let log = cluster.log(*id);
            let (_, names) = log.rsplit_once("once with")?;
            let names = names.strip_prefix(" --give-up ")?.split('.').next()?;
            Some(names.to_owned())
        };
        eventually(&format!("{id} votes"), || {
            if cluster.stat(*id, "votes").as_deref() == Some("yes") {
                return Some(());
            }
            let names = named()?;
            cluster.kill(*id);
            cluster.start_node_with_options(*id, &["--give-up", &names]);
            let ended = eventually("it votes or ends", || {
                let votes = cluster.stat(*id, "votes").as_deref() == Some("yes");
                (votes || cluster.has_ended(*id)).then_some(!votes)
            });
            if ended {
                cluster.await_end(*id);
                cluster.start_node(*id);
            }
            None
        });
    }
    cluster.await_all_ready();
    for key in &keys {
        assert_eq!(cluster.get(lost[0], key).as_deref(), Some("v"));
        cluster.done(lost[0], &format!("PUT {key} w"));
    }
}
