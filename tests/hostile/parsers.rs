//! Parsers: no bytes make them panic, and what they write they read again.

use super::bytes::Bytes;
use pegasus_core::base::cidr::Cidr;
use pegasus_core::base::provider::{Provider, ProviderSpec};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::base::url::Url;
use pegasus_core::protocol::record::{self, RecordDecoder};
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::requester::Requester;
use pegasus_core::protocol::responder::Responder;
use std::fmt::Display;
use std::str::FromStr;

const SAMPLES: [&str; 12] = [
    "pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=9&weight=1.5&service=web&lease=30s",
    "pegasus://b/next?service=web&wait=1.5s&id=7&client=::1&avoid=10.0.0.1:80,[::1]:8",
    "pegasus://b/failure?provider=[2001:db8::1]:80&id=4294967295",
    "pegasus://b/done?id=1&result=reset",
    "pegasus://b/drain?provider=10.0.0.1&for=2h",
    "ok active=1.500 granted=12 waiting=0 mode=slots now=2 ended=11 held=35.125ms usual=2ms \
     queued=3",
    "ok discarded=100",
    "[::1]:80 id=7",
    "error bad-parameter tickets: missing id=4294967295",
    "18446744073709ms",
    "10.0.0.0/8",
    "secure NNpsk0 web3",
];

/// A sample with some bytes of others in it, or only those.
fn line(data: &mut Bytes) -> Vec<u8> {
    let mut line =
        if data.one_in(4) { Vec::new() } else { data.pick(&SAMPLES).as_bytes().to_vec() };
    for _ in 0..data.below(6) {
        let at = data.below(line.len().clamp(1, 256)).min(line.len());
        match data.below(4) {
            0 => line.truncate(at),
            1 if at < line.len() => line[at] = data.byte(),
            2 => line.insert(at, b"%&=?:/[]., 09"[data.below(13)]),
            _ => line.insert(at, data.byte()),
        }
    }
    line
}

fn round_trip<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        let again: Option<T> = printed.parse().ok();
        assert!(again.is_some_and(|again| again.to_string() == printed), "{text} was {printed}");
    }
}

fn one(line: &[u8]) {
    if let Ok(request) = Request::parse(line) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        request.write(&"b", &mut first);
        let again = Request::parse(first.strip_suffix(b"\n").unwrap()).unwrap();
        again.write(&"b", &mut second);
        assert_eq!(first, second);
    }
    if let Ok(reply) = Reply::parse(line) {
        let written = |reply: &Reply| {
            let mut line = Vec::new();
            reply.write(&mut line);
            line.pop();
            line
        };
        let line = written(&reply);
        let again = Reply::parse(&line).map(|reply| written(&reply));
        assert_eq!(again.as_ref(), Ok(&line), "{}", String::from_utf8_lossy(&line));
    }
    let _ = record::opening(line);
    let Ok(text) = std::str::from_utf8(line) else { return };
    if let Ok(url) = Url::parse(text) {
        url.pairs().for_each(drop);
    }
    round_trip::<Span>(text);
    round_trip::<Cidr>(text);
    round_trip::<Provider>(text);
    round_trip::<ProviderSpec>(text);
    round_trip::<ServiceName>(text);
}

pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let (mut responder, mut requester) = (Responder::default(), Requester::default());
    let (mut records, mut broken) = (RecordDecoder::default(), false);
    while !data.is_empty() {
        let mut bytes = line(&mut data);
        one(&bytes);
        bytes.push(b'\n');
        responder.receive(&bytes);
        while let Some((slot, _)) = responder.next_request() {
            responder.reply(slot, Reply::Ok);
        }
        let sent = responder.out.bytes().len();
        responder.out.sent(sent);
        requester.send(&"b", &Request::Status { service: None, export: None }, ());
        let sent = requester.out.bytes().len();
        requester.out.sent(sent);
        requester.receive(&bytes);
        while let Ok(Some(_)) = requester.next_reply() {}
        records.push(&bytes);
        while !broken {
            match records.next_record() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => broken = true,
            }
        }
    }
}
