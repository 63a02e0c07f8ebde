//! The judge of groups notices each breach.

use super::support::messenger::chronicle::*;
use super::support::messenger::judge::{Invariant, judge};

fn message(number: u64, text: &str) -> Shown {
    Shown::Message(Message {
        number,
        time: 7,
        nick: "ann".to_owned(),
        text: text.to_owned(),
    })
}

fn stay(node: u32, after: u64, shown: &[Shown]) -> Stay {
    Stay {
        node,
        after,
        shown: shown.to_vec(),
        behind: false,
    }
}

fn said(text: &str, end: End) -> Said {
    Said {
        text: text.to_owned(),
        node: 5554,
        end,
        waited: 3,
        node_failed: false,
    }
}

/// Three messages of two streams. One member moves. A fourth message was refused, and of a fifth nothing is known.
fn good() -> Chronicle {
    let all = [message(1, "a 1"), message(2, "b 1"), message(3, "a 2")];
    let stream = |name: &str, said: &[Said]| Stream {
        name: name.to_owned(),
        said: said.to_vec(),
    };
    let member = |home, stays: &[Stay]| Member {
        home,
        stays: stays.to_vec(),
    };
    let listing = |node| Listing {
        node,
        after: 0,
        shown: all.to_vec(),
    };
    Chronicle {
        group: "g".to_owned(),
        streams: vec![
            stream(
                "a",
                &[
                    said("a 1", End::Done(Some(1))),
                    said("a 2", End::Done(None)),
                ],
            ),
            stream(
                "b",
                &[
                    said("b 1", End::Done(Some(2))),
                    said("b 2", End::NotDone),
                    said("b 3", End::Unknown),
                ],
            ),
        ],
        members: vec![
            member(5554, &[stay(5554, 0, &all)]),
            member(
                5556,
                &[
                    stay(5556, 0, &all[..1]),
                    stay(5558, 1, &[]),
                    stay(5556, 1, &all[1..]),
                ],
            ),
        ],
        listings: vec![listing(5554), listing(5556)],
        end: 3,
        settled: Some(40),
    }
}

/// The invariants that do not hold once `spoil` has changed a good chronicle.
fn breached(spoil: impl FnOnce(&mut Chronicle)) -> Vec<Invariant> {
    let mut chronicle = good();
    spoil(&mut chronicle);
    let breaches = judge(&chronicle);
    breaches.iter().map(|breach| breach.invariant).collect()
}

#[test]
fn a_good_chronicle_breaks_nothing() {
    assert_eq!(judge(&good()), []);
    // What came after everybody had spoken need not have reached everybody.
    let late = |chronicle: &mut Chronicle| {
        let unknown = message(4, "b 3");
        chronicle.members[0].stays[0].shown.push(unknown);
    };
    assert_eq!(breached(late), []);
}

#[test]
fn a_member_that_is_shown_something_else_than_all_in_order_breaks_the_total_order() {
    let order = [Invariant::TotalOrder];
    let of_first = |spoil: fn(&mut Vec<Shown>)| {
        breached(move |chronicle| spoil(&mut chronicle.members[0].stays[0].shown))
    };
    assert_eq!(of_first(|shown| shown.swap(0, 1)), order);
    assert_eq!(of_first(|shown| drop(shown.remove(1))), order);
    assert_eq!(of_first(|shown| drop(shown.pop())), order);
    assert_eq!(of_first(|shown| shown.push(message(3, "a 2"))), order);
    assert_eq!(of_first(|shown| shown[1] = Shown::Missed(2, 2)), order);
    let of_second = |spoil: fn(&mut Vec<Stay>)| {
        breached(move |chronicle| spoil(&mut chronicle.members[1].stays))
    };
    // Another message has the number. Then the other member is at odds with the first.
    assert_eq!(
        of_second(|stays| stays[2].shown[0] = message(2, "b 3")),
        order
    );
    assert_eq!(of_second(|stays| stays[2].after = 2), order);
    assert_eq!(of_second(|stays| drop(stays.remove(0))), order);
}

