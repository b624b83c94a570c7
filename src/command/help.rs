//! The manual, in the binary.
//!
//! Owns the texts of `pegasus help`; keys and schedulers come from their tables.

use super::exit;
use super::terminal::complain;
use crate::config::keys;
use pegasus_core::schedule::registry;
use std::io::{self, Write};

const OVERVIEW: &str = "\
PEGASUS: competitive load balancing. Providers compete for work: nobody
configures servers on the balancer.

On a balancer:
  pegasus queue    [options]      keep the tickets, answer redirectors
  pegasus redirect [options]      join each client to the next provider
On a provider:
  pegasus monitor  [options]      watch the load, send tickets
Anywhere:
  pegasus send     [URL…]         send control messages, print the answers
  pegasus demo     [--seconds N]  a whole cluster on loopback, to try
  pegasus help     [COMMAND|config|protocol|schedulers|plugins|superservers|udp]

  -c, --config FILE    configuration (default /etc/pegasus.conf where it exists)
  -o, --set KEY=VALUE  one key, over the file; repeatable
  -s, --service NAME   redirect: the service of an inherited socket
  -t, --test           read it all, report every mistake; exit 0 or 78
  -v, -q               more, less log; repeatable
  -h, --help           this;   -V, --version  version, target, mechanisms

Exit status: 0 done, 1 an answer was an error, 64 wrong usage, 69 unreachable,
71 the system refused, 77 no permission, 78 configuration.
Signals: TERM, INT drain, a second one ends at once; HUP reads the configuration
again; USR1 opens the log file again; USR2 lets a new process take over
(redirect only).
";

const QUEUE: &str = "\
pegasus queue [-c FILE] [-o KEY=VALUE]… [-t] [-v] [-q]

Keeps the tickets that monitors send and answers redirectors, on queue_listen
(127.0.0.1:7347), in the words of `pegasus help protocol`. By default only this
host may speak; queue_allow_ticket and queue_allow_next name the networks that
may instead, each address for itself only: keep 127.0.0.0/8 and ::1 among them.
The options are those of `pegasus help`.

  pegasus queue &
  Q=pegasus://127.0.0.1
  pegasus send $Q/ticket?provider='10.0.0.7:80&tickets=2&capacity=8'
  pegasus send pegasus://127.0.0.1/next        prints 10.0.0.7:80
";

const REDIRECT: &str = "\
pegasus redirect [-c FILE] [-o KEY=VALUE]… [-s SERVICE] [-t] [-v] [-q]

The queue is redirect_queue, an address. Where that is not set, the queue is in
this process and listens on queue_listen; `embedded` says the same. Under a
superserver, and in a program without a queue, the default is 127.0.0.1:7347.

Joins each client to the provider that the queue names. Started by inetd or
tcpserver it serves the client or the listening socket on descriptor 0, from
systemd the sockets that were passed (`pegasus help superservers`); otherwise it
listens on every service_NAME_listen: IP:PORT, *:PORT for both families, the
port perhaps a range 40000-40020. A provider that was registered without a port
is called on the port that the client came to.

A provider that refuses, does not answer the call, or resets before a byte was
exchanged costs a client nothing but time: the failure is reported, and the next
provider tried. Nothing reaches a client but its provider's bytes.
Of UDP see `pegasus help udp`.

HUP opens the places that are new in the configuration and closes those that
are gone, once whoever waits there is taken in, after a second at the latest;
what stays is not touched. If a place cannot be had, nothing changes and the log
says why: so, too, if a new one overlaps with one that goes (127.0.0.1:80 and
*:80), which takes a restart.
USR2 starts the program anew, by the path and with the arguments that this
process was started with, and hands its sockets over: kill -USR2 PID after the
file was replaced is an upgrade that refuses nobody. Once the new process
is ready the old one takes no clients any more, and ends when those it has are
gone, after drain_timeout at the latest. If the new one is not ready in 30 s,
the log says why and the old one goes on. The sockets of an embedded queue go
along, and what it was offered; monitors come to the new one within a second.
Affinities are forgotten. (Unix, standalone.
Whom a superserver starts is upgraded by its next start, a queue of its own by a
restart: clients wait for it.)

