//! Whatever the disk does, a replica keeps every vote that it has revealed.

use std::sync::{Arc, Mutex};

use fastrand::Rng;
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::VoteRequest;
use simple_dynamo::storage::OpenError;

use crate::support::faulty_disk::{Call, Fault, FaultyDisk, LOSSES, Loss};
use crate::support::witness::{Opened, Report, Witness, accept, open, prepare};

const KEYS: u64 = 4;

fn key(number: u64) -> Key {
    format!("key{number}").into()
}

/// Asks for votes on several keys at a time, and waits until all have come or the disk has failed.
///
/// The first vote is written alone, and all else together after it, whatever the threads do. So the
/// same seed takes the same steps.
fn vote_some(disk: &FaultyDisk, opened: &Opened, rng: &mut Rng, witness: &mut Witness) {
    let votes = rng.usize(1..6);
    disk.hold(Call::Append);
    for place in 0..votes {
        let key = key(rng.u64(0..KEYS));
        let promised = opened.store.promised(&key).round;
        let request = match rng.u8(0..6) {
            0 => prepare(promised + 1),
            _ if place == 0 => accept(&key, promised + 1),
            1 => VoteRequest::Read { state: true },
            2 => prepare(rng.u64(0..=promised)),
            _ => accept(&key, promised.max(1)),
        };
        opened.ask(&key, request);
        if place == 0 {
            disk.until_held();
            if rng.bool() {
                witness.drop_tombstone(opened, &self::key(rng.u64(0..KEYS)));
            }
        }
    }
    disk.release();
    note_reports(votes, opened, witness);
}

/// Waits for so many reports and notes them, or fewer if the disk fails.
fn note_reports(count: usize, opened: &Opened, witness: &mut Witness) {
    for _ in 0..count {
        let report = opened.next_report();
        let last = matches!(report, Report::Failed(_));
        witness.note(report);
        if last {
            // After a failure the store answers nobody.
            assert!(
                opened.reports_so_far().is_empty(),
                "a reply after the disk had failed"
            );
            return;
        }
    }
}

/// Opens the folder, unless the planned fault comes first.
fn open_or_fail(disk: &FaultyDisk, when: &str) -> Option<Opened> {
    match open(disk.power_on()) {
        Ok(opened) => Some(opened),
        Err(OpenError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => None,
        Err(error) => panic!("{when}: {error}"),
    }
}

/// One life of the process: it works until something fails, or for a number of steps.
fn live(disk: &FaultyDisk, rng: &mut Rng, witness: &mut Witness, when: &str) {
    let Some(opened) = open_or_fail(disk, when) else {
        return;
    };
    witness.check(&opened, when);
    for _ in 0..rng.usize(1..15) {
        match rng.u8(0..8) {
            0 if opened.store.snapshot().is_err() => break,
            0 => {}
            1 => {
                opened.reserve(opened.store.sequences() + 10);
                note_reports(1, &opened, witness);
            }
            _ => vote_some(disk, &opened, rng, witness),
        }
        if opened.has_failed() {
            break;
        }
    }
    disk.kill();
    opened.store.close();
}

#[test]
fn a_revealed_vote_holds_through_any_sequence_of_crashes_and_failures() {
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let disk = FaultyDisk::new(seed);
        let mut witness = Witness::default();
        for life in 0..8 {
            let when = format!("seed {seed}, life {life}");
            let fault = [Fault::PowerOff, Fault::NoSpace, Fault::SyncFails][rng.usize(0..3)];
            disk.make_space();
            disk.fail_at(rng.usize(1..80), fault);
            live(&disk, &mut rng, &mut witness, &when);
            // Sometimes only the process ends, and the next one finds all that it had written.
            if rng.u8(0..3) > 0 {
                disk.lose_power(LOSSES[rng.usize(0..3)]);
            }
        }
    }
}

/// A fixed piece of work with everything that writes: votes, drops of tombstones, a reservation, a
/// snapshot, a change of identity, and votes and drops during the snapshot.
fn work(disk: &FaultyDisk, witness: &Arc<Mutex<Witness>>) {
    let Some(opened) = open_or_fail(disk, "at work") else {
        return;
    };
    let opened = Arc::new(opened);
    let mut rng = Rng::with_seed(7);
    for _ in 0..3 {
        vote_some(disk, &opened, &mut rng, &mut witness.lock().unwrap());
        if opened.has_failed() {
            return end(disk, &opened);
        }
    }
    opened.reserve(100);
    note_reports(1, &opened, &mut witness.lock().unwrap());
    let (other, shared) = (Arc::downgrade(&opened), witness.clone());
    disk.before_each_step(move || {
        if let Some(opened) = other.upgrade().filter(|opened| !opened.has_failed()) {
            let key = key(rng.u64(0..KEYS));
            let mut witness = shared.lock().unwrap();
            witness.drop_tombstone(&opened, &key);
            opened.ask(&key, accept(&key, opened.store.promised(&key).round + 1));
            note_reports(1, &opened, &mut witness);
        }
    });
    // This fails if the planned fault comes first. The votes that were revealed hold all the same.
    let _ = opened.store.snapshot();
    end(disk, &opened);
}

fn end(disk: &FaultyDisk, opened: &Opened) {
    disk.kill();
    opened.store.close();
}

/// How many steps [`work`] takes when nothing fails.
fn steps_of_the_work() -> usize {
    let disk = FaultyDisk::new(0);
    work(&disk, &Arc::default());
    disk.steps()
}

#[test]
fn a_revealed_vote_holds_whichever_step_the_power_goes_at_in_a_snapshot_too() {
    let steps = steps_of_the_work();
    assert!(
        steps > 40,
        "{steps} steps are fewer than the work should take"
    );
    for step in 1..=steps {
        for loss in LOSSES {
            for seed in 0..4 {
                let disk = FaultyDisk::new(seed);
                let witness = Arc::default();
                disk.fail_at(step, Fault::PowerOff);
                work(&disk, &witness);
                disk.lose_power(loss);
                let when = format!("step {step}, {loss:?}, seed {seed}");
                let opened = open(disk.power_on()).unwrap_or_else(|e| panic!("{when}: {e}"));
                witness.lock().unwrap().check(&opened, &when);
                end(&disk, &opened);
            }
        }
    }
}

#[test]
fn a_revealed_vote_holds_whichever_step_of_the_recovery_the_power_goes_at() {
    for step in 1..=steps_of_the_work() {
        for seed in 0..6 {
            let mut recovery_step = 1;
            while !recovers_before(recovery_step, step, seed) {
                recovery_step += 1;
            }
        }
    }
}

/// Kills the process at a step of the work, and takes the power at a step of the next start.
/// Returns whether the start took fewer steps.
fn recovers_before(recovery_step: usize, step: usize, seed: u64) -> bool {
    let when = format!("step {step}, then step {recovery_step} of the recovery, seed {seed}");
    let disk = FaultyDisk::new(seed);
    let witness = Arc::default();
    disk.fail_at(step, Fault::PowerOff);
    work(&disk, &witness);
    // Only the process ends, so the next one finds more than is durable.
    disk.kill();
    disk.fail_at(recovery_step, Fault::PowerOff);
    let opened = open_or_fail(&disk, &when);
    if let Some(opened) = &opened {
        witness.lock().unwrap().check(opened, &when);
        end(&disk, opened);
    }
    disk.lose_power(Loss::Holes);
    let again = open(disk.power_on()).unwrap_or_else(|e| panic!("{when}: {e}"));
    witness.lock().unwrap().check(&again, &when);
    end(&disk, &again);
    opened.is_some()
}
