//! The search for an order of one key's operations.

use std::collections::HashSet;

use super::{Need, State, Step};

/// What a search ended with.
pub enum Found {
    Order,
    /// There is no order. The longest attempt ended before this operation.
    NoOrder(usize),
    /// The budget is spent.
    Nothing,
}

/// The search through the orders of one key's operations.
pub struct Search {
    /// Ascending by call.
    steps: Vec<Step>,
    unknown: Vec<usize>,
    done: Vec<u64>,
    state: State,
    /// For each write, how many operations still to come need its state.
    needed: Vec<usize>,
    /// All operations before this index have come, or need not come.
    first: usize,
    /// The operations that have come, each with the state before it.
    trail: Vec<(usize, State)>,
    visited: HashSet<(Box<[u64]>, State)>,
    /// The length of the longest order so far, and the operation that could not follow.
    longest: (usize, usize),
}

/// A place in the search: the ways to go on from it, and how long the trail to it is.
struct Place {
    ways: Vec<Vec<usize>>,
    trail: usize,
}

impl Search {
    pub fn new(steps: Vec<Step>) -> Search {
        let mut needed = vec![0; steps.len()];
        for step in &steps {
            if let (Need::Exactly(Some(write)), Some(_)) = (step.need, step.returned) {
                needed[write] += 1;
            }
        }
        let is_unknown = |&index: &usize| steps[index].returned.is_none() && !steps[index].void;
        Search {
            unknown: (0..steps.len()).filter(is_unknown).collect(),
            done: vec![0; steps.len().div_ceil(64)],
            state: None,
            needed,
            first: 0,
            trail: Vec::new(),
            visited: HashSet::new(),
            longest: (0, 0),
            steps,
        }
    }

