//! A monitor: queues that answer anything, samples and checks that tell anything.

use super::bytes::{pass, Bytes};
use pegasus_core::base::sample::Sample;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::monitor::monitor::{Input, Monitor, MonitorOptions, Output, ServiceOptions};
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;

const ANSWERS: [&str; 8] = [
    "ok active=0.5 granted=3 waiting=0 mode=slots now=1 ended=9 held=10ms usual=5ms queued=0",
    "ok active=1000000 granted=18446744073709551615 waiting=9 mode=slots now=4294967295 \
     ended=18446744073709551615 held=9999h usual=1ms queued=18446744073709551615",
    "ok active=0 granted=0 waiting=0 mode=paper",
    "ok active=0.1 granted=7 waiting=3 mode=engine now=0 ended=0 held=0ms share=2.5",
    "ok active=1 granted=1 waiting=1 mode=slots contested=yes tickets_max=1 lease_max=1ms",
    "ok discarded=3",
    "error busy",
    "error denied",
];

fn options(data: &mut Bytes) -> MonitorOptions {
    let service = |number: usize, data: &mut Bytes| ServiceOptions {
        service: format!("s{number}").parse().unwrap(),
        provider: format!(":{}", 80 + number).parse().unwrap(),
        capacity: data.one_in(2).then(|| data.below(9) as u32),
        check: data.one_in(2).then(|| Span::from_secs(1)),
        rise: 1 + data.below(3) as u32,
        fall: 1 + data.below(3) as u32,
    };
    MonitorOptions {
        interval: Span::from_secs(1),
        balancers: 1 + data.below(3),
        services: (0..1 + data.below(3)).map(|number| service(number, data)).collect(),
        drain_timeout: Span::from_secs(30),
    }
}

fn fraction(data: &mut Bytes) -> Option<f64> {
    match data.below(8) {
        0 => None,
        1 => Some(f64::from(data.byte()) * 1e6),
        _ => Some(f64::from(data.byte()) / 200.0),
    }
}

fn input(data: &mut Bytes, options: &MonitorOptions) -> Input {
    let balancer = data.below(options.balancers);
    let service = data.below(options.services.len());
    match data.below(10) {
        0 | 1 => Input::Up { balancer },
        2 => Input::Down { balancer },
        3 => Input::Seen { balancer, ip: [10, 0, 0, data.byte()].into() },
        4..=6 => {
            let reply = Reply::parse(data.pick(&ANSWERS).as_bytes()).unwrap();
            Input::QueueReply { balancer, service, reply }
        }
        7 => Input::Sampled(Sample {
            cpus: 0.1 + f64::from(data.byte()) / 8.0,
            utilisation: fraction(data),
            queued: fraction(data),
            load: fraction(data),
            full: fraction(data),
        }),
        8 => Input::Checked { service, good: data.one_in(2) },
        _ if data.one_in(64) => Input::Drain,
        _ => Input::Up { balancer },
    }
}

pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let options = options(&mut data);
    let mut monitor = Monitor::new(options.clone(), 1.0 + data.below(8) as f64, 7);
    let mut now = Moment::ZERO;
    while !data.is_empty() {
        if data.one_in(4) {
            // A loop sees each second.
            now = now + Span::from_millis(8 * u64::from(data.byte()));
        } else {
            monitor.handle_input(input(&mut data, &options), now);
        }
        let mut is_over = false;
        pass(&mut monitor, now, |output| {
            is_over |= output == Output::Finished;
            if let Output::SendToQueue { request, .. } = output {
                let mut line = Vec::new();
                request.write(&"b", &mut line);
                let read = Request::parse(line.strip_suffix(b"\n").unwrap());
                assert!(read.is_ok(), "{request:?}: {read:?}");
            }
            is_over
        });
        if is_over {
            return;
        }
    }
}
