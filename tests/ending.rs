//! A process ends on a signal, whatever hangs: a disk, a start, or the reader of its log.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::transport::handshake::{Hello, PROTOCOL};
use simple_dynamo::transport::message::line;
use support::cluster::{Cluster, Plan, THREE, eventually};
use support::impostor::unnumbered;
use support::raw::Raw;

/// The time within which a process ends after a signal, whatever hangs.
const AT_ONCE: Duration = Duration::from_secs(6);

/// Sends SIGTERM, and asserts that the process ends in time.
fn terminate(cluster: &Cluster, id: u32) -> ExitStatus {
    let began = Instant::now();
    let status = cluster.terminate(id);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    status
}

/// A pipe that is full, so that a write to it waits.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b"\n").is_ok() {}
    // The process that inherits the pipe shares its flags, and must block on it.
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Three nodes, of which the first logs all it can to a full pipe, the second is paused and the
/// third killed.
fn with_a_blocked_log() -> (Cluster, PipeReader) {
    let cluster = Plan::of(&THREE).lay_out();
    let (reader, writer) = full_pipe();
    let mut first = cluster.command(THREE[0]);
    first.env("RUST_LOG", "trace").stderr(writer);
    cluster.run(THREE[0], &mut first);
    // Otherwise the writing end of the pipe would stay open here.
    drop(first);
    THREE[1..].iter().for_each(|&id| cluster.start_node(id));
    cluster.await_all_ready();
    cluster.pause(THREE[1]);
    cluster.kill(THREE[2]);
    (cluster, reader)
}

/// Makes a node log so many long lines, one for each stranger that it refuses.
fn have_it_log(cluster: &Cluster, id: u32, lines: usize) {
    let hello = Hello {
        protocol: PROTOCOL,
        cluster: "x".repeat(900),
        from: NodeId(THREE[1]),
        to: NodeId(id),
        introduction: unnumbered(),
    };
    for _ in 0..lines {
        let mut stranger = Raw::connect(&cluster.peer_address(id));
        stranger.send(line(&hello));
        stranger.rest();
    }
}

#[test]
fn a_node_whose_log_nobody_reads_answers_and_ends() {
    let (cluster, _reader) = with_a_blocked_log();
    have_it_log(&cluster, THREE[0], 400);
    for _ in 0..3 {
        let (reply, _) = cluster.timed(THREE[0], "PUT k v");
        assert!(reply.starts_with("ERROR UN"), "{reply}");
    }
    cluster.resume(THREE[1]);
    eventually("two of three write", || {
        let reply = cluster.timed(THREE[0], "PUT k v").0;
        reply.starts_with("OK ").then_some(())
    });
    let status = terminate(&cluster, THREE[0]);
    assert!(status.success(), "{status}");
}

#[test]
fn a_log_that_is_read_at_last_tells_how_many_lines_were_dropped() {
    let (cluster, mut reader) = with_a_blocked_log();
    have_it_log(&cluster, THREE[0], 400);
    let reading = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).map(|_| log)
    });
    let status = terminate(&cluster, THREE[0]);
    assert!(status.success(), "{status}");
    let log = reading.join().unwrap().unwrap();
    let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
    let expected = " lines of the log were dropped: standard error was not read";
    let gap = lines.iter().position(|line| line.ends_with(expected));
    let gap = gap.unwrap_or_else(|| panic!("no gap in {lines:#?}"));
    let dropped: u64 = lines[gap].strip_suffix(expected).unwrap().parse().unwrap();
    assert!(dropped > 50, "{dropped}");
    assert!(lines[..gap].iter().any(|line| line.contains(": votes")));
    // The lines after the gap are there, up to the last one.
    assert!(lines[gap..].last().unwrap().ends_with(": ended"));
}

#[test]
fn an_error_of_the_start_that_nobody_reads_ends_the_process() {
    let cluster = Plan::of(&THREE).lay_out();
    fs::write(cluster.data(THREE[0]), "a file where the folder should be").unwrap();
    let (_reader, writer) = full_pipe();
    let mut command = cluster.command(THREE[0]);
    cluster.run(THREE[0], command.stderr(writer));
    assert_eq!(cluster.await_end(THREE[0]).code(), Some(1));
    fs::remove_file(cluster.data(THREE[0])).unwrap();
}

#[cfg(debug_assertions)]
#[test]
fn sigterm_ends_a_node_whose_disk_hangs_within_seconds() {
    let cluster = Cluster::start(&THREE);
    let version = cluster.done(THREE[0], "PUT k acknowledged");
    cluster.slow_disk(THREE[0], Duration::from_secs(60));
    let mut client = cluster.client(THREE[0]);
    client.send(b"PUT other v\n").unwrap();
    eventually("its log waits for the disk", || {
        let stats = cluster.stats(THREE[0])?;
        (stats["requests"] == "2").then_some(())
    });
    let status = terminate(&cluster, THREE[0]);
    assert_eq!(status.code(), Some(1));
    let log = cluster.log(THREE[0]);
    let expected = "did not end in order within 5 s: the disk or a client does not answer";
    assert!(log.contains(expected), "{log}");
    cluster.heal_disk(THREE[0]);
    cluster.restart(THREE[0]);
    let read = cluster.call(THREE[0], "GET k");
    assert_eq!(read, format!("VALUE {version} acknowledged"));
}