    pub fn run(mut self, budget: u64) -> Found {
        let mut places: Vec<Place> = Vec::new();
        for _ in 0..budget {
            let candidates = self.take_what_changes_nothing();
            let Some(&(earliest, _)) = candidates.first() else {
                return Found::Order;
            };
            if self.trail.len() >= self.longest.0 {
                self.longest = (self.trail.len(), earliest);
            }
            let (ways, trail) = (self.ways(&candidates), self.trail.len());
            places.push(Place { ways, trail });
            let way = loop {
                let Some(place) = places.last_mut() else {
                    return Found::NoOrder(self.longest.1);
                };
                let (way, trail) = (place.ways.pop(), place.trail);
                self.undo(trail);
                match way {
                    Some(way) => break way,
                    None => drop(places.pop()),
                }
            };
            way.into_iter().for_each(|index| self.take(index));
        }
        Found::Nothing
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    fn take(&mut self, index: usize) {
        self.trail.push((index, self.state));
        self.done[index / 64] |= 1 << (index % 64);
        let step = self.steps[index];
        if let (Need::Exactly(Some(write)), Some(_)) = (step.need, step.returned) {
            self.needed[write] -= 1;
        }
        if let Some(state) = step.becomes {
            self.state = state;
        }
    }

    fn undo(&mut self, trail: usize) {
        for (index, state) in self.trail.drain(trail..).rev() {
            self.done[index / 64] &= !(1 << (index % 64));
            self.state = state;
            self.first = self.first.min(index);
            let step = self.steps[index];
            if let (Need::Exactly(Some(write)), Some(_)) = (step.need, step.returned) {
                self.needed[write] += 1;
            }
        }
    }

    /// Takes every operation that is possible now and changes nothing. Returns the operations that may come
    /// next, the one that returned first in front. Each has a bound: only operations called by then may
    /// come before it.
    fn take_what_changes_nothing(&mut self) -> Vec<(usize, u64)> {
        loop {
            let candidates = self.candidates();
            let mut taken = false;
            for &(index, _) in &candidates {
                let step = self.steps[index];
                if step.becomes.is_none() && self.satisfied(self.state, step.need) {
                    self.take(index);
                    taken = true;
                }
            }
            if !taken {
                return candidates;
            }
        }
    }

    /// The operations that may come next: they must come, and none of them had returned before another was
    /// called.
    fn candidates(&mut self) -> Vec<(usize, u64)> {
        let over = |search: &Search, index: usize| {
            search.steps[index].returned.is_none() || search.is_done(index)
        };
        while self.first < self.steps.len() && over(self, self.first) {
            self.first += 1;
        }
        let mut bound = u64::MAX;
        let mut candidates = Vec::new();
        for index in self.first..self.steps.len() {
            if self.steps[index].called > bound {
                break;
            }
            if !over(self, index) {
                bound = bound.min(self.steps[index].returned.unwrap_or(u64::MAX));
                candidates.push((index, bound));
            }
        }
        candidates.retain(|&(index, _)| self.steps[index].called <= bound);
        candidates
            .iter_mut()
            .for_each(|candidate| candidate.1 = bound);
        candidates.sort_by_key(|&(index, _)| self.steps[index].returned);
        candidates
    }

    fn satisfied(&self, state: State, need: Need) -> bool {
        match need {
            Need::Anything => true,
            Need::Exactly(needed) => state == needed,
            Need::Other(unwanted) => state != unwanted,
            Need::Present => state.is_some(),
            Need::Unnamed => state.is_some_and(|write| !self.steps[write].named),
            Need::Impossible => false,
        }
    }

    /// Each way to go on: writes of unknown outcome, then one of the candidates. The last way is the
    /// likeliest: that of the operation that returned first.
    fn ways(&mut self, candidates: &[(usize, u64)]) -> Vec<Vec<usize>> {
        let configuration = (self.done.clone().into_boxed_slice(), self.state);
        if !self.visited.insert(configuration) {
            return Vec::new();
        }
        let mut ways = Vec::new();
        for &(index, bound) in candidates.iter().rev() {
            for mut way in self.preludes(self.steps[index].need, bound) {
                way.push(index);
                if self.leaves_nothing_needed(&way) {
                    ways.push(way);
                }
            }
        }
        ways
    }

    /// The shortest runs of writes of unknown outcome that lead to what is needed.
    fn preludes(&self, need: Need, bound: u64) -> Vec<Vec<usize>> {
        if self.satisfied(self.state, need) {
            return vec![Vec::new()];
        }
        match need {
            Need::Exactly(state) => self.run_to(state, bound).into_iter().collect(),
            Need::Other(_) | Need::Present | Need::Unnamed => self
                .unknown
                .iter()
                .filter_map(|&index| self.steps[index].becomes)
                .filter(|&state| self.satisfied(state, need))
                .filter_map(|state| self.run_to(state, bound))
                .collect(),
            Need::Anything | Need::Impossible => Vec::new(),
        }
    }

    /// The one run of writes of unknown outcome that leads to a state, built from its end.
    fn run_to(&self, state: State, bound: u64) -> Option<Vec<usize>> {
        let mut run = Vec::new();
        let mut goal = state;
        while goal != self.state {
            let usable = |index: usize, run: &[usize]| {
                let step = self.steps[index];
                let unknown = step.returned.is_none() && !step.void;
                unknown && step.called <= bound && !self.is_done(index) && !run.contains(&index)
            };
            let maker =
                match goal {
                    Some(write) => Some(write).filter(|&write| usable(write, &run)),
                    // Deletes are all alike.
                    None => self.unknown.iter().copied().find(|&index| {
                        self.steps[index].becomes == Some(None) && usable(index, &run)
                    }),
                }?;
            run.push(maker);
            match self.steps[maker].need {
                Need::Exactly(before) => goal = before,
                need if self.satisfied(self.state, need) => break,
                _ => return None,
            }
        }
        run.reverse();
        Some(run)
    }

    /// Whether no state that is left on this way is needed by anybody later.
    fn leaves_nothing_needed(&self, way: &[usize]) -> bool {
        let mut state = self.state;
        way.iter().all(|&index| {
            let step = self.steps[index];
            let Some(next) = step.becomes else {
                return true;
            };
            let left = std::mem::replace(&mut state, next);
            let own = usize::from(step.need == Need::Exactly(left) && step.returned.is_some());
            left.is_none_or(|write| left == next || self.needed[write] == own)
        })
    }
}
