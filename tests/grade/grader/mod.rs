//! The course's gradings, as a black box: five processes, their text protocol, and signals.
//!
//! That of the [store](STORE) has six phases and 23 points, and that of the [messenger](MESSENGER) two phases and 10
//! points. What a phase has stored stays in the store for the next phases.

mod absence;
mod basics;
mod concurrency;
mod course;
mod crashes;
mod messenger;
mod placement;
pub mod score;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use course::Course;
use score::{Phase, Report, Score};

/// One phase of a grading.
pub struct Plan {
    title: &'static str,
    points: f64,
    checks: &'static [&'static str],
    run: fn(&mut Course, &mut Score),
}

/// The assignment "Replicated Key-Value Storage".
pub const STORE: [Plan; 6] = [
    Plan {
        title: "insert, query, delete, @, * and replication",
        points: 3.0,
        checks: basics::CHECKS,
        run: basics::run,
    },
    Plan {
        title: "many clients, each with keys of its own",
        points: 4.0,
        checks: concurrency::OWN_KEYS,
        run: concurrency::run_own_keys,
    },
    Plan {
        title: "many clients with the same keys",
        points: 3.0,
        checks: concurrency::SAME_KEYS,
        run: concurrency::run_same_keys,
    },
    Plan {
        title: "each operation while one node is down",
        points: 5.0,
        checks: absence::CHECKS,
        run: absence::run,
    },
    Plan {
        title: "many clients while one node crashes and returns",
        points: 5.0,
        checks: crashes::ONE,
        run: crashes::run_one,
    },
    Plan {
        title: "many clients while one node after the other does",
        points: 3.0,
        checks: crashes::IN_TURN,
        run: crashes::run_in_turn,
    },
];

/// The sibling assignment "Group Messenger with Total and FIFO Ordering Guarantees".
pub const MESSENGER: [Plan; 2] = [
    Plan {
        title: "everybody speaks, and no node fails",
        points: 4.0,
        checks: messenger::WHOLE,
        run: messenger::run_whole,
    },
    Plan {
        title: "everybody speaks while each node is killed in turn",
        points: 6.0,
        checks: messenger::KILLED,
        run: messenger::run_killed,
    },
];

/// Grades nodes that have these switches in their environment, in these phases. Calls `report_phase` with each
/// as soon as it is over. Logs and histories go to `folder`.
pub fn grade(
    plans: &[Plan],
    seed: u64,
    switches: &[(&str, &str)],
    folder: &Path,
    report_phase: impl Fn(&Phase),
) -> Report {
    let mut course = Course::start(seed, switches, folder);
    let graded = plans.iter().zip(1..).map(|(plan, number)| {
        let phase = run(plan, number, &mut course);
        report_phase(&phase);
        phase
    });
    let report = Report::new(seed, graded.collect());
    course.keep_logs();
    report
}

fn run(plan: &Plan, number: usize, course: &mut Course) -> Phase {
    let mut score = Score::new(plan.checks);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        course.mend();
        (plan.run)(course, &mut score);
    }));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        score.abandon(&text.unwrap_or_default());
    }
    score.phase(number, plan.title, plan.points)
}
