//! The linearizability checker tells good histories from bad ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::example::*;
use crate::support::history::{self, Current, End, Operation, Reply, Request};
use crate::support::linearizability::{Verdict, check};

const BUDGET: u64 = 1_000;

fn good(history: &[Operation]) {
    assert_eq!(
        check(history, BUDGET),
        Verdict::Linearizable,
        "{history:#?}"
    );
}

fn bad(history: &[Operation]) {
    assert!(
        matches!(check(history, BUDGET), Verdict::Violation(_)),
        "{history:#?}"
    );
}

#[test]
fn operations_one_after_the_other_are_a_register() {
    good(&[
        missing(1, 2),
        put(3, 4, 1),
        get(5, 6, 1),
        delete(7, 8),
        missing(9, 10),
    ]);
    good(&[
        swapped(1, 2, None, 1),
        swapped(3, 4, Some(1), 2),
        get(5, 6, 2),
    ]);
}

#[test]
fn concurrent_operations_may_take_either_order() {
    good(&[put(1, 10, 1), put(2, 9, 2), get(11, 12, 1)]);
    good(&[put(1, 10, 1), put(2, 9, 2), get(11, 12, 2)]);
    good(&[put(1, 10, 1), missing(2, 3), get(4, 5, 1)]);
}

#[test]
fn a_stale_read_is_found() {
    // 2 was written after 1 was, and before the read began.
    bad(&[put(1, 2, 1), put(3, 4, 2), get(5, 6, 1)]);
    bad(&[put(1, 2, 1), missing(3, 4)]);
}

#[test]
fn a_new_old_inversion_is_found() {
    // During the write of 2 one read sees it, and a later read does not.
    bad(&[put(1, 2, 1), put(3, 20, 2), get(4, 5, 2), get(6, 7, 1)]);
    // The other way round is how a write looks.
    good(&[put(1, 2, 1), put(3, 20, 2), get(4, 5, 1), get(6, 7, 2)]);
}

#[test]
fn a_lost_update_is_found() {
    // Two compare-and-sets of the same version both succeed.
    bad(&[
        put(1, 2, 1),
        swapped(3, 6, Some(1), 2),
        swapped(4, 5, Some(1), 3),
    ]);
    // An acknowledged write is gone.
    bad(&[put(1, 2, 1), put(3, 4, 2), get(5, 6, 2), get(7, 8, 1)]);
}

#[test]
fn a_write_that_is_applied_twice_is_found() {
    // The readers see 1, 2, 1.
    bad(&[
        put(1, 20, 1),
        put(2, 20, 2),
        get(3, 4, 1),
        get(5, 6, 2),
        get(7, 8, 1),
    ]);
}

#[test]
fn a_refusal_that_came_true_is_found() {
    // The client got the reply "no", and then its value appears.
    let refused = operation(
        1,
        2,
        swap(Some(7), 1),
        Reply::Conflict {
            current: Current::Missing,
        },
    );
    bad(&[refused, put(3, 4, 7), get(5, 6, 1)]);
}

#[test]
fn a_refusal_without_a_reason_is_found() {
    // Nothing but the expected version was ever there.
    bad(&[put(1, 2, 1), conflict(3, 4, Some(1), Current::Unsaid)]);
    bad(&[conflict(1, 2, None, Current::Unsaid)]);
    good(&[
        put(1, 2, 1),
        put(3, 4, 2),
        conflict(5, 6, Some(1), Current::Unsaid),
    ]);
    // The refusal names a version which was not the current one any more.
    let current = Current::Version(version_of(1));
    bad(&[put(1, 2, 1), put(3, 4, 2), conflict(5, 6, None, current)]);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    bad(&[put(1, 2, 1), get(3, 4, 2)]);
    // Its only write certainly failed.
    bad(&[
        Operation {
            end: End::Failed,
            ..put(1, 2, 1)
        },
        get(3, 4, 1),
    ]);
    good(&[
        Operation {
            end: End::Failed,
            ..put(1, 2, 1)
        },
        missing(3, 4),
    ]);
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_late_or_never() {
    good(&[
        unknown(1, write(1)),
        missing(2, 3),
        put(4, 5, 2),
        get(6, 7, 2),
        get(8, 9, 1),
    ]);
    good(&[unknown(1, write(1)), missing(2, 3), missing(4, 5)]);
    good(&[
        put(1, 2, 1),
        unknown(3, Request::Delete),
        get(4, 5, 1),
        missing(6, 7),
    ]);
    // Such a write explains a refusal. It may take effect only afterwards, or never.
    good(&[
        put(1, 2, 1),
        unknown(3, write(2)),
        conflict(4, 5, Some(1), Current::Unsaid),
    ]);
    // A chain: the second builds upon the first, and only its value is ever seen.
    good(&[
        unknown(1, write(1)),
        unknown(2, swap(Some(1), 2)),
        get(3, 4, 1),
        get(5, 6, 2),
    ]);
}

#[test]
fn a_write_of_unknown_outcome_that_is_seen_and_then_not_is_found() {
    bad(&[unknown(1, write(1)), get(2, 3, 1), missing(4, 5)]);
    bad(&[
        put(1, 2, 1),
        unknown(3, write(2)),
        get(4, 5, 2),
        get(6, 7, 1),
    ]);
    // No write is seen before it was called, either.
    bad(&[missing(1, 2), get(3, 4, 1), unknown(5, write(1))]);
}

#[test]
fn a_deleted_key_that_comes_back_is_found() {
    bad(&[put(1, 2, 1), delete(3, 4), missing(5, 6), get(7, 8, 1)]);
    // The key is deleted twice, and was written once.
    bad(&[
        put(1, 2, 1),
        delete(3, 6),
        operation(4, 5, Request::Delete, done(9)),
    ]);
}

#[test]
fn one_version_stands_for_one_write() {
    let wrong = |value: &str, version: &str| {
        let found = Reply::Found {
            value: value.into(),
            version: version.into(),
        };
        operation(20, 30, Request::Get, found)
    };
    bad(&[put(1, 10, 1), put(2, 10, 2), wrong("1", "v2")]);
    bad(&[put(1, 10, 1), wrong("1", "v9")]);
}

#[test]
fn a_version_that_came_without_its_value_may_be_that_of_any_write() {
    let refused = conflict(2, 3, None, Current::Version("seen".into()));
    let expects = Request::CompareAndSet {
        expected: Some("seen".into()),
        value: "2".into(),
    };
    let history = [
        unknown(1, write(1)),
        refused,
        operation(4, 5, expects, done(2)),
    ];
    good(&history);
    // It is not that of a write with another version.
    let [_, refused, swapped] = history;
    bad(&[put(1, 2, 1), refused, swapped]);
}

#[test]
fn keys_are_independent() {
    let other = |operation| Operation {
        key: "other".into(),
        ..operation
    };
    good(&[put(1, 2, 1), other(missing(3, 4)), get(5, 6, 1)]);
    bad(&[put(1, 2, 1), other(get(3, 4, 1))]);
}

#[test]
fn a_spent_budget_is_no_verdict() {
    assert_eq!(check(&[put(1, 2, 1), put(3, 4, 2)], 1), Verdict::Unknown);
}

/// The histories in a folder of `tests/histories/`, by name.
fn on_file(kind: &str) -> BTreeMap<String, Vec<Operation>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let files = fs::read_dir(root.join(kind)).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("// "),
                "{path:?} does not begin with a comment that says what it shows"
            );
            let history =
                history::from_lines(&text).unwrap_or_else(|why| panic!("{path:?}, {why}"));
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, history)
        })
        .collect()
}

