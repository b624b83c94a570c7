//! Only the next write tells.

use std::thread;
use std::time::Duration;

/// Never returns.
pub fn wait_until_reader_left() {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
