//! How a client's visit ended: one list for the log, the status and the code.

use std::fmt;

/// Why a client's connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Both sides said all they had to say.
    Complete,
    /// The client reset the connection.
    ClientReset,
    /// The provider reset the connection, or no provider took a flow's datagrams any more.
    ProviderReset,
    /// No byte either way for `redirect_idle_timeout`.
    Idle,
    /// One side ended, the other did not within `redirect_half_closed_timeout`.
    HalfClosed,
    /// A flow of datagrams was as old as it may get.
    Aged,
    /// A flow of datagrams had to make room for a newer one.
    Evicted,
    /// Its provider withdrew, or was reported by others, while a flow led there.
    Withdrawn,
    /// It ran longer than `drain_timeout` after the redirector was told to end,
    /// or, as a flow, after its address was closed.
    Drained,
    /// The client left before it was served.
    GaveUp,
    /// No ticket within `redirect_wait`.
    NoTicket,
    /// No provider answered, of those that were tried.
    NobodyLeft,
    /// The ticket queue could not be reached within `redirect_queue_timeout`.
    QueueUnreachable,
    /// The ticket queue refused to talk.
    QueueRefused,
    /// This host had no socket to spare for it.
    OutOfSockets,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Outcome; 15] = [
        Outcome::Complete,
        Outcome::ClientReset,
        Outcome::ProviderReset,
        Outcome::Idle,
        Outcome::HalfClosed,
        Outcome::Aged,
        Outcome::Evicted,
        Outcome::Withdrawn,
        Outcome::Drained,
        Outcome::GaveUp,
        Outcome::NoTicket,
        Outcome::NobodyLeft,
        Outcome::QueueUnreachable,
        Outcome::QueueRefused,
        Outcome::OutOfSockets,
    ];

    /// Whether the client was turned away, instead of served.
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Outcome::NoTicket
                | Outcome::NobodyLeft
                | Outcome::QueueUnreachable
                | Outcome::QueueRefused
                | Outcome::OutOfSockets
        )
    }

    /// The word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::ClientReset => "client-reset",
            Outcome::ProviderReset => "provider-reset",
            Outcome::Idle => "idle",
            Outcome::HalfClosed => "half-closed",
            Outcome::Aged => "aged",
            Outcome::Evicted => "evicted",
            Outcome::Withdrawn => "withdrawn",
            Outcome::Drained => "drained",
            Outcome::GaveUp => "gave-up",
            Outcome::NoTicket => "no-ticket",
            Outcome::NobodyLeft => "nobody-left",
            Outcome::QueueUnreachable => "queue-unreachable",
            Outcome::QueueRefused => "queue-refused",
            Outcome::OutOfSockets => "out-of-sockets",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
