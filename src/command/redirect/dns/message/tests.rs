use super::*;

const SEED: u64 = 0x5eed;

/// A question as a client sends it: its name in dots, its type, and the size that EDNS tells.
fn message(name: &str, type_number: u16, edns: Option<u16>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(type_number.to_be_bytes());
    message.extend([0, 1]);
    if let Some(size) = edns {
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

fn question(name: &str, type_number: u16, edns: Option<u16>) -> Question {
    match read(&message(name, type_number, edns)) {
        Received::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

/// The code of an answer that has no records.
fn code(message: &[u8]) -> u8 {
    match read(message) {
        Received::Reply(reply) => {
            assert!(reply[..2] == message[..2] && reply[2] & 0x80 != 0);
            assert!(reply.len() <= message.len(), "longer than the question");
            reply[3] & 0xf
        }
        other => panic!("{other:?}"),
    }
}

fn providers(texts: &[&str]) -> Vec<Provider> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn of(providers: &[Provider]) -> Content<'_> {
    Content::Providers { providers, port: Some(8080), hosts: 0 }
}

#[test]
fn an_answer_has_the_question_as_it_came_and_one_record_an_address() {
    let question = question("wEb.ExAMPLE", 1, None);
    assert_eq!((question.kind(), question.length), (Kind::A, 29));
    let two = providers(&["10.0.0.2:80", "10.0.0.1:80"]);
    let reply = question.answer(&of(&two), 7, true);
    assert_eq!(reply[..12], [0x12, 0x34, 0x85, 0, 0, 1, 0, 2, 0, 0, 0, 0]);
    assert_eq!(reply[12..29], message("wEb.ExAMPLE", 1, None)[12..]);
    let record = |last| [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 7, 0, 4, 10, 0, 0, last];
    assert_eq!(reply[29..], [record(2), record(1)].concat());
}

#[test]
fn what_does_not_exist_comes_with_the_time_that_this_is_known() {
    let question = question("x.WEB.example", 28, Some(1400));
    for (content, code) in [(Content::NoData { zone: 2 }, 0), (Content::NoName { zone: 2 }, 3)] {
        let reply = question.answer(&content, 5, true);
        let packet = Packet::parse(&reply).unwrap();
        assert_eq!(packet.rcode() as u16, code);
        assert!(packet.answers.is_empty() && packet.opt().unwrap().udp_packet_size == 1232);
        let soa = &packet.name_servers[0];
        assert_eq!((soa.name.to_string().as_str(), soa.ttl), ("WEB.example", 5));
        assert!(matches!(&soa.rdata, RData::SOA(soa) if soa.minimum == 5));
    }
}

#[test]
fn hosts_of_srv_records_have_names_that_tell_their_addresses() {
    let question = question("_http._tcp.web.example", 33, Some(4096));
    let two = providers(&["[2001:db8::1]", "10.0.0.1:80"]);
    let content = Content::Providers { providers: &two, port: Some(8080), hosts: 11 };
    let reply = question.answer(&content, 1, true);
    let packet = Packet::parse(&reply).unwrap();
    let mut shown = Vec::new();
    for record in &packet.answers {
        let RData::SRV(srv) = &record.rdata else { panic!("{record:?}") };
        shown.push(format!("{} {} {}", srv.priority, srv.port, srv.target));
    }
    assert_eq!(
        shown,
        ["0 8080 20010db8000000000000000000000001.web.example", "1 80 0a000001.web.example"]
    );
    for (record, provider) in packet.additional_records.iter().zip(&two) {
        let label = record.name.get_labels()[0].to_string();
        assert_eq!(host_address(label.as_bytes()), Some(provider.ip));
    }
    for bad in ["", "0a00000", "0a0000011", "0a00000g", "+a000001"] {
        assert_eq!(host_address(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn an_answer_that_is_too_long_loses_its_hosts_and_then_all_records() {
    let texts: Vec<String> = (1..=8).map(|n| format!("[2001:db8::{n}]:80")).collect();
    let eight = providers(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let long = ["label"; 14].join(".");
    let lengths = |edns, datagram| {
        let question = question(&long, 33, edns);
        let reply = question.answer(&of(&eight), 1, datagram);
        let packet = Packet::parse(&reply).unwrap();
        let truncated = packet.has_flags(PacketFlag::TRUNCATION);
        assert!(!truncated || reply.len() <= question.length);
        (packet.answers.len(), packet.additional_records.len(), truncated)
    };
    assert_eq!(lengths(None, true), (0, 0, true));
    assert_eq!(lengths(Some(100), true), (0, 0, true));
    assert_eq!(lengths(Some(65_535), true), (8, 0, false), "no more than 1232 bytes");
    assert_eq!(lengths(None, false), (8, 8, false));
    // Eight addresses fit without EDNS.
    let reply = question("web.example", 28, None).answer(&of(&eight), 1, true);
    assert_eq!(Packet::parse(&reply).unwrap().answers.len(), 8);
}

#[test]
fn a_type_that_nobody_knows_is_a_question_too() {
    for number in [0, 65, 257, 999, 65_535] {
        let question = question("web.example", number, None);
        assert_eq!(question.kind(), Kind::Other);
        let reply = question.answer(&Content::NoData { zone: 0 }, 1, true);
        assert_eq!(reply[12..29], message("web.example", number, None)[12..], "{number}");
    }
}

#[test]
fn what_is_no_question_has_a_code_or_no_answer() {
    let good = message("web.example", 1, Some(1232));
    let with = |at: usize, bytes: &[u8]| {
        let mut message = good.clone();
        message[at..at + bytes.len()].copy_from_slice(bytes);
        message
    };
    assert!(matches!(read(&with(2, &[0x81])), Received::Nothing), "an answer");
    assert!(matches!(read(&good[..11]), Received::Nothing));
    assert!(matches!(read(&[]), Received::Nothing));
    let (format, not_implemented, refused) = (1, 4, 5);
    for (what, message, wants) in [
        ("opcode", with(2, &[0x29]), not_implemented),
        ("no question", with(4, &[0, 0]), format),
        ("two questions", with(4, &[0, 2]), format),
        ("answers", with(6, &[255, 255]), format),
        ("65,535 records", with(10, &[255, 255]), format),
        ("a record too many", with(10, &[0, 2]), format),
        ("a pointer", with(12, &[0xc0, 12]), format),
        ("cut", good[..20].to_vec(), format),
        ("class", with(27, &[0, 3]), refused),
        ("transfer", with(25, &[0, 252]), refused),
        ("OPT as a type", with(25, &[0, 41]), format),
    ] {
        assert_eq!(code(&message), wants, "{what}");
    }
    // EDNS of another version: code 16, whose upper part is in the record.
    let other = with(35, &[1]);
    let Received::Reply(reply) = read(&other) else { panic!() };
    assert_eq!((reply[3] & 0xf, reply[reply.len() - 6]), (0, 1));
    // The flag of those who check signatures is no version.
    assert!(matches!(read(&with(36, &[0x80])), Received::Question(_)));
    // Two records of EDNS.
    let mut twice = good.clone();
    twice[11] = 2;
    twice.extend(&good[29..]);
    assert_eq!(code(&twice), format);
    // Reserved flags are no error.
    assert!(matches!(read(&with(3, &[0x70])), Received::Question(_)));
}

#[test]
fn mangled_questions_never_get_more_bytes_than_they_have() {
    let mut state = SEED;
    let mut random = move |below: usize| {
        // xorshift64: any stream will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    let seeds = [
        message("web.example", 1, Some(1232)),
        message("_http._tcp.web.example", 33, None),
        message(&["a"; 100].join("."), 255, Some(0)),
    ];
    for round in 0..50_000 {
        let mut message = seeds[random(seeds.len())].clone();
        for _ in 0..=random(4) {
            let at = random(message.len());
            match random(4) {
                0 => message.truncate(at.max(1)),
                1 => message.insert(at, random(256) as u8),
                _ => message[at] = random(256) as u8,
            }
        }
        match read(&message) {
            Received::Nothing => {}
            Received::Reply(reply) => {
                assert!(reply.len() <= message.len(), "seed {SEED:#x}, round {round}");
            }
            Received::Question(question) => {
                assert!(question.truncated().len() <= message.len(), "{SEED:#x} {round}");
                let reply = question.answer(&Content::NoData { zone: 0 }, 1, true);
                assert!(Packet::parse(&reply).is_ok() || question.kind() == Kind::Other);
            }
        }
    }
}
