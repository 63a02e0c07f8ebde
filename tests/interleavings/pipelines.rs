//! The requests of one connection: one per key at a time, and the replies in the order of the requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::pipeline::{Pipeline, Until};
use crate::sync::{Mutex, lock, thread};
use crate::transport::socket::pair;
use crate::transport::{Budget, Outgoing};
use crate::{draw, explore, wait_up_to};

const REQUESTS: usize = 6;
const KEYS: usize = 4;
const MIB: usize = 1 << 20;

/// Begins requests as a session does, each to be answered by a thread of its own. Returns how many
/// began.
fn serve(pipeline: &Arc<Pipeline>) -> usize {
    let running = Arc::new(Mutex::new(BTreeSet::new()));
    let mut begun = 0;
    let mut threads = Vec::new();
    'requests: for _ in 0..REQUESTS {
        let key = draw(KEYS);
        let number = loop {
            match pipeline.begin(&key.to_string().as_str().into(), 0, false) {
                Ok(number) => break number,
                Err(until) if pipeline.wait(until) => {}
                Err(_) => break 'requests,
            }
        };
        begun += 1;
        assert!(lock(&running).insert(key), "one per key at a time");
        let (answering, running) = (pipeline.clone(), running.clone());
        threads.push(thread::spawn(move || {
            lock(&running).remove(&key);
            answering.answer(number, format!("{number}\n"));
        }));
        if draw(4) == 0 && !pipeline.wait(Until::ALL) {
            break;
        }
    }
    pipeline.wait(Until::ALL);
    threads.into_iter().for_each(|it| it.join().unwrap());
    begun
}

#[test]
fn each_request_is_answered_once_and_in_order_also_if_the_session_ends_meanwhile() {
    explore(|| {
        let (sending, receiver) = pair();
        let replies = Outgoing::new(sending, &Budget::new(usize::MAX)).unwrap();
        // Little enough for one, two or all requests at a time.
        let budget = Budget::new([0, 2 * MIB, 64 * MIB][draw(3)]);
        let pipeline = Pipeline::new(replies, &budget);
        let ends = draw(2) == 0;
        let ending = pipeline.clone();
        let end = thread::spawn(move || {
            wait_up_to(40);
            if ends {
                ending.end();
            }
        });
        let begun = serve(&pipeline);
        end.join().unwrap();
        pipeline.replies().drain(0);
        assert!(ends || begun == REQUESTS);
        let expected: String = (0..begun).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(receiver.received()).unwrap(), expected);
    });
}
