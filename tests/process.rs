//! The process: how it ends, and what keeps it from starting.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use support::cluster::{Cluster, Plan, THREE, dynamo, eventually};
use support::process::run;

/// A release does not even read these: `.ci/run` shows that it starts with all of them.
#[cfg(debug_assertions)]
#[test]
fn a_wrong_switch_for_tests_ends_a_node_that_obeys_them() {
    let wrong = [
        ("DYNAMO_LEAVE_OUT", "NoSuchRule", "there is no such rule"),
        ("DYNAMO_CRASH_AT", "Nowhere:1", "is no POINT:COUNT"),
        ("DYNAMO_SNAPSHOT_AFTER", "soon", "is no number of bytes"),
        ("DYNAMO_PUSHES", "some", "is no \"PERCENT MILLIS\""),
    ];
    let cluster = Plan::of(&THREE).lay_out();
    for (name, value, complaint) in wrong {
        cluster.start_node_with(5554, &[(name, value)]);
        assert_eq!(cluster.await_end(5554).code(), Some(1));
        let expected = format!("{name}={value}");
        let log = cluster.log(5554);
        assert!(log.contains(&expected) && log.contains(complaint), "{log}");
    }
}

#[test]
fn after_sigterm_requests_under_way_are_answered_and_the_node_ends_with_success() {
    let cluster = Cluster::start(&THREE);
    let mut client = cluster.client(5554);
    let version = client.call("PUT k v").unwrap().replace("OK ", "");
    // With both other replicas silent the request takes as long as its deadline allows.
    cluster.pause(5556);
    cluster.pause(5558);
    client.send(b"GET k\n").unwrap();
    eventually("the request is under way", || {
        (cluster.stat(5554, "requests_in_flight")? == "1").then_some(())
    });
    let status = cluster.terminate(5554);
    assert!(status.success(), "{status}");
    let reply = client.receive().unwrap();
    assert!(reply.starts_with("ERROR UNAVAILABLE "), "{reply}");
    assert!(client.receive().is_err(), "the connection is closed");
    cluster.resume(5556);
    cluster.resume(5558);
    cluster.restart(5554);
    assert_eq!(cluster.call(5554, "GET k"), format!("VALUE {version} v"));
}

#[test]
fn sigint_ends_nodes_in_order_and_with_success_and_all_data_are_there_afterwards() {
    let cluster = Cluster::start(&THREE);
    let versions = THREE.map(|id| cluster.done(id, &format!("PUT key{id} {id}")));
    for id in THREE {
        let status = cluster.interrupt(id);
        assert!(status.success(), "{status}");
        assert!(cluster.log(id).ends_with(&format!("{id}: ended\n")));
    }
    THREE.iter().for_each(|&id| cluster.start_node(id));
    cluster.await_all_ready();
    for (id, version) in THREE.iter().zip(&versions) {
        let read = cluster.call(5554, &format!("GET key{id}"));
        assert_eq!(read, format!("VALUE {version} {id}"));
    }
}

#[test]
fn a_second_process_on_a_data_folder_is_refused() {
    let cluster = Cluster::start(&THREE);
    let elsewhere = Plan::of(&THREE).lay_out();
    let second = |file: &Cluster| {
        let data = cluster.data(5554);
        let mut command = dynamo(
            &["node", "5554", "--data", data.to_str().unwrap()],
            &file.file(5554),
        );
        let output = run(&mut command, "");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = second(&elsewhere);
    assert!(
        text.contains("another process uses this folder; is the node running already?"),
        "{text}"
    );
    // With the same ports the process already fails before it opens the folder.
    let (text, address) = (second(&cluster), cluster.address(5554));
    assert!(
        text.contains(&format!("cannot listen on {address}: ")),
        "{text}"
    );
    cluster.done(5554, "PUT k v");
    assert!(fs::exists(cluster.data(5554).join("identity.json")).unwrap());
}

/// The node may enter the folder above, but not read it.
#[test]
fn a_data_folder_below_one_that_cannot_be_read_opens() {
    let cluster = Plan::of(&THREE).lay_out();
    let above = cluster.data(5554).with_extension("above");
    let data = above.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::set_permissions(&above, Permissions::from_mode(0o311)).unwrap();
    let node = cluster.command(5554);
    let mut command = Command::new(node.get_program());
    if geteuid().is_root() {
        // Root may read every folder, so the node runs without that capability.
        command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search");
        command.arg(node.get_program());
    }
    let file = cluster.file(5554);
    command.args(["node", "5554", "--cluster"]).arg(file);
    command.arg("--data").arg(&data).stderr(Stdio::null());
    cluster.run(5554, &mut command);
    cluster.await_answer(5554);
    assert!(cluster.terminate(5554).success());
    fs::set_permissions(&above, Permissions::from_mode(0o711)).unwrap();
}

#[test]
fn a_path_through_a_link_that_leads_nowhere_is_refused_with_an_error_that_says_so() {
    let cluster = Plan::of(&THREE).lay_out();
    let link = cluster.data(5554);
    symlink("nowhere", &link).unwrap();
    let refusal = |data: &str, file: &Path| {
        let output = run(&mut dynamo(&["node", "5554", "--data", data], file), "");
        let code = output.status.code().unwrap();
        (code, String::from_utf8(output.stderr).unwrap())
    };
    let link = link.to_str().unwrap();
    let complaint = format!("{link} is a link to nowhere, which is not there\n");
    let expected = (1, format!("dynamo: {complaint}"));
    assert_eq!(refusal(link, &cluster.file(5554)), expected);
    let below = format!("{link}/5554");
    assert_eq!(refusal(&below, &cluster.file(5554)), expected);
    let (code, text) = refusal("data", link.as_ref());
    let expected = format!("error: invalid value '{link}' for '--cluster <FILE>': {complaint}");
    assert_eq!(code, 2);
    assert!(text.starts_with(&expected), "{text}");
}
