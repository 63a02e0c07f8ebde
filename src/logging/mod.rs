//! Lines on their way to standard error.
//!
//! Standard error may be a pipe that nobody reads, or a terminal that Ctrl-S has stopped, and then
//! a write to it takes for ever. So nobody waits for it but one thread: all others put their lines into a
//! bounded queue. Lines that find no room are dropped, and their number takes their place.

mod throttle;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use log::{Log, Metadata, Record};

pub use throttle::Throttle;

use crate::{lock, wait, wait_for};

/// Lines that wait for standard error take no more than this, in bytes; a longer one is taken alone.
const MOST_QUEUED: usize = 256 << 10;
/// The end of the process waits no longer than this for lines to be written.
const FAREWELL: Duration = Duration::from_millis(500);

static LINES: Lines = Lines::new();

/// Lets everything that is logged, and panics, go to standard error through the queue. `RUST_LOG`
/// chooses what is logged, and by default all that is at least `info`.
///
/// # Errors
/// If the thread cannot be started. Nothing is logged then.
pub fn start() -> io::Result<()> {
    let write = || LINES.write_to(&mut io::stderr());
    thread::Builder::new().name("log".into()).spawn(write)?;
    let filter = env_logger::Env::default().default_filter_or("info");
    let formatted = env_logger::Builder::from_env(filter)
        .format_target(false)
        .format_timestamp_millis()
        .target(env_logger::Target::Pipe(Box::new(&LINES)))
        .build();
    log::set_max_level(formatted.filter());
    log::set_boxed_logger(Box::new(Queued(formatted))).map_err(io::Error::other)?;
    panic::set_hook(Box::new(print_panic));
    Ok(())
}

/// Prints a line whatever is logged.
pub fn print(line: &str) {
    LINES.push(format!("{line}\n").as_bytes());
}

/// Ends the process once all that was logged is written, or cannot be.
pub fn exit(code: i32) -> ! {
    LINES.flush(FAREWELL);
    process::exit(code)
}

/// The default hook would write to standard error itself.
fn print_panic(panic: &PanicHookInfo) {
    let thread = thread::current();
    print(&format!(
        "thread {:?} {panic}",
        thread.name().unwrap_or_default()
    ));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        print(&backtrace.to_string());
    }
    // A release ends the process behind the hook.
    LINES.flush(FAREWELL);
}

/// Filters and formats; its target is the queue.
struct Queued(env_logger::Logger);

impl Log for Queued {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        self.0.log(record);
    }

    /// Waits until all is written, for as long as the end of the process may be held up.
    fn flush(&self) {
        LINES.flush(FAREWELL);
    }
}

/// The queue.
struct Lines {
    queue: Mutex<Queue>,
    queued: Condvar,
    written: Condvar,
}

struct Queue {
    bytes: Vec<u8>,
    /// How many lines came after these and were dropped.
    dropped: u64,
    writing: bool,
}

impl Lines {
    const fn new() -> Lines {
        Lines {
            queue: Mutex::new(Queue {
                bytes: Vec::new(),
                dropped: 0,
                writing: false,
            }),
            queued: Condvar::new(),
            written: Condvar::new(),
        }
    }

    /// Queues a line, or drops it. Does not wait.
    fn push(&self, line: &[u8]) {
        let mut queue = lock(&self.queue);
        let full = !queue.bytes.is_empty() && queue.bytes.len() + line.len() > MOST_QUEUED;
        // A shorter line may fit, but must not stand before the number of those that came earlier.
        if full || queue.dropped > 0 {
            queue.dropped += 1;
            return;
        }
        queue.bytes.extend_from_slice(line);
        drop(queue);
        self.queued.notify_one();
    }

    /// The thread: writes what is queued, in order.
    fn write_to(&self, out: &mut dyn Write) -> ! {
        let mut bytes = Vec::new();
        let mut queue = lock(&self.queue);
        loop {
            while queue.bytes.is_empty() {
                queue = wait(&self.queued, queue);
            }
            std::mem::swap(&mut queue.bytes, &mut bytes);
            let dropped = std::mem::take(&mut queue.dropped);
            queue.writing = true;
            drop(queue);
            if dropped > 0 {
                let line = format!(
                    "{dropped} lines of the log were dropped: standard error was not read\n"
                );
                bytes.extend_from_slice(line.as_bytes());
            }
            // Where standard error is closed there is nobody to tell.
            let _ = out.write_all(&bytes);
            bytes.clear();
            queue = lock(&self.queue);
            queue.writing = false;
            self.written.notify_all();
        }
    }

    /// Waits until all that was queued is written, for so long at most.
    fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = lock(&self.queue);
        while queue.writing || !queue.bytes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = wait_for(&self.written, queue, left);
        }
    }
}

/// A message of the log comes in one piece.
impl Write for &Lines {
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

    use super::*;

    const SURELY: Duration = Duration::from_secs(60);

    /// Takes bytes only when it is told to.
    struct Slow {
        may_go_on: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).expect("the test reads");
            self.may_go_on.recv().expect("the test goes on");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A queue, what lets one write of its thread pass, and what these write.
    fn started() -> (&'static Lines, Sender<()>, Receiver<Vec<u8>>) {
        let lines: &Lines = Box::leak(Box::new(Lines::new()));
        let (go_on, may_go_on) = channel();
        let (written, write) = channel();
        let mut slow = Slow { may_go_on, written };
        thread::spawn(move || lines.write_to(&mut slow));
        (lines, go_on, write)
    }

    #[test]
    fn nobody_waits_for_a_blocked_reader_and_the_number_of_dropped_lines_takes_their_place() {
        let (lines, go_on, write) = started();
        lines.push(b"first\n");
        assert_eq!(write.recv_timeout(SURELY).unwrap(), b"first\n");
        // Its thread is stuck from here on.
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