Beyond redirect_connections_max, or what the descriptors of the process (ulimit
-n) are enough for, two a client, clients wait to be accepted. If there is none
for a provider all the same, the call waits for one, in turn, for
redirect_connect_timeout at most, and the log says so once a minute.
With redirect_per_source_max one more client of an address (IPv6: of its /64) is
reset at once, without asking the queue. (UDP has redirect_flows_max.)

redirect_stock=16 keeps so many places at hand, so that a client need not wait
for a queue in another process to answer. What is not used within 250 ms is
given back, and what the queue could not give counts as refused in its status,
though no client was. Services with affinity, or with a scheduler that looks at
the client, have none.

One log line a client, at level info: sent is to the client, received from it,
waited until a provider answered; outcome is complete, client-reset,
provider-reset, idle, half-closed, drained, gave-up, no-ticket, nobody-left,
queue-unreachable, queue-refused or out-of-sockets.

service_NAME_proxy_protocol=v1 or v2: the first that each provider receives is a
header of the PROXY protocol, which tells the client's address and the one that
the client came to; if these are of two families, both as IPv6. The provider
must expect it (nginx: listen … proxy_protocol, HAProxy: accept-proxy). A check
brings none: tcp only connects, exec:COMMAND has to write its own. Of datagrams
see `pegasus help udp`.

service_NAME_accept_proxy=\"10.0.0.5 10.0.1.0/24\": who connects from there is a
front proxy, and must begin with such a header, of either version. The client is
then whom it tells, for the log, affinity, the queue and the header to the
provider; UNKNOWN and LOCAL mean the proxy itself. One that is garbled, longer
than 107 (v1) or 536 bytes (v2), or not whole within 5 seconds is refused with
one log line, and nothing was asked for it. Anybody else is a client: what looks
like a header is passed on with the other bytes, and not believed. What a proxy
does to check whether anybody is here, a connection without a byte, or its own
without one behind the header, has its log line at level debug.

  pegasus redirect -o 'service_web_listen=*:8080'
  pegasus redirect -o 'service_dns_listen=*:53/udp' -o service_dns_udp_replies=1
";

const MONITOR: &str = "\
pegasus monitor [-c FILE] [-o KEY=VALUE]… [--once] [-t] [-v] [-q]

Watches this machine's load, checks its services, and every monitor_interval
sends each balancer tickets for them. Offers the services that have a
service_NAME_provider, _capacity or _check; if none has, all that are named.
On TERM it withdraws everywhere and leaves when nothing is in progress, after
drain_timeout at the latest.

  --once   print one look at the machine and the messages it would send

tickets are the slots of the machine: requests that it runs at once. The
capacity in messages is four times that: what may run and queue there. Slots are
found out; service_NAME_capacity is the most. Several balancers share them.

monitor_load: cpu (utilisation and run queue), loadavg, psi, or file:PATH and
exec:COMMAND, which give one line: how full the machine is, from 0 to 1, or
`u=0.5 q=3 c=4` for utilisation, requests queued, and workers. With several the
fullest counts; one that says nothing of use for three intervals means full.
CPUs are those of the process's affinity and, on Linux, the quotas of its
control groups: one with cpu.max `150000 100000` has 1.5, and loadavg counts per
CPU of that. Utilisation and run queue are the whole host's, though: in a
container with a quota set service_NAME_capacity.

service_NAME_check: tcp connects to the provider's port (a provider without one
needs tcp:PORT, or is not checked). A server that hangs still accepts; only
exec:COMMAND finds that out: the service is well if it ends with 0 in time.

  pegasus monitor -o monitor_balancers=lb1 -o service_web_provider=:80
