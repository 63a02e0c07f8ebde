//! What is said in a pipe.

use std::io;
use std::thread::{self, JoinHandle};

use crate::client::group::Voice;

/// Says each line of standard input. The thread ends after the last one.
pub fn start(voice: Voice) -> JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        for line in io::stdin().lines() {
            if !voice.say(line?) {
                break;
            }
        }
        Ok(())
    })
}
