//! The sending side of a connection: nothing lost, doubled, torn or out of order.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::thread::{self, JoinHandle};
use crate::transport::socket::{TcpStream, pair};
use crate::transport::{Budget, Outgoing, batch};
use crate::{draw, explore, wait_up_to};

const SENDERS: usize = 3;
const MESSAGES: usize = 4;

/// Sends numbered messages, alone and in batches, and returns how many were taken.
fn sender(connection: &Arc<Outgoing>, name: usize) -> JoinHandle<usize> {
    let connection = connection.clone();
    thread::spawn(move || {
        let send = |number: usize| connection.send(format!("{name} says {number}\n").as_bytes());
        let mut taken = 0;
        let mut next = 0;
        while next < MESSAGES {
            let together = next..MESSAGES.min(next + 1 + draw(3));
            next = together.end;
            taken += match draw(3) {
                0 => together.filter(|number| send(*number)).count(),
                1 => batch(|| together.filter(|number| send(*number)).count()),
                // A batch in a batch is part of it.
                _ => batch(|| batch(|| together.filter(|number| send(*number)).count())),
            };
        }
        taken
    })
}

/// How many messages of each sender came, whole and in order from the first on.
fn received(receiver: &TcpStream) -> (BTreeMap<usize, usize>, String) {
    let text = String::from_utf8(receiver.received()).unwrap();
    let (whole, torn) = text.rsplit_once('\n').unwrap_or(("", &text));
    let mut counts = BTreeMap::new();
    for line in whole.lines() {
        let (name, number) = line.split_once(" says ").expect("a message");
        let [name, number] = [name, number].map(|text| text.parse::<usize>().unwrap());
        let count: &mut usize = counts.entry(name).or_default();
        assert_eq!(*count, number, "from {name}: {text:?}");
        *count += 1;
    }
    (counts, torn.to_owned())
}

#[test]
fn every_message_arrives_once_and_in_order() {
    explore(|| {
        let (sending, receiver) = pair();
        let connection = Outgoing::new(sending, &Budget::new(usize::MAX)).unwrap();
        let senders: Vec<_> = (0..SENDERS).map(|n| sender(&connection, n)).collect();
        for sender in senders {
            assert_eq!(sender.join().unwrap(), MESSAGES);
        }
        // Nobody sends any more, so what is still queued is on its way.
        connection.drain(0);
        let (counts, torn) = received(&receiver);
        assert_eq!(torn, "");
        assert!(counts.len() == SENDERS && counts.values().all(|count| *count == MESSAGES));
    });
}

#[test]
fn what_arrives_before_a_close_or_a_failure_has_no_gap() {
    explore(|| {
        let (sending, receiver) = pair();
        sending.let_receiver_stall();
        let connection = Outgoing::new(sending, &Budget::new(usize::MAX)).unwrap();
        let senders: Vec<_> = (0..SENDERS).map(|n| sender(&connection, n)).collect();
        let closes = draw(2) == 0;
        wait_up_to(50);
        if closes {
            connection.close();
        }
        let taken: Vec<_> = senders.into_iter().map(|s| s.join().unwrap()).collect();
        connection.drain(0);
        let (counts, _) = received(&receiver);
        for (name, count) in counts {
            assert!(
                count <= taken[name],
                "a message of {name} arrived that was not sent"
            );
        }
        assert!(!(closes && connection.send(b"more")));
    });
}