";

const SEND: &str = "\
pegasus send [-c FILE] [-o KEY=VALUE]… [URL…]

Sends control messages (or the lines of standard input) and prints the answers,
one a line. Exit status 0; 1 if an answer was an error; 69 if a queue cannot be
reached. The port is 7347 unless the URL has one. A URL without a host goes to
redirect_queue, or where that is `embedded` or not set, to the first address of
queue_listen.

  pegasus send pegasus://127.0.0.1/status
  pegasus send pegasus:///status
";

const DEMO: &str = "\
pegasus demo [--seconds N]

A whole cluster on loopback: three small HTTP providers with monitors, one of
them slow, a queue, and a redirector on 127.0.0.1:8080 (another port if that is
taken). Shows a live table and what to try. With --seconds it makes its own
clients, prints the final table and exits, 0 if every request was answered.
";

const PROTOCOL: &str = "\
Control messages are URLs over TCP, port 7347: one request a line, one answer
line, in order; a connection may carry any number and be pipelined.

  pegasus://B/ticket?provider=A&tickets=N&capacity=M[&service=S][&lease=T]
  pegasus://B/next[?service=S][&wait=T][&id=K][&client=IP][&avoid=A,…]
  pegasus://B/failure?provider=A[&service=S][&id=K]
  pegasus://B/done?id=K[&unused=yes]
  pegasus://B/withdraw[?provider=A][&service=S]
  pegasus://B/status[?service=S]

B names the balancer and is not checked. A is IP, IP:PORT, [IPv6], [IPv6]:PORT,
or :PORT for the address that the connection comes from. S is `default` if not
given. T is a duration (250ms, 30s, 5m, 2h).

ticket    a provider takes N requests at once and queues up to M. A message
          replaces the earlier one. Answer, of the time since that one:
          ok active=MEAN granted=N waiting=N mode=slots|paper
          requests in progress, grants, requests that had to wait or got an
          error, and whether grants were by `next` with id (slots) or without
next      the answer is the next provider, or an error. Without id a ticket is
          spent; with id (1 to 4294967295) the request is active until done,
          failure with that id, or the end of the connection; the answer ends in
          ` id=K` and may overtake earlier waiting ones.
failure   the provider was found dead: its tickets go, it is held for a moment.
          Answer: ok discarded=N, the tickets that were free
done      the request with this id has ended; with unused=yes its provider was
          never reached, and is not judged by it.
withdraw  the provider leaves; its running requests stay. Answer: the same, 0
          also where it was not known
status    lines of a word and key=value pairs, then a line with a single dot

A line `queue`, then for each service a line `service` and its lines `provider`.
What has a * is counted since the queue started, or first heard of that service
or provider; the rest is of now.

  connections   control connections
  services      services that the queue knows
  waiting       `next` that wait for a ticket
  asked *       `next` that came
  granted *     those that were answered with a provider
  refused *     those that were answered with an error
  forgotten *   those whose asker hung up while they waited
  providers     that offer, or have requests in progress
  tickets       as the provider's last message said; capacity, the same
  free          tickets that nobody has
  active        requests in progress, of `next` with id
  spent         tickets that `next` without id took since the last message
  offered       free + active + spent
  failures *    reported failures
  lease         how long the last message still holds
  held          how long it gets nothing yet, after a failure

Errors: error REASON, with one of no-ticket crowded busy denied bad-url
bad-parameter unknown-command too-long draining. A line has at most 1024 bytes;
after too-long, or three bad lines in a row, the connection is closed.

  printf 'pegasus://127.0.0.1/next\\n' | nc -N 127.0.0.1 7347
";

const SUPERSERVERS: &str = include_str!("help/superservers.txt");

const SCHEDULERS_EXEC: &str = "  exec:COMMAND    a program of yours (`pegasus help plugins`)
";

