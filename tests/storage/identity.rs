//! The identity of a folder: which node it belongs to, and whether its votes can be trusted.

use std::sync::Arc;

use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::storage::disk::{Disk, Folder};
use simple_dynamo::storage::{Hooks, Identity, Progress, Standing, Store, SyncMode};

use crate::support::faulty_disk::{Fault, FaultyDisk, LOSSES, Loss};
use crate::support::witness::{CLUSTER, NODE, Opened, accept, open, ring};

/// A whole folder that holds a vote.
fn folder(seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    let opened = open(disk.power_on()).unwrap();
    let whole = |identity: &mut Identity| identity.standing = Standing::Whole;
    opened.store.change_identity(whole).unwrap();
    opened.vote(&"k".into(), accept(&"k".into(), 1));
    opened.store.snapshot().unwrap();
    opened.vote(&"k".into(), accept(&"k".into(), 2));
    opened.store.close();
    disk.lose_power(Loss::Everything);
    disk
}

fn identity(disk: &FaultyDisk) -> Identity {
    Identity::open(disk.power_on().as_ref(), NODE, CLUSTER).unwrap()
}

fn refusal(disk: &FaultyDisk, node: u32, cluster: &str) -> String {
    let hooks = Hooks {
        deliver: Box::new(|_| ()),
        failed: Box::new(|_| ()),
    };
    let opened = Store::open(
        disk.power_on(),
        NodeId(node),
        cluster,
        ring(),
        SyncMode::Always,
        hooks,
        &Progress::default(),
    );
    match opened {
        Ok(_) => panic!("a folder that should be refused was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_folder_keeps_its_name_and_its_standing() {
    let disk = FaultyDisk::new(1);
    let opened = open(disk.power_on()).unwrap();
    let first = opened.store.identity().clone();
    assert_eq!(first.standing, Standing::New);
    let other = identity(&FaultyDisk::new(1));
    assert_ne!(
        first.storage, other.storage,
        "each folder has a name of its own"
    );
    opened.store.close();
    disk.lose_power(Loss::Everything);
    assert_eq!(identity(&disk), first);
    let changed = |identity: &mut Identity| {
        identity.standing = Standing::Whole;
        identity.peers.insert(NodeId(5556), other.storage.clone());
    };
    let opened = open(disk.power_on()).unwrap();
    opened.store.change_identity(changed).unwrap();
    disk.lose_power(Loss::Everything);
    opened.store.close();
    assert_eq!(identity(&disk).standing, Standing::Whole);
    assert_eq!(identity(&disk).peers[&NodeId(5556)], other.storage);
    assert_eq!(identity(&disk).storage, first.storage);
}

#[test]
fn a_change_of_the_identity_happens_whole_or_not_at_all() {
    for (seed, step) in (0..20).flat_map(|seed| (1..=6).map(move |step| (seed, step))) {
        for loss in LOSSES {
            let disk = folder(seed);
            let opened = open(disk.power_on()).unwrap();
            let before = opened.store.identity().clone();
            disk.fail_at(step, Fault::PowerOff);
            let lost = |identity: &mut Identity| identity.standing = Standing::Lost;
            let changed = opened.store.change_identity(lost);
            assert_eq!(changed.is_ok(), step == 6, "it has five steps");
            disk.lose_power(loss);
            opened.store.close();
            let after = identity(&disk);
            assert!([Standing::Whole, Standing::Lost].contains(&after.standing));
            assert_eq!(after.storage, before.storage);
        }
    }
}

#[test]
fn a_foreign_folder_is_refused_and_left_as_it_is() {
    let disk = folder(1);
    let before: Vec<_> = disk.names();
    let text = refusal(&disk, 5556, CLUSTER);
    assert!(text.contains("5554") && text.contains("5556"), "{text}");
    let text = refusal(&disk, 5554, "seven nodes");
    assert!(
        text.contains(CLUSTER) && text.contains("seven nodes"),
        "{text}"
    );
    assert_eq!(disk.names(), before);
}

#[test]
fn data_without_an_identity_are_refused() {
    let disk = folder(1);
    disk.take("identity.json");
    let text = refusal(&disk, 5554, CLUSTER);
    assert!(text.contains("identity.json"), "{text}");
}

/// A node that has voted has a log at least.
#[test]
fn a_whole_folder_without_any_data_is_refused() {
    let disk = folder(1);
    for name in disk.names() {
        if name != "identity.json" {
            disk.take(&name);
        }
    }
    let text = refusal(&disk, 5554, CLUSTER);
    let helped = text.contains("log.000001: the file is missing") && text.contains("--rebuild");
    assert!(helped, "{text}");
}

#[test]
fn an_identity_that_cannot_be_read_is_refused_by_its_name_and_says_what_to_do() {
    let disk = folder(1);
    disk.put("identity.json", b"{\"node\": 55");
    let text = refusal(&disk, 5554, CLUSTER);
    assert!(
        text.contains("identity.json") && text.contains("--rebuild"),
        "{text}"
    );
}

#[test]
fn a_discarded_folder_is_empty_and_knows_that_it_lost_something() {
    let disk = folder(1);
    let before = identity(&disk);
    Identity::discard(disk.power_on().as_ref(), NODE, CLUSTER).unwrap();
    disk.lose_power(Loss::Everything);
    let opened = open(disk.power_on()).unwrap();
    assert_eq!(opened.store.count(), 0);
    assert_eq!(opened.store.identity().standing, Standing::Lost);
    assert_ne!(opened.store.identity().storage, before.storage);
}

/// Otherwise a node that was interrupted while it discarded its folder would vote with the rest.
#[test]
fn a_folder_that_was_discarded_in_part_never_counts_as_whole() {
    for (seed, step) in (0..10).flat_map(|seed| (1..12).map(move |step| (seed, step))) {
        for loss in LOSSES {
            let disk = folder(seed);
            disk.fail_at(step, Fault::PowerOff);
            let discarded = Identity::discard(disk.power_on().as_ref(), NODE, CLUSTER);
            disk.lose_power(loss);
            let Ok(opened) = open(disk.power_on()) else {
                continue;
            };
            let standing = opened.store.identity().standing;
            let when = format!("step {step}, {loss:?}, seed {seed}: {standing:?}");
            assert!(discarded.is_err() || standing == Standing::Lost, "{when}");
            assert!(
                standing != Standing::Whole || holds_the_votes(&opened),
                "{when}"
            );
            opened.store.close();
        }
    }
}

fn holds_the_votes(opened: &Opened) -> bool {
    let records = opened.records();
    let record = records.get(&"k".into());
    record.is_some_and(|record| record.promised.round == 2)
}

/// `--data` is easily mistyped.
#[test]
fn what_is_not_the_nodes_own_is_not_discarded() {
    let disk = folder(1);
    let before = disk.names();
    assert!(Identity::discard(disk.power_on().as_ref(), NodeId(5556), CLUSTER).is_err());
    assert_eq!(disk.names(), before, "another node's folder");
    let disk = FaultyDisk::new(1);
    disk.put("thesis.tex", b"");
    let _ = Identity::discard(disk.power_on().as_ref(), NODE, CLUSTER);
    assert!(
        disk.names().contains(&"thesis.tex".to_owned()),
        "somebody's file"
    );
}

/// Nobody would notice that it forgot its votes, since its storage id was not lost.
#[test]
#[should_panic(expected = "a node that votes changes records by votes only")]
fn a_node_that_has_voted_does_not_discard_its_records() {
    let disk = FaultyDisk::new(1);
    let opened = open(disk.power_on()).unwrap();
    opened.vote(&"k".into(), accept(&"k".into(), 1));
    let _ = opened.store.discard(ring());
}

#[test]
fn a_node_that_has_not_voted_discards_its_records_durably() {
    let disk = folder(1);
    let opened = open(disk.power_on()).unwrap();
    opened.store.discard(ring()).unwrap();
    disk.lose_power(Loss::Everything);
    opened.store.close();
    let again = open(disk.power_on()).unwrap();
    assert_eq!(again.store.count(), 0);
    assert_eq!(again.store.identity().standing, Standing::Lost);
}

#[test]
fn a_start_clears_away_its_own_unfinished_files_and_nobody_elses() {
    let disk = folder(1);
    let own = ["identity.json.tmp", "log.000009.tmp", "snapshot.000009.tmp"];
    for name in own {
        disk.put(name, b"");
    }
    disk.put("thesis.tmp", b"");
    open(disk.power_on()).unwrap().store.close();
    let names = disk.names();
    assert!(names.contains(&"thesis.tmp".to_owned()), "{names:?}");
    assert!(
        !own.iter().any(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );
}

#[test]
fn a_file_whose_name_only_resembles_that_of_a_log_is_nobodys_business() {
    let others = [
        "log.1",
        "log.0000001",
        "log.+00001",
        "snapshot.9",
        "log.1.tmp",
    ];
    let put = |disk: &FaultyDisk| others.map(|name| disk.put(name, b"somebody's own"));
    // In an empty folder, and in one with data.
    let disk = FaultyDisk::new(1);
    put(&disk);
    let node = open(disk.power_on()).unwrap_or_else(|error| panic!("{error}"));
    node.vote(&"k".into(), accept(&"k".into(), 1));
    node.store.snapshot().unwrap();
    node.vote(&"k".into(), accept(&"k".into(), 2));
    node.store.close();
    let node = open(disk.power_on()).unwrap_or_else(|error| panic!("{error}"));
    assert!(node.records().contains_key(&"k".into()));
    node.store.close();
    for name in others {
        assert_eq!(disk.content(name), b"somebody's own", "{name}");
    }
}

#[test]
fn a_folder_is_open_in_one_place_at_a_time_and_holds_all_votes() {
    let path = std::env::temp_dir().join(format!("dynamo-identity-{}", std::process::id()));
    let folder = Folder::open(&path).unwrap();
    let second = Folder::open(&path).err().expect("the folder is in use");
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    let opened = open(Arc::new(folder)).unwrap();
    opened.vote(&"k".into(), accept(&"k".into(), 1));
    opened.store.snapshot().unwrap();
    opened.vote(&"k".into(), accept(&"k".into(), 2));
    opened.store.close();
    let records = opened.records();
    drop(opened);
    let folder = Folder::open(&path).expect("free again once the store is gone");
    assert!(folder.list().unwrap().contains(&"identity.json".to_owned()));
    let again = open(Arc::new(folder)).unwrap();
    assert_eq!(again.records(), records);
    again.store.close();
    drop(again);
    std::fs::remove_dir_all(&path).unwrap();
}
