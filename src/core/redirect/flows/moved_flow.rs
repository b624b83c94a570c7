//! What a process must know of a flow to go on with it, as a line of text.
//!
//! Owns the line. The socket that leads to the provider goes with it. Knows no flow.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What goes with a flow. How long it was silent and how old it is starts anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MovedFlow {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client sends to, where the system reports it.
    pub local: Option<IpAddr>,
    /// The provider's address.
    pub to: SocketAddr,
    /// The one that replied last: of the provider, perhaps another port.
    pub peer: SocketAddr,
    /// Replies may come from any port of the provider.
    pub roams: bool,
    /// Datagrams from the client, and replies.
    pub datagrams: u32,
    /// See there.
    pub replies: u32,
}

impl fmt::Display for MovedFlow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let MovedFlow { client, to, peer, datagrams, replies, .. } = self;
        let local = self.local.map_or("-".to_string(), |ip| ip.to_string());
        let roams = u8::from(self.roams);
        write!(f, "{client} {local} {to} {peer} {roams} {datagrams} {replies}")
    }
}

impl FromStr for MovedFlow {
    type Err = ();

    /// Words that follow are of a newer program.
    fn from_str(line: &str) -> Result<MovedFlow, ()> {
        fn next<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Result<T, ()> {
            words.next().and_then(|word| word.parse().ok()).ok_or(())
        }
        let words = &mut line.split(' ');
        Ok(MovedFlow {
            client: next(words)?,
            local: match words.next().ok_or(())? {
                "-" => None,
                ip => Some(ip.parse().map_err(drop)?),
            },
            to: next(words)?,
            peer: next(words)?,
            roams: next::<u8>(words)? != 0,
            datagrams: next(words)?,
            replies: next(words)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_flow_is() {
        for line in [
            "192.0.2.1:5060 - 10.0.0.1:5060 10.0.0.1:5060 0 7 5",
            "[::1]:4000 ::ffff:127.0.0.1 [fe80::1%2]:69 [fe80::1%2]:4001 1 4294967295 0",
        ] {
            assert_eq!(line.parse::<MovedFlow>().unwrap().to_string(), line);
            assert!(format!("{line} more").parse::<MovedFlow>().is_ok());
            let cut = line.rsplit_once(' ').unwrap().0;
            assert!(cut.parse::<MovedFlow>().is_err(), "{cut}");
        }
    }
}
