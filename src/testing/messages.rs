//! Messages between nodes that tests of whole processes lose or hold up on purpose. The environment of
//! `dynamo node` says which.
//!
//! - `DYNAMO_PUSHES="PERCENT MILLIS"`: of the pushes of messages of groups that reach the node, that share is lost,
//!   and each other one is late by a random time up to so many milliseconds.
//! - `DYNAMO_REPLIES="PERCENT MILLIS"`: the same for what the node, as a coordinator, replies to another origin.
//!
//! In a build without debug assertions every message passes in time: for the compiler [`passage`] is a constant.

use std::sync::OnceLock;
use std::time::Duration;

/// A kind of message that can be lost or late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Messages of a group, for the members at the node.
    Push,
    /// The outcome of a request, for its origin.
    Reply,
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    InTime,
    Late(Duration),
    Lost,
}

/// How badly messages of one kind pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Loss {
    percent: u8,
    /// The longest delay, in milliseconds.
    millis: u64,
}

struct Armed {
    pushes: Option<Loss>,
    replies: Option<Loss>,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// What the environment demands. It demands nothing in a build without debug assertions.
fn armed() -> Option<&'static Armed> {
    cfg!(debug_assertions).then(|| ARMED.get())?
}

/// Reads the environment.
///
/// # Errors
/// A variable is wrong, or this is the second call.
pub fn arm() -> Result<(), String> {
    let read = |name| {
        let understood = |text: String| {
            let wrong = || format!("{name}={text} is no \"PERCENT MILLIS\", such as \"20 50\"");
            loss(&text).ok_or_else(wrong)
        };
        std::env::var(name).ok().map(understood).transpose()
    };
    let armed = Armed {
        pushes: read("DYNAMO_PUSHES")?,
        replies: read("DYNAMO_REPLIES")?,
    };
    ARMED.set(armed).map_err(|_| "armed twice".to_owned())
}

fn loss(text: &str) -> Option<Loss> {
    let (percent, millis) = text.split_once(' ')?;
    let loss = Loss {
        percent: percent.parse().ok()?,
        millis: millis.parse().ok()?,
    };
    (loss.percent <= 100).then_some(loss)
}

/// What becomes of the next message of this kind.
pub fn passage(kind: Kind) -> Passage {
    let of_kind = |armed: &Armed| match kind {
        Kind::Push => armed.pushes,
        Kind::Reply => armed.replies,
    };
    match armed().and_then(of_kind) {
        Some(loss) if fastrand::u8(..100) < loss.percent => Passage::Lost,
        Some(loss) if loss.millis > 0 => {
            Passage::Late(Duration::from_millis(fastrand::u64(..=loss.millis)))
        }
        _ => Passage::InTime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_a_share_and_a_time() {
        let expected = Loss {
            percent: 20,
            millis: 50,
        };
        assert_eq!(loss("20 50"), Some(expected));
        for wrong in ["", "20", "101 0", "20 -1", "20% 50", "20 50 1"] {
            assert_eq!(loss(wrong), None, "{wrong}");
        }
    }
}
