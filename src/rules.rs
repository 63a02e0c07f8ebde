//! The rules that a test can leave out, to show that it would notice.
//!
//! Each place in the code that enforces one of these rules asks [`holds`]. In a release build
//! that is the constant `true` and nothing can be left out. In a debug build a test of this
//! thread can leave one rule out ([`leave_out`]) and must then find the violation: a simulator
//! that passes with a broken register proves nothing.

/// A rule whose absence breaks the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// A promise is granted to a strictly higher ballot only.
    StrictPrepare,
    /// A vote for a ballot below the promise is refused.
    PromiseKept,
    /// A proposer goes on from the highest accepted state that the promises report.
    HighestAccepted,
    /// A read answers a state only once enough replicas hold it.
    WriteBackOnRead,
    /// A request whose dot the state has absorbed is not applied again.
    DotLookup,
    /// A refusal is recorded and agreed on before it is told.
    RefusalsRecorded,
    /// What is remembered of a key is forgotten as soon as a proposal for it starts.
    MemoryDropped,
    /// A reply counts only for the question it answers.
    RepliesMatched,
}

#[cfg(debug_assertions)]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Leaves one rule out on this thread, or none. Exists in debug builds only.
#[cfg(debug_assertions)]
pub fn leave_out(rule: Option<Rule>) {
    LEFT_OUT.set(rule);
}

/// Whether `rule` is in force: always, but for a test that has left it out.
#[inline]
pub fn holds(rule: Rule) -> bool {
    #[cfg(debug_assertions)]
    return LEFT_OUT.get() != Some(rule);
    #[cfg(not(debug_assertions))]
    {
        let _ = rule;
        true
    }
}