#[cfg(debug_assertions)]
#[test]
fn a_second_signal_ends_a_node_at_once() {
    let cluster = Cluster::start(&THREE);
    cluster.slow_disk(THREE[0], Duration::from_secs(60));
    let mut client = cluster.client(THREE[0]);
    client.send(b"PUT k v\n").unwrap();
    eventually("the write is under way", || {
        let stats = cluster.stats(THREE[0])?;
        (stats["requests"] == "1").then_some(())
    });
    cluster.signal(THREE[0], Signal::TERM);
    eventually("it has heard the first", || {
        cluster
            .log(THREE[0])
            .contains("ends on SIGTERM")
            .then_some(())
    });
    let began = Instant::now();
    assert_eq!(cluster.interrupt(THREE[0]).code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(3));
}

/// Sets a limit for the process of a node, from now on.
fn limit(cluster: &Cluster, id: u32, resource: Resource, to: u64) {
    let pid = Pid::from_raw(cluster.pid(id) as i32);
    let limit = Rlimit {
        current: Some(to),
        maximum: Some(to),
    };
    prlimit(pid, resource, limit).unwrap();
}

/// Such a node cannot connect to itself to wake a thread. Neither can a node whose name or address has
/// changed.
#[test]
fn sigterm_ends_a_node_in_order_that_can_open_no_connection() {
    let cluster = Cluster::start(&THREE);
    limit(&cluster, THREE[0], Resource::Nofile, 0);
    let status = terminate(&cluster, THREE[0]);
    assert!(status.success(), "{status}");
    assert!(cluster.log(THREE[0]).ends_with(": ended\n"));
}

#[test]
fn sigterm_ends_a_node_that_still_reads_its_log() {
    let cluster = Cluster::start(&THREE);
    assert!(cluster.terminate(THREE[0]).success());
    // A pipe takes the place of the log, and its end never comes.
    let log = cluster.data(THREE[0]).join("log.000001");
    fs::remove_file(&log).unwrap();
    mknodat(CWD, &log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    cluster.start_node(THREE[0]);
    let _writer = await_reader(&log);
    let status = terminate(&cluster, THREE[0]);
    assert!(status.success(), "{status}");
    let log = cluster.log(THREE[0]);
    assert!(log.ends_with(": ended before it served\n"), "{log}");
}

#[test]
fn sigterm_ends_a_node_in_order_while_the_look_up_of_a_peers_name_hangs() {
    let cluster = Plan::of(&THREE).lay_out();
    let file = cluster.file(THREE[0]);
    let text = fs::read_to_string(&file).unwrap();
    let own = format!("\"id\":{}", THREE[1]);
    assert!(text.contains(&own), "{text}");
    let named = text.replace(&own, &format!("\"host\":\"nowhere\",{own}"));
    fs::write(&file, named).unwrap();
    // The C library looks here for other names of a host, and this file has no end.
    let aliases = cluster.data(THREE[0]).with_extension("aliases");
    mknodat(CWD, &aliases, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    cluster.start_node_with(THREE[0], &[("HOSTALIASES", aliases.to_str().unwrap())]);
    cluster.await_answer(THREE[0]);
    let _writer = await_reader(&aliases);
    let status = terminate(&cluster, THREE[0]);
    assert!(status.success(), "{status}");
    let log = cluster.log(THREE[0]);
    assert!(
        log.contains("ends without the thread link, which hangs\n"),
        "{log}"
    );
}

/// Waits until somebody reads a pipe, and keeps it open.
fn await_reader(pipe: &Path) -> File {
    eventually("somebody reads", || {
        let mut options = File::options();
        let options = options
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32);
        options.open(pipe).ok()
    })
}

#[test]
fn the_end_of_the_terminal_ends_a_node_in_order_unless_it_was_started_with_nohup() {
    let cluster = Cluster::start(&THREE);
    cluster.signal(THREE[0], Signal::HUP);
    let status = cluster.await_end(THREE[0]);
    assert!(status.success(), "{status}");
    assert!(cluster.log(THREE[0]).contains("ends on SIGHUP\n"));
    let mut nohup = Command::new("nohup");
    let command = cluster.command(THREE[0]);
    nohup.arg(command.get_program()).args(command.get_args());
    let log = File::create(cluster.data(THREE[0]).with_extension("log")).unwrap();
    nohup.stdout(log.try_clone().unwrap()).stderr(log);
    cluster.run(THREE[0], &mut nohup);
    cluster.await_ready(THREE[0]);
    cluster.signal(THREE[0], Signal::HUP);
    cluster.done(THREE[0], "PUT k v");
    assert!(terminate(&cluster, THREE[0]).success());
}

#[test]
fn signals_that_mean_nothing_to_a_node_do_nothing() {
    let cluster = Cluster::start(&THREE);
    for signal in [Signal::USR1, Signal::USR2, Signal::ALARM] {
        cluster.signal(THREE[0], signal);
        cluster.done(THREE[0], "PUT k v");
    }
    let status = cluster.terminate(THREE[0]);
    assert!(status.success(), "{status}");
}

#[test]
fn a_log_that_may_not_grow_any_more_ends_the_node_like_a_full_disk() {
    let cluster = Cluster::start(&THREE);
    cluster.done(THREE[0], "PUT k acknowledged");
    // The limit is above the size of the log for people, which is a file, too. The writes below need more.
    limit(&cluster, THREE[0], Resource::Fsize, 64 << 10);
    let value = "x".repeat(30_000);
    let mut client = cluster.client(THREE[0]);
    for number in 0..5 {
        // The node may end before it answers.
        let _ = client.call(&format!("PUT large{number} {value}"));
    }
    assert_eq!(cluster.await_end(THREE[0]).code(), Some(74));
    let log = cluster.log(THREE[0]);
    assert!(
        log.contains("the data folder cannot be written to: File too large"),
        "{log}"
    );
    cluster.restart(THREE[0]);
    assert_eq!(cluster.get(THREE[0], "k").as_deref(), Some("acknowledged"));
}
