//! The scenarios: what is measured, with which balancers, and what PEGASUS should reach.

use super::load::fresh::Fresh;
use super::providers::Trade;

/// What clients do.
#[derive(Clone, Copy)]
pub enum Load {
    /// A connection for each request.
    Fresh(Fresh),
    /// So many bytes back and forth on so many connections.
    Ping(usize, usize),
    /// So many downloads at once.
    Bulk(usize),
    /// Connections without a byte.
    Idle,
    /// So many bytes back and forth in so many flows.
    Datagrams(usize, usize),
    /// Questions to a queue on so many connections, so many of them at a time.
    Queue(usize, usize),
}

/// A figure, in seconds, bytes, and things done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// Done in a second.
    Rate,
    /// Processor time of the balancer for each one done.
    Cpu,
    /// Wake-ups of the balancer for each one done.
    WakeUps,
    /// Of the whole system: clients, balancer and providers.
    Whole,
    P50,
    P99,
    /// How many failed in all rounds.
    Failed,
    /// Memory for each connection.
    PerConnection,
    /// Memory before the first.
    AtStart,
    /// The same, without what other processes use as well.
    AtStartShare,
}

impl Metric {
    /// What it is called where it is compared.
    pub fn word(self) -> &'static str {
        match self {
            Metric::Rate => "rate",
            Metric::Cpu => "CPU",
            Metric::WakeUps => "wake-ups",
            Metric::Whole => "whole CPU",
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::Failed => "failures",
            Metric::PerConnection | Metric::AtStart | Metric::AtStartShare => "memory",
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy)]
pub struct Column {
    pub metric: Metric,
    pub title: &'static str,
    /// How many of the title's units are in one of the metric's.
    pub scale: f64,
    pub digits: usize,
}

const fn column(metric: Metric, title: &'static str, scale: f64, digits: usize) -> Column {
    Column { metric, title, scale, digits }
}

const FAILED: Column = column(Metric::Failed, "failed", 1.0, 0);
const P50: Column = column(Metric::P50, "p50 ms", 1e3, 2);
const P99: Column = column(Metric::P99, "p99 ms", 1e3, 2);
const CONNECTIONS: Column = column(Metric::Rate, "conn/s", 1.0, 0);
const MESSAGES: Column = column(Metric::Rate, "messages/s", 1.0, 0);
const CPU_1000: Column = column(Metric::Cpu, "CPU ms per 1,000", 1e6, 1);
const WAKE_UPS: Column = column(Metric::WakeUps, "wake-ups each", 1.0, 2);

const WHOLE_1000: Column = column(Metric::Whole, "whole CPU ms per 1,000", 1e6, 1);

/// A goal for a row of PEGASUS.
pub enum Goal {
    /// The ratio of this figure to another's is at most so much.
    AtMost(Metric, &'static str, &'static str, f64),
    /// At least.
    AtLeast(Metric, &'static str, &'static str, f64),
    /// The figure itself is at most so much, in units of the column.
    Most(Metric, &'static str, f64),
}

/// One table.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub trade: Trade,
    pub load: Load,
    /// Names of rows.
    pub rows: &'static [&'static str],
    /// Rows that are compared with all others, by these columns.
    pub ours: &'static [&'static str],
    pub compared: &'static [Metric],
    pub columns: &'static [Column],
    pub goals: &'static [Goal],
}

use Goal::{AtLeast, AtMost, Most};
use Metric::{AtStart, Cpu, PerConnection, Rate};

const TCP: &[&str] =
    &["direct", "haproxy", "haproxy-splice", "nginx", "pen", "pegasus", "pegasus-daemon"];
/// With a redirector that asks no queue.
const FRESH: &[&str] = &[
    "direct",
    "haproxy",
    "haproxy-splice",
    "nginx",
    "pen",
    "socket-proxyd",
    "haproxy-auto",
    "pegasus-unasked",
    "pegasus",
    "pegasus-auto",
    "pegasus-daemon",
    "pegasus-keyed",
    "pegasus-daemon-auto",
    "pegasus-daemon-stock",
];
const BOTH: &[&str] = &[
    "pegasus",
    "pegasus-auto",
    "pegasus-daemon",
    "pegasus-keyed",
    "pegasus-daemon-auto",
    "pegasus-daemon-stock",
];
const CLOSED_LOOP: Fresh = Fresh { at_once: 64, rate: None, half_close: false };

