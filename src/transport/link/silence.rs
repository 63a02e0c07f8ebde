//! A link's watch over its peer's silence.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::{info, warn};

use super::{Link, MOST_OUTSTANDING, Outstanding, State};
use crate::lock;
use crate::transport;
use crate::transport::message::{self, Ask, QUEUE_LIMIT, Request};
use crate::transport::suspicion::{Judgement, LOOKS, time_to_take};

/// A peer that was asked nothing for so long is asked whether it is there, and how far its log is: that
/// tells an old copy of its folder, if it is put in its place.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// A suspect's connection that is silent for so many read time-outs is opened anew, since it may
/// be half open. If that does not help, it takes twice as long each time, up to
/// [`MOST_DOUBLINGS`]: the peer may be paused, and finds all of them when it goes on.
const RENEW_AFTER: u32 = 10;
const MOST_DOUBLINGS: u32 = 5;

impl Link {
    /// A byte came in; returns whether the peer was a suspect until now.
    pub(super) fn heard(&self) -> bool {
        let mut state = lock(&self.state);
        state.renewals = 0;
        let cleared = state.suspicion.heard(self.now());
        drop(state);
        if cleared {
            self.suspect.store(false, Ordering::Relaxed);
            info!(
                "{}: {} answers again",
                self.settings.node, self.settings.peer
            );
        }
        cleared
    }

    pub(super) fn returned(&self) {
        if let Some(owner) = self.settings.owner.upgrade() {
            owner.returned(self.settings.peer);
        }
    }

    /// Judges the peer's silence, asks whether it is there if it keeps a question waiting, and gives up
    /// the questions whose time has passed. Returns how long to wait before the next look.
    pub(super) fn watch(&self) -> Duration {
        let now = self.now();
        let mut state = lock(&self.state);
        self.ask_if_quiet(&mut state, now);
        let time_out = self.settings.read_timeout + time_to_take(state.sizes_being_taken());
        // That nobody answers what a reset took away is no silence.
        let mut asked = state.outstanding.values().filter(|it| !it.orphaned);
        let oldest = asked.next().map(|question| question.asked);
        let before = state.suspicion.suspect();
        let judgement = state.suspicion.judge(now, oldest, time_out);
        let limit = match judgement {
            Judgement::Silent => Duration::ZERO,
            Judgement::Patience(_) | Judgement::Ping(_) => self.settings.patience,
        };
        let given_up = state.take_overdue(now, limit, time_out);
        let suspect = state.suspicion.suspect();
        self.suspect.store(suspect, Ordering::Relaxed);
        let is_due = matches!(judgement, Judgement::Ping(_));
        if is_due || state.suspicion.ping_if_due(now, ASK_AFTER) {
            state.ping();
        }
        drop(state);
        if suspect && !before {
            let millis = time_out.as_millis();
            warn!(
                "{}: {} is silent for {millis} ms: suspect",
                self.settings.node,
                self.peer()
            );
        }
        transport::batch(|| given_up.into_iter().for_each(Outstanding::give_up));
        match judgement {
            Judgement::Silent => time_out / LOOKS,
            // A socket takes no time-out of zero.
            Judgement::Patience(patience) | Judgement::Ping(patience) => {
                patience.max(Duration::from_millis(1))
            }
        }
    }

    /// After messages were dropped, and once there is room again, sees to it that the peer looks
    /// for what it missed.
    pub(super) fn make_up_for_dropped(&self) {
        let mut state = lock(&self.state);
        let waiting = state.connection.as_ref().map_or(0, |it| it.waiting());
        let questions = state.outstanding.len();
        let has_room = waiting < QUEUE_LIMIT / 2 && questions < MOST_OUTSTANDING / 2;
        if has_room && std::mem::take(&mut state.dropped) {
            drop(state);
            self.returned();
        }
    }

    /// Gives a connection up that may be half open.
    pub(super) fn renew_if_hopeless(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let doubled = 1 << state.renewals.min(MOST_DOUBLINGS);
        let patience = self.settings.read_timeout * RENEW_AFTER * doubled;
        let opened = state.opened;
        if !state.suspicion.hopeless(self.now(), opened, patience) {
            return Ok(());
        }
        state.renewals += 1;
        let text = format!("silent for {} ms, perhaps half open", patience.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    /// Silence is noticed only while a question is outstanding, so now and then there is one.
    fn ask_if_quiet(&self, state: &mut State, now: Duration) {
        if state.last_asked + ASK_AFTER > now || !state.outstanding.is_empty() {
            return;
        }
        state.last_asked = now;
        state.suspicion.pinged(now);
        let connection = state.connection.clone();
        let question = Outstanding {
            asked: now,
            request: Request::Ping,
            sent: connection.is_some(),
            orphaned: false,
            callback: Box::new(|_| {}),
        };
        let id = state.remember(question);
        if let Some(connection) = connection {
            let ask = Request::Ping;
            message::send(&connection, &Ask { id, ask });
        }
    }
}

impl State {
    /// Asks the peer whether it is there. That any byte comes is enough: the answer itself finds no
    /// question of its number, and is dropped.
    fn ping(&mut self) {
        self.last_id += 1;
        if let Some(connection) = &self.connection {
            let (id, ask) = (self.last_id, Request::Ping);
            message::send(connection, &Ask { id, ask });
        }
    }

    /// How many bytes of values each question has that the peer may be taking at this moment. What was
    /// not sent to it, or on a connection that is gone, excuses no silence.
    fn sizes_being_taken(&self) -> impl Iterator<Item = usize> {
        let connected = self.connection.is_some();
        let sent = move |it: &&Outstanding| connected && it.sent && !it.orphaned;
        self.outstanding
            .values()
            .filter(sent)
            .map(|it| it.request.size())
    }

    /// Takes out the questions that were asked longer than `limit` ago; `time_out` for those
    /// that nobody can answer any more.
    fn take_overdue(
        &mut self,
        now: Duration,
        limit: Duration,
        time_out: Duration,
    ) -> Vec<Outstanding> {
        let overdue = |question: &Outstanding| {
            let limit = if question.orphaned {
                limit.min(time_out)
            } else {
                limit
            };
            question.asked + limit <= now
        };
        let outstanding = self.outstanding.iter();
        let ids: Vec<u64> = outstanding
            .filter(|(_, question)| overdue(question))
            .map(|(&id, _)| id)
            .collect();
        ids.iter()
            .filter_map(|id| self.outstanding.remove(id))
            .collect()
    }
}
