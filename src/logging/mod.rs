//! Writes log lines to standard error without making anybody wait.
//!
//! Standard error may be a pipe that nobody reads, or a terminal that Ctrl-S has stopped. A write to it then
//! takes for ever. So only one thread writes to it, and all others put their lines into a bounded queue. Lines
//! that do not fit are dropped, and a line with their number takes their place.

mod throttle;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::{Condvar, LazyLock, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

pub use throttle::Throttle;

use crate::{lock, wait};

/// How many bytes of lines may wait for standard error. A longer line is queued if no other waits.
const MOST_QUEUED: usize = 256 << 10;
/// How long the end of the process waits for lines to be written.
const FAREWELL: Duration = Duration::from_millis(500);

static LINES: LazyLock<LogQueue> = LazyLock::new(LogQueue::default);
/// Whose log this is: every line begins with this.
static NAME: OnceLock<String> = OnceLock::new();

/// Sends the log and the messages of panics to standard error through the queue. `RUST_LOG` chooses what is
/// logged. The default is `info` and above.
///
/// # Errors
/// The thread cannot be started, or this is the second call. Nothing is logged then.
pub fn start() -> io::Result<()> {
    let write = || LINES.write_to(&mut io::stderr());
    thread::Builder::new().name("log".into()).spawn(write)?;
    let filter = env_logger::Env::default().default_filter_or("info");
    let formatted = env_logger::Builder::from_env(filter)
        .format(|line, record| {
            let (time, level) = (line.timestamp_millis(), record.level());
            let name = NAME.get().map_or("", String::as_str);
            writeln!(line, "[{time} {level:<5}] {name}{}", record.args())
        })
        .target(env_logger::Target::Pipe(Box::new(&*LINES)))
        .build();
    log::set_max_level(formatted.filter());
    log::set_boxed_logger(Box::new(formatted)).map_err(io::Error::other)?;
    panic::set_hook(Box::new(print_panic));
    Ok(())
}

/// From now on each line of the log begins with the name of the node that it is about.
pub fn name(node: impl Display) {
    NAME.get_or_init(|| format!("{node}: "));
}

/// Prints a line, whatever `RUST_LOG` says.
pub fn print(line: &str) {
    LINES.push(format!("{line}\n").as_bytes());
}

/// Waits until all lines are written, for at most half a second.
pub fn flush() {
    LINES.flush(FAREWELL);
}

/// Ends the process after its log is written, or cannot be written in half a second.
pub fn exit(code: i32) -> ! {
    flush();
    process::exit(code)
}

/// Replaces the default hook, which would write to standard error itself.
fn print_panic(panic: &PanicHookInfo) {
    let thread = thread::current();
    let name = thread.name().unwrap_or_default();
    print(&format!("thread {name:?} {panic}"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        print(&backtrace.to_string());
    }
    // In a release the process ends right after this hook.
    flush();
}

/// The bounded queue of lines.
#[derive(Default)]
struct LogQueue {
    pending: Mutex<Pending>,
    /// Lines were queued or written.
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    /// The queued lines.
    bytes: Vec<u8>,
    /// How many lines came after these and were dropped.
    dropped: u64,
    /// Whether the thread is writing lines that it took out.
    writing: bool,
}

impl LogQueue {
    /// Queues a line, or drops it if the queue is full. Does not wait.
    fn push(&self, line: &[u8]) {
        let mut pending = lock(&self.pending);
        let full = !pending.bytes.is_empty() && pending.bytes.len() + line.len() > MOST_QUEUED;
        // After a dropped line no shorter one is queued: it would stand before the number of dropped lines.
        if full || pending.dropped > 0 {
            pending.dropped += 1;
            return;
        }
        pending.bytes.extend_from_slice(line);
        drop(pending);
        self.changed.notify_all();
    }

    /// Runs the thread that writes the queued lines in order.
    fn write_to(&self, out: &mut dyn Write) -> ! {
        let mut bytes = Vec::new();
        let mut pending = lock(&self.pending);
        loop {
            while pending.bytes.is_empty() {
                pending = wait(&self.changed, pending);
            }
            std::mem::swap(&mut pending.bytes, &mut bytes);
            let dropped = std::mem::take(&mut pending.dropped);
            pending.writing = true;
            drop(pending);
            if dropped > 0 {
                let line = format!(
                    "{dropped} lines of the log were dropped: standard error was not read\n"
                );
                bytes.extend_from_slice(line.as_bytes());
            }
            // An error says that standard error is closed, so the error cannot be reported either.
            let _ = out.write_all(&bytes);
            bytes.clear();
            pending = lock(&self.pending);
            pending.writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits until all queued lines are written, at most for this time.
    fn flush(&self, patience: Duration) {
        let unwritten = |pending: &mut Pending| pending.writing || !pending.bytes.is_empty();
        let pending = lock(&self.pending);
        drop(
            self.changed
                .wait_timeout_while(pending, patience, unwritten),
        );
    }
}

/// Each call writes one whole message of the log.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;

    const SURELY: Duration = Duration::from_secs(60);

    /// Takes bytes only when the test lets it.
    struct SlowWriter {
        may_go_on: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for SlowWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).expect("the test reads");
            self.may_go_on.recv().expect("the test goes on");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A queue, a sender that lets one write of its thread pass, and what those writes contain.
    fn started() -> (&'static LogQueue, Sender<()>, Receiver<Vec<u8>>) {
        let lines: &LogQueue = Box::leak(Box::default());
        let (go_on, may_go_on) = channel();
        let (written, write) = channel();
        let mut slow = SlowWriter { may_go_on, written };
        thread::spawn(move || lines.write_to(&mut slow));
        (lines, go_on, write)
    }

    #[test]
    fn nobody_waits_for_a_blocked_reader_and_the_number_of_dropped_lines_takes_their_place() {
        let (lines, go_on, write) = started();
        lines.push(b"first\n");
        assert_eq!(write.recv_timeout(SURELY).unwrap(), b"first\n");
        // The thread is stuck in its write now.
        let long = vec![b'x'; MOST_QUEUED - 10];
        lines.push(&long);
        for line in ["does not fit\n", "short\n", "short, too\n"] {
            lines.push(line.as_bytes());
        }
        go_on.send(()).unwrap();
        let next = write.recv_timeout(SURELY).unwrap();
        let end = "3 lines of the log were dropped: standard error was not read\n";
        assert_eq!(next, [&long, end.as_bytes()].concat());
        lines.push(b"fits again\n");
        go_on.send(()).unwrap();
        assert_eq!(write.recv_timeout(SURELY).unwrap(), b"fits again\n");
    }

    #[test]
    fn a_line_that_is_longer_than_the_queue_is_written_whole() {
        let (lines, _go_on, write) = started();
        let long = vec![b'x'; 2 * MOST_QUEUED];
        lines.push(&long);
        assert_eq!(write.recv_timeout(SURELY).unwrap(), long);
    }

    #[test]
    fn the_end_waits_for_what_is_queued_and_no_longer_than_it_may() {
        let (lines, go_on, write) = started();
        lines.push(b"last\n");
        write.recv_timeout(SURELY).unwrap();
        let began = Instant::now();
        lines.flush(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
        lines.push(b"very last\n");
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        lines.flush(SURELY);
        assert_eq!(write.try_recv().unwrap(), b"very last\n");
    }
}
