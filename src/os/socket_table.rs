//! `/proc/net/tcp` and its relatives: a line for each socket of this network namespace.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// The state of a connection. Sockets for datagrams have states of their own.
#[cfg(any(feature = "monitor", test))]
pub const ESTABLISHED: &str = "01";
/// The state of a socket that takes connections.
#[cfg(feature = "operate")]
pub const LISTEN: &str = "0A";

/// What a line tells.
#[derive(PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The local port.
    pub port: u16,
    /// As the kernel numbers it, two hexadecimal digits.
    pub state: &'a str,
    /// The number of the socket among the descriptors of its process.
    pub inode: &'a str,
}

/// Calls a function for each socket of `tcp`, `tcp6`, `udp` or `udp6`. None if that cannot be
/// read; without IPv6 there is no second file. Others change it meanwhile: a socket may come
/// twice, or not at all.
pub fn for_each(table: &str, mut call: impl FnMut(&Entry)) -> Option<()> {
    let file = File::open(format!("/proc/net/{table}")).ok()?;
    let mut lines = BufReader::with_capacity(1 << 16, file);
    let mut line = String::new();
    while lines.read_line(&mut line).ok()? > 0 {
        if let Some(entry) = parse(&line) {
            call(&entry);
        }
        line.clear();
    }
    Some(())
}

/// None for the head of the table.
fn parse(line: &str) -> Option<Entry<'_>> {
    // Number, local address, remote address, state, five others, inode.
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, _, state) = (words.next()?, words.next()?, words.next()?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some(Entry { port, state, inode: words.nth(5)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_port_the_state_and_the_inode() {
        let line = "   0: 0100007F:1F90 0200007F:A455 01 00000000:00000000 00:00000000 00000000 \
                    0        0 21312 1 0000000000000000 100 0 0 10 0";
        let entry = Entry { port: 8080, state: ESTABLISHED, inode: "21312" };
        assert_eq!(parse(line), Some(entry));
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                    uid  timeout inode";
        assert_eq!(parse(head), None);
    }
}