#[test]
fn a_session_out_of_order_breaks_fifo() {
    let swapped = breached(|chronicle| {
        chronicle.streams[0].said.swap(0, 1);
    });
    assert_eq!(swapped, [Invariant::Fifo]);
}

#[test]
fn a_message_that_is_lost_doubled_invented_or_refused_and_there_is_not_there_once() {
    let once = [Invariant::Once];
    let spoiled = |place: usize, end: End| {
        breached(move |chronicle| chronicle.streams[1].said[place].end = end)
    };
    assert_eq!(spoiled(0, End::NotDone), once);
    assert_eq!(spoiled(1, End::Done(None)), once);
    assert_eq!(spoiled(1, End::Done(Some(9))), once);
    assert_eq!(spoiled(2, End::Unheard), once);
    let everywhere = |text: &'static str| {
        breached(move |chronicle| {
            let also = message(4, text);
            chronicle.members[0].stays[0].shown.push(also.clone());
            chronicle.members[1].stays[2].shown.push(also.clone());
            chronicle
                .listings
                .iter_mut()
                .for_each(|own| own.shown.push(also.clone()));
            chronicle.end = 4;
        })
    };
    assert_eq!(everywhere("a 1"), once);
    assert_eq!(everywhere("c 1"), once);
    assert_eq!(everywhere("b 3"), []);
}

#[test]
fn another_number_than_was_acknowledged_or_another_list_is_noticed() {
    let numbered = [Invariant::Numbered];
    let told = breached(|chronicle| chronicle.streams[0].said[0].end = End::Done(Some(2)));
    assert_eq!(told, numbered);
    let of_list = |spoil: fn(&mut Vec<Shown>)| {
        breached(move |chronicle| spoil(&mut chronicle.listings[1].shown))
    };
    assert_eq!(of_list(|shown| drop(shown.pop())), numbered);
    assert_eq!(of_list(|shown| drop(shown.remove(0))), numbered);
    assert_eq!(of_list(|shown| shown[2] = message(3, "b 3")), numbered);
}

#[test]
fn members_that_take_long_to_have_the_same_are_noticed() {
    let settled = |millis| breached(move |chronicle| chronicle.settled = millis);
    assert_eq!(settled(Some(3_001)), [Invariant::Settled]);
    assert_eq!(settled(None), [Invariant::Settled]);
}

#[test]
fn only_pages_that_were_overwritten_may_be_missed() {
    let missed = |end, to| {
        let breaches = breached(move |chronicle| {
            chronicle.end = end;
            chronicle.members[0].stays[0].shown = vec![Shown::Missed(1, to), message(to + 1, "c")];
        });
        breaches.contains(&Invariant::TotalOrder)
    };
    // Both are behind the end then, which is the other breach.
    let lines = |end, to| {
        let mut chronicle = good();
        chronicle.end = end;
        chronicle.members.truncate(1);
        chronicle.members[0].stays[0].shown = vec![Shown::Missed(1, to)];
        let seen = judge(&chronicle).into_iter().map(|breach| breach.seen);
        seen.filter(|seen| seen.contains("missed")).count()
    };
    assert!(missed(40_000, 7_265));
    assert_eq!(lines(40_000, 7_264), 0);
    assert_eq!(lines(40_000, 7_265), 1);
}

#[test]
fn lines_about_messages_are_understood() {
    let line = "MSG g 3 1700000000000 ann two words";
    let expected = Message {
        number: 3,
        time: 1_700_000_000_000,
        nick: "ann".to_owned(),
        text: "two words".to_owned(),
    };
    assert_eq!(Shown::parse(line, "g"), Some(Shown::Message(expected)));
    assert_eq!(
        Shown::parse("MISSED g 1 32", "g"),
        Some(Shown::Missed(1, 32))
    );
    assert_eq!(Shown::parse(line, "h"), None);
    assert_eq!(Shown::parse("OK 3", "g"), None);
}
