//! `dynamo chat`: talks in a group, on a terminal or in a pipe.

mod editor;
mod lines;
mod wording;

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::Receiver;
use jiff::Zoned;

use super::arguments::member;
use crate::client::group::{News, Talk, join};
use crate::config::{Config, Member};
use crate::logging;
use crate::protocol::group::{GroupName, check_nick};
use crate::protocol::ring::NodeId;
use editor::{Editor, Printer};
use wording::Wording;

/// How many messages from before are shown first.
const LAST: u64 = 20;
/// How long nothing may be acknowledged before a pipe ends with an error, and a terminal that is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// Talks in a group.
///
/// It shows the last 20 messages, and then each message when it comes. When its node does not answer, it goes on at
/// the next one; each message is said and shown once all the same. Ctrl-D and Ctrl-C leave.
///
/// In a pipe, each line that comes in is said. After the last one the command waits until all are acknowledged. It
/// fails if nothing is acknowledged for 10 s.
#[derive(Args)]
#[command(after_help = "\
Examples:
  dynamo chat friends --as ann
  dynamo chat friends --as bob --node 5558
  date | dynamo chat friends --as clock")]
pub struct Options {
    /// The group: 1 to 32 bytes without spaces and any of /\"#.
    #[arg(value_parser = GroupName::parse)]
    group: GroupName,
    /// What the others know you by: 1 to 32 bytes without spaces and double quotes.
    #[arg(long = "as", value_name = "NAME", value_parser = nick)]
    nick: String,
    /// The node to begin with; the first of the cluster by default.
    #[arg(long, value_name = "ID")]
    node: Option<NodeId>,
}

fn nick(word: &str) -> Result<String, String> {
    check_nick(word).map(|()| word.to_owned())
}

/// Runs the subcommand.
///
/// # Errors
/// Not all that was said is acknowledged.
pub fn run(options: Options, config: &Config) -> Result<(), Box<dyn Error>> {
    let first = options.node.unwrap_or(config.nodes[0].id);
    member(config, first)?;
    let ids: Vec<NodeId> = config.nodes.iter().map(|member| member.id).collect();
    let can_edit = env::var_os("TERM").is_none_or(|term| term != "dumb");
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && can_edit;
    let editor = is_terminal
        .then(|| Editor::open(&options.nick))
        .transpose()?;
    let (voice, news) = join(Talk {
        group: options.group.clone(),
        nick: options.nick.clone(),
        last: LAST,
        nodes: config.nodes.iter().map(Member::client_address).collect(),
        first: ids.iter().position(|id| *id == first).unwrap_or(0),
        patience: PATIENCE,
        tries_on: editor.is_some(),
    });
    let has_colors = editor.is_some() && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let wording = Wording {
        group: options.group,
        nick: options.nick,
        ids,
        patience: PATIENCE,
        has_colors,
    };
    let (screen, input) = match editor {
        Some((editor, printer)) => (Screen::Terminal(printer), editor.start(voice)),
        None => (Screen::Pipe, lines::start(voice)),
    };
    show_all(news, &wording, screen, input)
}

/// Where news are shown.
enum Screen {
    Terminal(Printer),
    Pipe,
}

impl Screen {
    fn show(&mut self, news: &News, wording: &Wording) -> io::Result<()> {
        match (self, news) {
            (Screen::Terminal(printer), News::Message(message)) => {
                printer.print(&wording.message(message, &Zoned::now()))
            }
            (Screen::Terminal(printer), _) => {
                printer.print(&wording.styled_notice(&wording.notice(news)))
            }
            (Screen::Pipe, News::Message(message)) => {
                writeln!(io::stdout(), "{}", wording.message(message, &Zoned::now()))
            }
            // Messages are what a pipe is about. All else goes to standard error.
            (Screen::Pipe, News::Joined { left: None, .. }) => Ok(()),
            (Screen::Pipe, _) => {
                logging::print(&format!("dynamo: {}", wording.notice(news)));
                Ok(())
            }
        }
    }
}

/// Shows the news until the client has ended.
fn show_all(
    news: Receiver<News>,
    wording: &Wording,
    mut screen: Screen,
    input: JoinHandle<io::Result<()>>,
) -> Result<(), Box<dyn Error>> {
    let mut unsent = 0;
    for news in news {
        match news {
            News::NotSent { .. } | News::PerhapsSent(_) => unsent += 1,
            News::GaveUp { .. } => {
                if let Screen::Terminal(printer) = &mut screen
                    && !input.is_finished()
                {
                    // The editor ends by a key, and then gives the terminal back.
                    printer.print(&wording.styled_notice("this has ended; press Enter"))?;
                    let _ = input.join();
                }
                return Err(wording.notice(&news).into());
            }
            _ => {}
        }
        screen.show(&news, wording)?;
    }
    let ended = input.join().unwrap_or(Ok(()));
    ended.map_err(|error| format!("cannot read what is typed: {error}"))?;
    match (screen, unsent) {
        (Screen::Terminal(_), _) | (_, 0) => Ok(()),
        _ => Err(format!("{unsent} lines were not sent, or perhaps not; see above").into()),
    }
}