/// All there are.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "cps",
        what: "a connection for each answer of 1 KB, 64 at once, the next when one has ended",
        trade: Trade::Answer,
        load: Load::Fresh(CLOSED_LOOP),
        rows: FRESH,
        ours: BOTH,
        compared: &[Cpu, Rate],
        columns: &[CONNECTIONS, CPU_1000, WAKE_UPS, P50, P99, FAILED],
        goals: &[
            AtMost(Cpu, "pegasus", "haproxy", 0.90),
            AtMost(Cpu, "pegasus", "nginx", 0.90),
            AtMost(Cpu, "pegasus", "pen", 0.95),
            AtLeast(Rate, "pegasus", "haproxy", 1.0),
            // The cost of the queue.
            AtMost(Cpu, "pegasus", "pegasus-unasked", 1.05),
            AtMost(Cpu, "pegasus-daemon", "pegasus-unasked", 1.15),
            // The cost of a key.
            AtMost(Cpu, "pegasus-keyed", "pegasus-daemon", 1.05),
        ],
    },
    Scenario {
        name: "rate",
        what: "the same, 2,000 a second, latency from when each was due",
        trade: Trade::Answer,
        load: Load::Fresh(Fresh { at_once: 4096, rate: Some(2000.0), half_close: false }),
        rows: FRESH,
        ours: BOTH,
        compared: &[Metric::P99, Cpu],
        columns: &[CONNECTIONS, CPU_1000, WAKE_UPS, P50, P99, FAILED],
        goals: &[AtMost(Metric::P99, "pegasus", "haproxy", 1.0)],
    },
    Scenario {
        name: "ping",
        what: "64 bytes back and forth on 64 connections",
        trade: Trade::Echo,
        load: Load::Ping(64, 64),
        rows: TCP,
        ours: &["pegasus"],
        compared: &[Cpu, Rate],
        columns: &[MESSAGES, CPU_1000, P50, P99, FAILED],
        goals: &[
            AtMost(Cpu, "pegasus", "haproxy", 1.0),
            AtMost(Cpu, "pegasus", "nginx", 0.90),
            AtMost(Cpu, "pegasus", "pen", 1.0),
        ],
    },
    Scenario {
        name: "bulk1",
        what: "downloads of 64 MiB, one at once",
        load: Load::Bulk(1),
        goals: &[
            AtMost(Cpu, "pegasus", "haproxy", 0.30),
            AtMost(Cpu, "pegasus", "nginx", 0.30),
            AtMost(Cpu, "pegasus", "pen", 0.30),
            AtMost(Cpu, "pegasus", "haproxy-splice", 1.0),
        ],
        ..BULK
    },
    Scenario {
        name: "bulk8",
        what: "downloads of 64 MiB, 8 at once",
        load: Load::Bulk(8),
        goals: &[
            AtMost(Cpu, "pegasus", "haproxy", 0.30),
            AtMost(Cpu, "pegasus", "nginx", 0.30),
            AtMost(Cpu, "pegasus", "pen", 0.30),
            AtMost(Cpu, "pegasus", "haproxy-splice", 0.85),
        ],
        ..BULK
    },
    Scenario {
        name: "idle",
        what: "memory of connections on which one byte went back and forth",
        trade: Trade::Echo,
        load: Load::Idle,
        rows: &["haproxy", "nginx", "pen", "pegasus", "pegasus-daemon"],
        ours: &["pegasus"],
        compared: &[],
        columns: &[
            column(PerConnection, "bytes per connection", 1.0, 0),
            column(AtStart, "MB at start, all", 1e-6, 2),
            column(Metric::AtStartShare, "MB at start, share", 1e-6, 2),
            FAILED,
        ],
        goals: &[Most(PerConnection, "pegasus", 512.0), Most(AtStart, "pegasus", 3.0)],
    },
    Scenario {
        name: "udp",
        what: "64 bytes back and forth in datagrams, 64 flows",
        trade: Trade::Datagrams,
        load: Load::Datagrams(64, 64),
        rows: &["direct", "nginx", "pen", "pegasus", "pegasus-daemon"],
        ours: &["pegasus"],
        compared: &[Cpu, Rate],
        columns: &[MESSAGES, CPU_1000, P50, P99, FAILED],
        goals: &[AtMost(Cpu, "pegasus", "nginx", 0.85), AtMost(Cpu, "pegasus", "pen", 1.0)],
    },
    Scenario {
        name: "inetd",
        what:
            "a process of openbsd-inetd for each answer of 1 KB, 8 at once, the client ends first",
        trade: Trade::Answer,
        load: Load::Fresh(Fresh { at_once: 8, rate: None, half_close: true }),
        rows: &["direct", "inetd-nc", "inetd-socat", "inetd-pegasus"],
        ours: &["inetd-pegasus"],
        compared: &[Cpu, Rate],
        columns: &[CONNECTIONS, column(Cpu, "CPU ms", 1e3, 2), P50, P99, FAILED],
        goals: &[Most(Cpu, "inetd-pegasus", 1.2)],
    },
    Scenario {
        name: "queue",
        what: "the queue alone: `next` in batches of 16 on 4 connections",
        trade: Trade::Answer,
        load: Load::Queue(4, 16),
        rows: &["pegasus-queue", "redis"],
        ours: &["pegasus-queue"],
        compared: &[Cpu, Rate],
        columns: &[column(Rate, "answers/s", 1.0, 0), column(Cpu, "CPU us", 1e6, 3), FAILED],
        goals: &[Most(Cpu, "pegasus-queue", 0.6)],
    },
];

/// The table of [`super::ways`].
pub const WAYS: Scenario = Scenario {
    name: "ways",
    what: "a connection for each answer of 1 KB, 64 clients at once, led in several ways",
    trade: Trade::Answer,
    load: Load::Fresh(CLOSED_LOOP),
    rows: &[],
    ours: &["pegasus", "nft"],
    compared: &[Rate, Metric::Whole],
    columns: &[CONNECTIONS, WHOLE_1000, CPU_1000, P50, P99, FAILED],
    goals: &[],
};

/// What all bulk scenarios share.
const BULK: Scenario = Scenario {
    name: "",
    what: "",
    trade: Trade::Download,
    load: Load::Bulk(1),
    rows: TCP,
    ours: &["pegasus"],
    compared: &[Cpu, Rate],
    columns: &[column(Rate, "GB/s", 1e-9, 2), column(Cpu, "CPU ms per GB", 1e12, 0), FAILED],
    goals: &[],
};
