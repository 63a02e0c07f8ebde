//! How a link watches for the silence of its peer.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::{info, warn};

use super::{Link, LinkState, MOST_OUTSTANDING, Outstanding};
use crate::lock;
use crate::transport;
use crate::transport::message::{self, Ask, QUEUE_LIMIT, Request};
use crate::transport::suspicion::{Judgement, LOOKS, time_to_take};

/// A peer that was asked nothing for so long gets a ping. The answer also says how far its log is durable,
/// which gives an old copy of its folder away if it is started later.
const PING_AFTER: Duration = Duration::from_millis(500);
/// A suspect's connection that is silent for so many read time-outs is opened anew, because it may be
/// half open. If the peer stays silent, the next attempt takes twice as long: a paused peer finds all
/// these connections when it goes on.
const RENEW_AFTER: u32 = 10;
/// How often that time is doubled at the most.
const MOST_DOUBLINGS: u32 = 5;

impl Link {
    /// Notes that a byte came in. Returns whether the peer was a suspect until now.
    pub(super) fn heard(&self) -> bool {
        let mut state = lock(&self.state);
        state.renewals = 0;
        let cleared = state.suspicion.heard(self.now());
        drop(state);
        if cleared {
            self.suspect.store(false, Ordering::Relaxed);
            info!("{} answers again", self.settings.peer);
        }
        cleared
    }

    /// Tells the node that the peer may have missed messages.
    pub(super) fn returned(&self) {
        if let Some(owner) = self.settings.owner.upgrade() {
            owner.returned(self.settings.peer);
        }
    }

    /// Judges the peer's silence, sends a ping if one is due, and gives up the questions whose time has
    /// passed. Returns how long to wait before the next look.
    pub(super) fn watch(&self) -> Duration {
        let now = self.now();
        let mut state = lock(&self.state);
        state.ask_if_quiet(now);
        let time_out = self.settings.read_timeout + time_to_take(state.sizes_being_taken());
        // A question that a reset took away proves nothing: nobody can answer it.
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
        let wants_ping = matches!(judgement, Judgement::Ping(_));
        if wants_ping || state.suspicion.ping_if_due(now, PING_AFTER) {
            state.ping();
        }
        drop(state);
        if suspect && !before {
            let millis = time_out.as_millis();
            warn!("{} is silent for {millis} ms: suspect", self.settings.peer);
        }
        transport::batch(|| given_up.into_iter().for_each(Outstanding::give_up));
        match judgement {
            Judgement::Silent => time_out / LOOKS,
            // A socket does not accept a time-out of zero.
            Judgement::Patience(patience) | Judgement::Ping(patience) => {
                patience.max(Duration::from_millis(1))
            }
        }
    }

    /// After messages were dropped, tells the node so once there is room again.
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
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if it does.
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
}

impl LinkState {
    /// Asks a question if there has been none for a while, because silence proves something only
    /// while a question is outstanding.
    fn ask_if_quiet(&mut self, now: Duration) {
        if self.last_asked + PING_AFTER > now || !self.outstanding.is_empty() {
            return;
        }
        self.last_asked = now;
        self.suspicion.pinged(now);
        let question = Outstanding {
            asked: now,
            request: Request::Ping,
            sent: self.connection.is_some(),
            orphaned: false,
            callback: Box::new(|_| {}),
        };
        let id = self.ping();
        self.outstanding.insert(id, question);
    }

    /// Sends a ping, and returns its id. Any byte from the peer is an answer, so the ping need not be
    /// outstanding: a reply without a question is dropped.
    fn ping(&mut self) -> u64 {
        let (id, ask) = (self.next_id(), Request::Ping);
        if let Some(connection) = &self.connection {
            message::send(connection, &Ask { id, ask });
        }
        id
    }

    /// The lengths of the values that the peer may be receiving at this moment. A question that was not
    /// sent, or on a connection that is gone, does not excuse silence.
    fn sizes_being_taken(&self) -> impl Iterator<Item = usize> {
        let connected = self.connection.is_some();
        let sent = move |it: &&Outstanding| connected && it.sent && !it.orphaned;
        self.outstanding
            .values()
            .filter(sent)
            .map(|it| it.request.value_size())
    }

    /// Removes the questions that were asked longer than `limit` ago, or longer than `time_out` ago if
    /// nobody can answer them any more.
    fn take_overdue(
        &mut self,
        now: Duration,
        limit: Duration,
        time_out: Duration,
    ) -> Vec<Outstanding> {
        let is_overdue = |question: &Outstanding| {
            let most = if question.orphaned { time_out } else { limit };
            question.asked + limit.min(most) <= now
        };
        let overdue = self.outstanding.iter().filter(|(_, it)| is_overdue(it));
        let ids: Vec<u64> = overdue.map(|(&id, _)| id).collect();
        ids.iter()
            .filter_map(|id| self.outstanding.remove(id))
            .collect()
    }
}