const SCHEDULERS_ADVICE: &str = "
Keep the default: it knows who has a free place and who is quick, and needs no
weights; where requests are not counted (`next` without id) it is weighted. Take
least-loaded where time says nothing of speed (chats, downloads), source-hash
where providers remember clients (none gets more than 1.25 times its share),
first to switch idle machines off.
Mean response times, simulated. Machines of speed 1:2:4 at half load:
competitive 15 ms; least-loaded, shortest-delay and never-queue 23, for they do
not know who is quick; fifo and random-two 25, round-robin 27. CPUs 1:2:4:8 at
90 %: competitive 62, never-queue 69, round-robin 80, fifo 83.
";

const PLUGINS: &str = "\
queue_scheduler=\"exec:COMMAND\", or service_NAME_scheduler for one service: the
command runs beside the queue and is asked where there is a choice. It reads a
line for every event and question, words KEY=VALUE after the first:

  ticket provider=10.0.0.7:80 tickets=4 capacity=16
  failed provider=10.0.0.7:80          (also withdrew, lease-ended)
  next id=5 service=web client=192.0.2.1 candidates=10.0.0.7:80,10.0.0.8:80
       tickets=4,4 capacity=16,16 active=1,0          (all on one line)

and answers each `next` with one line, in any order:

  id=5 provider=10.0.0.8:80

A program that is slower than queue_plugin_timeout (50ms), dead, or wrong costs
no client more than that: the default scheduler stands in, the log says so once,
and the program is started again. Whoever waits for a place gets the next one
that is free without asking. conf/plugins has one in sh and one in Perl.
";

const UDP: &str = "\
A listening address that ends in /udp serves datagrams:

  service_dns_listen=*:53/udp      service_dns_udp_replies=1
  service_tftp_listen=*:69/udp     service_syslog_listen=*:514/udp

A flow is what one client's address and port sends to one address of ours. Its
first datagrams (8, or 64 KiB) wait until the queue has named a provider; all
of them go there, from one socket, and its answers come back from the address
that the client wrote to. A flow counts as a request in progress at the queue.
Its end is a line in the log: outcome=

  complete        each datagram had service_NAME_udp_replies answers (0: never)
  idle            no datagram either way for service_NAME_udp_idle
  aged            it lasted service_NAME_udp_age; its next datagram is led anew
  evicted         redirect_flows_max: who was silent longest makes room
  provider-reset  its provider is gone; its next datagram is led anew
  withdrawn       its provider offers no more, others do; the same
  drained         drain_timeout after the end, or after HUP removed its address

After HUP flows that are here end as the new configuration says. Without a
provider a flow ends as a connection does: see `pegasus help redirect`.

A provider whose host says that nobody is there (ICMP) is reported, and left by
all its flows at once. What was sent to it within the last second and had no
answer is sent to another one, up to 8 datagrams or 64 KiB of each flow, so that
one-way senders (syslog) lose little or nothing. A provider that is silent
cannot be told from one that has nothing to say: let its monitor check it, with
service_NAME_check=exec:COMMAND or tcp:PORT (off: not at all).

While flows last, the queue is asked every second what it holds of their
service. A provider that is there no more, or with capacity 0 (it withdrew, its
lease ended, its check failed, others reported it), loses its flows if somebody
else offers places. A TFTP transfer under way stays: nobody else could go on
with it. The queue must allow it (queue_allow_status); udp_age bounds a flow
all the same.

Clients that sent one datagram make room before those that sent more, as long
as they have a quarter of redirect_flows_max: a flood of strangers displaces
itself.

A provider may answer from another port than it was asked on, as TFTP does for
each transfer. Answers from any port of its address reach the client, from the
address and port that the client wrote to, and the client's further datagrams
go to the port that answered last. A TFTP request in such a flow begins a new
one, so that a client may keep its port for the next file. (Linux and Windows;
on other systems in flows that begin with a TFTP request, which in turn do not
hear that nobody is there; in others only the port that was asked is heard.)