#[test]
fn good_and_bad_histories_on_file_get_their_verdicts_and_each_bad_one_has_a_good_counterpart() {
    let (goods, bads) = (on_file("good"), on_file("bad"));
    assert!(bads.len() >= 15 && goods.keys().eq(bads.keys()));
    goods.values().for_each(|history| good(history));
    bads.values().for_each(|history| bad(history));
}

#[test]
fn a_history_read_from_its_lines_is_the_same() {
    let current = Current::Version(version_of(1));
    let history = [
        put(1, 2, 1),
        get(3, 4, 1),
        conflict(5, 6, None, current),
        conflict(7, 8, None, Current::Unsaid),
        swapped(9, 10, Some(1), 2),
        delete(11, 12),
        missing(13, 14),
        unknown(15, write(3)),
        Operation {
            end: End::Failed,
            ..put(16, 17, 4)
        },
    ];
    let lines = history::to_lines(&history);
    assert_eq!(lines.lines().count(), history.len());
    assert_eq!(history::from_lines(&lines).unwrap(), history);
    let broken = format!("// a comment\n\n{lines}nonsense\n");
    let why = history::from_lines(&broken).unwrap_err();
    assert!(why.starts_with("line 12: "), "{why}");
}

/// An add to a counter, answered with this sum; `None` if its outcome is unknown.
fn add(called: u64, returned: u64, more: i64, sum: Option<i64>) -> Operation {
    let request = Request::Add { more };
    match sum {
        Some(sum) => operation(called, returned, request, Reply::Sum(sum.to_string())),
        None => unknown(called, request),
    }
}

fn read(called: u64, returned: u64, number: i64) -> Operation {
    let reply = Reply::Found {
        value: number.to_string(),
        version: format!("v{number}"),
    };
    operation(called, returned, Request::Get, reply)
}

#[test]
fn a_counter_answers_each_add_with_all_that_came_before_it() {
    good(&[
        missing(1, 2),
        add(3, 4, 1, Some(1)),
        add(5, 6, 2, Some(3)),
        read(7, 8, 3),
    ]);
    good(&[
        add(1, 10, 1, Some(3)),
        add(2, 9, 2, Some(2)),
        read(3, 11, 0),
    ]);
    // One of unknown outcome comes late, or never.
    good(&[add(1, 2, 1, None), add(3, 4, 2, Some(2)), read(5, 6, 3)]);
    good(&[add(1, 2, 1, None), add(3, 4, 2, Some(2)), read(5, 6, 2)]);
}

#[test]
fn a_counter_that_loses_doubles_or_invents_an_add_is_found() {
    bad(&[add(1, 2, 1, Some(1)), add(3, 4, 2, Some(2))]);
    bad(&[add(1, 2, 1, Some(1)), read(3, 4, 2)]);
    bad(&[add(1, 2, 1, Some(1)), missing(3, 4)]);
    bad(&[read(1, 2, 1), add(3, 4, 1, Some(1))]);
    let failed = Operation {
        end: End::Failed,
        ..add(1, 2, 1, None)
    };
    bad(&[failed, read(3, 4, 1)]);
}

#[test]
fn a_counter_that_answers_with_another_sum_is_found() {
    // Each says that the other came first, or that it did not.
    bad(&[add(1, 10, 1, Some(3)), add(2, 9, 2, Some(3))]);
    bad(&[add(1, 10, 1, Some(1)), add(2, 9, 2, Some(2))]);
    // The retry was told the sum of its own time.
    bad(&[
        add(1, 10, 1, Some(7)),
        add(2, 3, 2, Some(3)),
        add(4, 5, 4, Some(7)),
    ]);
    // An answer without its sum.
    let done = Reply::Done { version: None };
    bad(&[operation(1, 2, Request::Add { more: 1 }, done)]);
    // A read goes back.
    bad(&[add(1, 10, 1, None), read(2, 3, 1), missing(4, 5)]);
}
