//! poll(2) tells of an error at once, also where it is asked for nothing else.

/// Returns when the reader of standard output has left; never where it cannot leave.
pub fn wait_until_reader_left() {
    loop {
        let mut output = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
        // SAFETY: the call reads and writes the one structure that it is given.
        let count = unsafe { libc::poll(&raw mut output, 1, -1) };
        if count > 0 && output.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
            return;
        }
    }
}