service_NAME_udp_flow=off: every datagram is a request of its own. It is over
with its first answer (or udp_replies of them), or after udp_idle, which should
be short where nobody answers.

service_NAME_proxy_protocol=v2: the first datagram of a flow to a provider has a
header of the PROXY protocol before its own bytes, which the provider must
understand. Name servers (BIND, Unbound, Knot, PowerDNS, dnsdist) want one
before every datagram: set udp_flow=off as well. nginx takes none by UDP. A
datagram that is longer than 65507 bytes with its header is lost, which the log
says at level debug. v1 has no words for datagrams; service_NAME_accept_proxy is
of streams.

On a wildcard address of a host with several addresses answers leave from the
one that was written to. Where the system does not tell which that was (it is
asked on Linux), each of up to 64 addresses has a socket of its own beside that
of all; new ones are looked for every 10 s, and at HUP. That was tried on Linux
only: elsewhere the sure way is to list the addresses instead of `*`.
Datagrams that come faster than they are led wait at their socket, on Linux up
to 4 MiB of them if started as root, else up to net.core.rmem_max.

On Linux each of redirect_threads threads has a socket of its own at an address
(SO_REUSEPORT), and the system divides the clients among them. A thread has an
equal part of redirect_flows_max, and reports by itself that a provider is dead.
Elsewhere, and where a superserver opened the socket, one thread has all flows.

Told to end, it begins no new flow, and ends when the others have been silent
for a second, after drain_timeout at the latest. After USR2 answers of old flows
still reach their clients; what these send begins a flow anew.
";

/// Prints a page of the manual, if it is of this program; the result is an exit status.
pub fn print(words: &[String]) -> i32 {
    let page = match words.first().map_or("", String::as_str) {
        "" => OVERVIEW.to_string(),
        "queue" if cfg!(feature = "queue") => QUEUE.to_string(),
        "redirect" if cfg!(feature = "redirect") => REDIRECT.to_string(),
        "monitor" if cfg!(feature = "monitor") => MONITOR.to_string(),
        "send" => SEND.to_string(),
        "demo" if cfg!(feature = "demo") => DEMO.to_string(),
        "config" => keys::sample(),
        "protocol" => PROTOCOL.to_string(),
        "schedulers" if cfg!(feature = "queue") => schedulers(),
        "plugins" if cfg!(feature = "queue") => PLUGINS.to_string(),
        "superservers" if cfg!(feature = "redirect") => SUPERSERVERS.to_string(),
        "udp" if cfg!(feature = "redirect") => UDP.to_string(),
        other => {
            complain(format_args!("pegasus: no help on `{other}`"));
            complain(OVERVIEW.trim_end());
            return exit::USAGE;
        }
    };
    // A reader that left, as with `| head`, is no error.
    let _ = io::stdout().lock().write_all(page.as_bytes());
    exit::OK
}

fn schedulers() -> String {
    let mut text = String::from("queue_scheduler=NAME, or service_NAME_scheduler=NAME for one service:\n\n");
    for entry in registry::entries() {
        let (name, aliases) = (entry.names[0], entry.names[1..].join(" "));
        let line =
            if aliases.is_empty() { entry.sentence.to_string() } else { format!("{} ({aliases})", entry.sentence) };
        text.push_str(&format!("  {name:<16}{line}\n"));
    }
    text.push_str(SCHEDULERS_EXEC);
    text.push_str(SCHEDULERS_ADVICE);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fit_a_terminal() {
        for page in
            [OVERVIEW, QUEUE, REDIRECT, MONITOR, SEND, DEMO, PROTOCOL, PLUGINS, SUPERSERVERS, UDP, &schedulers()]
        {
            let long = page.lines().find(|line| line.chars().count() > 80);
            assert_eq!(long, None);
        }
        assert!(schedulers().lines().count() <= 24);
    }
}
