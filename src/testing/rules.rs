//! The rules that a test can leave out, to show that it would notice.
//!
//! A test that passes with a broken register proves nothing. So a test can leave one rule out and must
//! then find a violation. Each rule is enforced where the code asks [`holds`], and only there.
//!
//! A rule is left out on one thread by [`leave_out`], or in a whole process by its name in the environment
//! variable `DYNAMO_LEAVE_OUT`. Both need debug assertions. In a build without them [`holds`] is the
//! constant `true`, and nothing can be left out.

use std::cell::Cell;
use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

/// A rule whose absence breaks the store, or what it promises to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Rule {
    /// A promise is granted to a strictly higher ballot only.
    StrictPrepare,
    /// A vote for a ballot below the promise is refused.
    PromiseKept,
    /// A promise is durable before the replica answers.
    PromiseDurable,
    /// An accepted state is durable before the replica answers.
    AcceptDurable,
    /// A proposer goes on from the highest accepted state that the promises report.
    HighestAccepted,
    /// A read answers a state only once enough replicas hold it.
    WriteBackOnRead,
    /// A request whose dot the state has absorbed is not applied again.
    DotLookup,
    /// A refusal is recorded and chosen before the client hears of it.
    RefusalsRecorded,
    /// The answer of a change is kept in the state, so that a retry is told the same.
    AnswersKept,
    /// What a session has said is remembered, and not appended again.
    SendersKnown,
    /// A message waits for the one before it in its session.
    GapsRefused,
    /// No message is appended where no page could be stored in time.
    FullRefused,
    /// A session of which nothing is known begins with what the group's members have been shown.
    SinceChecked,
    /// A session that may have been forgotten is not taken for a new one.
    HorizonChecked,
    /// A session that begins in its middle may only be late, so it is not called forgotten.
    GapIsNotGone,
    /// A page of a group never takes the place of a later one.
    PagesGoForward,
    /// What is pushed ahead of its turn waits for what is missing.
    HeldBack,
    /// A group is read for what no push brought.
    Healed,
    /// A coordinator forgets the state that it remembers of a key as soon as a proposal for the key starts.
    MemoryDropped,
    /// A reply counts only for the question it answers.
    RepliesMatched,
    /// Only a key's replicas vote on it.
    OwnKeysOnly,
    /// A coordinator asks every replica, and not only as many as it needs.
    EveryReplicaAsked,
    /// An origin has one write of a key in flight at a time.
    OneWriteInFlight,
    /// A node that was away copies what it missed.
    MissedWritesPulled,
    /// A node whose folder was lost copies everything before it votes.
    LostFolderCopied,
    /// A folder that is a copy, or that was put back from an older copy, counts as lost.
    OldFolderDiscarded,
    /// A tombstone is dropped only when every replica of its key holds it or is past it.
    TombstoneEverywhere,
    /// The ballots of dropped records stay fenced off.
    DroppedBallotsFenced,
    /// The requests that a dropped tombstone contains stay refused.
    DroppedRequestsFenced,
    /// The tail of a chain answers a read only after another member has said that it serves the same epoch.
    ReadsConfirmed,
    /// A confirmation serves no read that came after it was asked for.
    LateReadsWait,
    /// The tail answers with a value only once it is durable there.
    DurableBeforeRead,
    /// An epoch begins only after all its members have adopted it.
    AdoptedByAll,
    /// An epoch begins only after all its members hold what any of them held.
    HeldByAll,
    /// The proposer of an epoch takes over what other members hold.
    StatesCollected,
    /// An epoch has two members at least.
    TwoCopies,
    /// A state of another epoch is refused.
    EpochChecked,
    /// Epochs of different proposers differ.
    EpochsNamed,
    /// A node that has restarted serves no epoch that it has adopted before.
    StepsNotReused,
    /// A member of a chain that serves takes over states from nobody.
    MembersPullNothing,
    /// A node that has stopped serving an epoch never serves it again.
    StoppedForGood,
    /// A state that not all members of an epoch held gets a ballot of the epoch before that begins.
    MovedStatesRenewed,
    /// The first epoch with a replica that has copied what it holds renews every state.
    CopiedStatesRenewed,
    /// A replica that is left out pulls from no chain that is older than what it has adopted.
    PulledFromNewer,
    /// What an epoch begins with is taken below the fence of dropped tombstones, too.
    GivenBelowTheFence,
}

thread_local! {
    static ON_THIS_THREAD: Cell<Option<Rule>> = const { Cell::new(None) };
}

static EVERYWHERE: OnceLock<Rule> = OnceLock::new();

/// Leaves one rule out on this thread, or none.
pub fn leave_out(rule: Option<Rule>) {
    ON_THIS_THREAD.set(rule);
}

/// Leaves out the rule that the environment names, if it names one, in this whole process.
///
/// # Errors
/// There is no rule of that name.
pub fn leave_out_everywhere() -> Result<(), String> {
    let Ok(name) = std::env::var("DYNAMO_LEAVE_OUT") else {
        return Ok(());
    };
    let wrong =
        |error: ValueError| format!("DYNAMO_LEAVE_OUT={name}: there is no such rule: {error}");
    let rule = Rule::deserialize(name.as_str().into_deserializer()).map_err(wrong)?;
    let again = |_| "a rule was left out already".to_owned();
    EVERYWHERE.set(rule).map_err(again)
}

/// Whether `rule` is in force. It always is, unless a test has left it out.
#[inline]
pub fn holds(rule: Rule) -> bool {
    cfg!(not(debug_assertions))
        || ON_THIS_THREAD.get() != Some(rule) && EVERYWHERE.get() != Some(&rule)
}
