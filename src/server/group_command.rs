//! What a client may say about groups.

use super::command::{Command, Request, alone, expected, split_word, start_of, syntax, value};
use crate::bytes::Value;
use crate::error::Failure;
use crate::node::groups::Since;
use crate::protocol::group::{GroupName, MOST_NUMBER, Sender, check_nick, check_text};

/// How many messages `HISTORY` prints if it does not say.
const USUAL_HISTORY: usize = 32;
/// How many messages `HISTORY` prints at most.
const LONGEST_HISTORY: u64 = 1000;

/// A request about a group that is not [`Request::Say`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupCommand {
    Nick(String),
    Join {
        group: GroupName,
        since: Since,
    },
    Leave(GroupName),
    History {
        group: GroupName,
        after: Option<u64>,
        count: usize,
    },
    Who(GroupName),
    /// `GROUPS`: those with members at this node.
    List,
    Trim(GroupName),
}

/// Understands a line whose first word is `word`, if that is about groups.
pub fn parse(word: &str, rest: &str) -> Option<Result<Command, Failure>> {
    let about_groups = |command: Result<GroupCommand, Failure>| command.map(Command::Group);
    Some(match word {
        "NICK" => about_groups(nick(rest)),
        "JOIN" => about_groups(join(rest)),
        "SAY" => say(rest),
        "SEND" => send(rest),
        "HISTORY" => about_groups(history(rest)),
        "LEAVE" => about_groups(only_group(rest, "LEAVE group").map(GroupCommand::Leave)),
        "WHO" => about_groups(only_group(rest, "WHO group").map(GroupCommand::Who)),
        "GROUPS" => alone(rest, "GROUPS", Command::Group(GroupCommand::List)),
        "TRIM" => about_groups(only_group(rest, "TRIM group").map(GroupCommand::Trim)),
        _ => return None,
    })
}

fn nick(rest: &str) -> Result<GroupCommand, Failure> {
    let nick = rest.trim_matches(' ');
    check_nick(nick).map_err(|why| syntax(&why))?;
    Ok(GroupCommand::Nick(nick.to_owned()))
}

fn join(rest: &str) -> Result<GroupCommand, Failure> {
    let usage = "JOIN group, JOIN group LAST n or JOIN group AFTER n";
    let (group, rest) = group(rest, usage)?;
    let mut options = Options::of(rest);
    let since = match (options.take("LAST")?, options.take("AFTER")?) {
        (None, None) => Since::Now,
        (Some(count), None) => Since::Last(count),
        (None, Some(number)) => Since::After(number),
        (Some(_), Some(_)) => return Err(expected(usage)),
    };
    options.end(usage)?;
    Ok(GroupCommand::Join { group, since })
}

fn history(rest: &str) -> Result<GroupCommand, Failure> {
    let usage = "HISTORY group [AFTER n] [COUNT n]";
    let (group, rest) = group(rest, usage)?;
    let mut options = Options::of(rest);
    let after = options.take("AFTER")?;
    let count = options.take("COUNT")?;
    options.end(usage)?;
    Ok(GroupCommand::History {
        group,
        after,
        count: count.map_or(USUAL_HISTORY, |count| count.min(LONGEST_HISTORY) as usize),
    })
}

fn say(rest: &str) -> Result<Command, Failure> {
    let usage = "SAY group text";
    let (group, rest) = group(rest, usage)?;
    said(group, None, rest, usage)
}

fn send(rest: &str) -> Result<Command, Failure> {
    let usage = "SEND group session/since/seq text";
    let (group, rest) = group(rest, usage)?;
    let (name, rest) = split_word(rest.ok_or_else(|| expected(usage))?);
    let sender = Sender::parse(name).map_err(|why| syntax(&why))?;
    said(group, Some(sender), rest, usage)
}

fn said(
    group: GroupName,
    sender: Option<Sender>,
    rest: Option<&str>,
    usage: &str,
) -> Result<Command, Failure> {
    let text = Value::to_string(&value(rest, usage)?);
    check_text(&text).map_err(|why| syntax(&why))?;
    let say = Request::Say {
        group,
        sender,
        text,
    };
    Ok(Command::Request(say))
}

fn only_group(rest: &str, usage: &str) -> Result<GroupName, Failure> {
    let (group, rest) = group(rest, usage)?;
    Options::of(rest).end(usage)?;
    Ok(group)
}

