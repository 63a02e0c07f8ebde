//! Sizes: a cluster of any size takes only a cluster file, and a wrong file is refused with the reason.

use std::fs;

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, dynamo};
use crate::support::process;

/// Every node reads what every fifth one wrote, and lists all of it, before and after a crash.
fn works(cluster: &Cluster, victims: &[u32]) {
    let ids: Vec<u32> = cluster.ids().collect();
    for (number, &id) in ids.iter().enumerate().step_by(ids.len().div_ceil(5)) {
        cluster.done(id, &format!("PUT key{number} {number}"));
        for &other in &ids {
            assert_eq!(
                cluster.get(other, &format!("key{number}")),
                Some(number.to_string())
            );
        }
    }
    let count = cluster.list(ids[0], "GET *").unwrap().len();
    victims.iter().for_each(|&id| cluster.kill(id));
    let survivor = *ids.iter().find(|id| !victims.contains(id)).unwrap();
    for number in 0..20 {
        cluster.done(survivor, &format!("PUT after{number} {number}"));
    }
    assert_eq!(cluster.list(survivor, "GET *").unwrap().len(), count + 20);
    victims.iter().for_each(|&id| cluster.restart(id));
    let again = cluster.list(victims[0], "GET *").unwrap();
    assert_eq!(again.len(), count + 20);
}

#[test]
fn three_nodes_work_and_survive_one() {
    works(&Cluster::start(&THREE), &[5554]);
}

#[test]
fn seven_nodes_work_and_survive_one() {
    works(&Cluster::start(&[1, 2, 3, 4, 5, 6, 7]), &[4]);
}

#[test]
fn twenty_nodes_work_and_survive_one() {
    let ids: Vec<u32> = (101..=120).collect();
    works(&Cluster::start(&ids), &[107]);
}

#[test]
fn five_replicas_of_each_key_survive_two() {
    let quorums = [("replicas", 5), ("read_quorum", 3), ("write_quorum", 3)];
    let plan = quorums
        .into_iter()
        .fold(Plan::of(&FIVE), |plan, (name, value)| plan.set(name, value));
    let cluster = plan.start();
    works(&cluster, &[5556, 5562]);
    for id in FIVE {
        assert_eq!(cluster.replicas("foo").len(), 5);
        assert_eq!(cluster.own_pairs(id).len(), 25, "on {id}");
    }
}

#[test]
fn a_good_file_is_printed_and_a_wrong_one_is_refused_with_what_is_wrong_and_where() {
    let cluster = Plan::of(&THREE).lay_out();
    let file = cluster.file(5554);
    let run = || {
        let output = process::run(&mut dynamo(&["nodes"], &file), "");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = run();
    assert_eq!((code, text.lines().count()), (0, 3), "{text}");
    let nodes = r#""nodes": [{"id": 1, "client_port": 7001}, {"id": 2, "client_port": 7011}, {"id": 3, "client_port": 7021}]"#;
    let cases = [
        (
            "{\n  \"nodes\": [,]\n}".to_owned(),
            "expected value at line 2 column 13",
        ),
        (
            format!("{{{nodes}, \"colour\": 1}}"),
            "unknown field `colour`",
        ),
        (
            r#"{"nodes": [{"id": 1}]}"#.to_owned(),
            "replicas is 3, but there are 1 nodes",
        ),
        (
            format!("{{{nodes}, \"read_quorum\": 1}}"),
            "a read could miss the last write",
        ),
        (
            format!("{{{nodes}, \"write_quorum\": 1}}"),
            "two writes could miss each other",
        ),
        (
            format!("{{{}}}", nodes.replace("7011", "7001")),
            "nodes[1]: 127.0.0.1:7001 appears twice",
        ),
        (
            format!("{{{}}}", nodes.replace("2,", "1,")),
            "nodes[1]: id 1 appears twice",
        ),
        (
            format!("{{{}}}", nodes.replace("7021", "70210")),
            "invalid value: integer `70210`",
        ),
    ];
    for (content, expected) in cases {
        fs::write(&file, &content).unwrap();
        let (code, text) = run();
        let file = file.display();
        let start = format!("error: invalid value '{file}' for '--cluster <FILE>': {file}: ");
        assert!(
            code == 2 && text.starts_with(&start) && text.contains(expected),
            "{content}: {code}: {text}"
        );
    }
    fs::remove_file(&file).unwrap();
    assert!(run().1.contains("No such file"), "{}", run().1);
    let stranger = process::run(&mut dynamo(&["node", "9"], &cluster.file(5556)), "");
    let text = String::from_utf8(stranger.stderr).unwrap();
    assert_eq!(
        text,
        "error: node 9 is not in the cluster; its nodes are 5554 5556 5558\n"
    );
}