fn group<'a>(rest: &'a str, usage: &str) -> Result<(GroupName, Option<&'a str>), Failure> {
    let (word, rest) = split_word(rest.trim_start_matches(' '));
    if word.is_empty() {
        return Err(expected(usage));
    }
    let group = GroupName::parse(word).map_err(|why| syntax(&why))?;
    Ok((group, rest))
}

/// What follows the name of a group: words, each with a number.
struct Options<'a>(Vec<&'a str>);

impl<'a> Options<'a> {
    fn of(rest: Option<&'a str>) -> Options<'a> {
        let words = rest.unwrap_or_default().split(' ');
        Options(words.filter(|word| !word.is_empty()).collect())
    }

    /// The number after this word, if the word is there.
    fn take(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        let mut words = self.0.iter();
        let Some(place) = words.position(|word| word.eq_ignore_ascii_case(name)) else {
            return Ok(None);
        };
        let number = self.0.get(place + 1).map_or("", |word| word);
        let parsed = number.parse().ok().filter(|number| *number < MOST_NUMBER);
        let wrong = || {
            let number = start_of(number);
            syntax(&format!(
                "{name} {number:?}: a number is missing or too large"
            ))
        };
        let parsed = parsed.ok_or_else(wrong)?;
        self.0.drain(place..=place + 1);
        Ok(Some(parsed))
    }

    fn end(self, usage: &str) -> Result<(), Failure> {
        self.0
            .is_empty()
            .then_some(())
            .ok_or_else(|| expected(usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        let command = Command::parse(line.as_bytes());
        command.unwrap_or_else(|failure| panic!("{line}: {failure}"))
    }

    fn group_named(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    #[test]
    fn requests_about_groups_are_understood() {
        let group = group_named("g");
        let join = |since| {
            let group = group.clone();
            Command::Group(GroupCommand::Join { group, since })
        };
        assert_eq!(parsed("JOIN g"), join(Since::Now));
        assert_eq!(parsed("join #g last 5"), join(Since::Last(5)));
        assert_eq!(parsed("JOIN  g AFTER 0 "), join(Since::After(0)));
        let history = |after, count| {
            let group = group.clone();
            let history = GroupCommand::History {
                group,
                after,
                count,
            };
            Command::Group(history)
        };
        assert_eq!(parsed("HISTORY g"), history(None, 32));
        assert_eq!(parsed("HISTORY g COUNT 5 AFTER 7"), history(Some(7), 5));
        assert_eq!(parsed("HISTORY g COUNT 9999"), history(None, 1000));
        let say = |text: &str, sender: Option<&str>| {
            Command::Request(Request::Say {
                group: group_named("g"),
                sender: sender.map(|name| Sender::parse(name).unwrap()),
                text: text.to_owned(),
            })
        };
        assert_eq!(parsed("SAY g two  words "), say("two  words ", None));
        assert_eq!(parsed(r#"SAY g "a \"b\"""#), say("a \"b\"", None));
        assert_eq!(parsed("SEND g s/0/1 x"), say("x", Some("s/0/1")));
    }

    #[test]
    fn what_is_not_understood_is_a_syntax_error() {
        let name = "n".repeat(33);
        let long = format!("SAY g {}", "\"".repeat(600));
        let lines = [
            &format!("NICK {name}"),
            "NICK",
            "NICK a b",
            "NICK a\"",
            "JOIN",
            "JOIN #",
            "JOIN a/b",
            &format!("JOIN {name}"),
            "JOIN g\u{7f}",
            "JOIN g LAST",
            "JOIN g LAST -1",
            "JOIN g AFTER 9007199254740992",
            "JOIN g LAST 1 AFTER 1",
            "JOIN g NOW",
            "SAY",
            "SAY g",
            "SAY g ",
            "SAY g \"a\\nb\"",
            "SAY g a\u{7}",
            &long,
            "SEND g",
            "SEND g s/0/1",
            "SEND g s/0/0 x",
            "SEND g s/0/9007199254740992 x",
            "SEND g a/b/0/1 x",
            "SEND g s:/0/1 x",
            "SEND g s/0 x",
            "HISTORY g COUNT",
            "LEAVE g now",
            "GROUPS g",
            "TRIM",
        ];
        for line in lines {
            let code = Command::parse(line.as_bytes()).map_err(|failure| failure.code());
            assert_eq!(code, Err("SYNTAX"), "{line}");
        }
    }
}
