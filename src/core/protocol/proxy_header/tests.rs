//! Headers there and back, byte by byte, and bytes that are none.

use super::*;
use crate::base::random::Random;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

fn addrs(client: &str, to: &str) -> ProxyAddrs {
    ProxyAddrs::new(client.parse().unwrap(), to.parse().unwrap())
}

#[track_caller]
fn whole(bytes: &[u8]) -> (usize, Option<ProxyAddrs>) {
    match parse(bytes) {
        ParseStatus::Complete { length, addrs, .. } => (length, addrs),
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

#[track_caller]
fn garbled(bytes: &[u8]) {
    assert!(
        matches!(parse(bytes), ParseStatus::Invalid(_)),
        "{}: {:?}",
        bytes.escape_ascii(),
        parse(bytes)
    );
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    [V2_START, &[command, family], &(body.len() as u16).to_be_bytes(), body].concat()
}

#[test]
fn version_1_is_the_line_of_the_specification() {
    let header = Header::v1(addrs("192.168.0.1:56324", "192.168.0.11:443"));
    assert_eq!(&*header, b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    let header = Header::v1(addrs("[2001:db8::1]:1", "[::1]:65535"));
    assert_eq!(&*header, b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n");
    let longest = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
    assert_eq!(Header::v1(addrs(longest, longest)).len(), 104);
}

#[test]
fn version_2_is_the_block_of_the_specification() {
    let header = Header::v2(Transport::Tcp, addrs("1.2.3.4:258", "5.6.7.8:772"), &[]);
    assert_eq!(*header, v2(0x21, 0x11, &[1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4]));
    let header = Header::v2(Transport::Udp, addrs("[::1]:258", "[::2]:772"), &[]);
    let (one, two) = (Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::from(2).octets());
    assert_eq!(*header, v2(0x21, 0x22, &[&one[..], &two, &[1, 2, 3, 4]].concat()));
    assert_eq!(header.len(), 52);
}

#[test]
fn of_two_families_both_are_written_in_ipv6() {
    let mixed = addrs("192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(&*Header::v1(mixed), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    assert_eq!(whole(&Header::v1(mixed)).1, Some(mixed));
    assert_eq!(whole(&Header::v2(Transport::Tcp, mixed, &[])).1, Some(mixed));
    assert_eq!(
        addrs("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2"),
        addrs("192.0.2.1:1", "192.0.2.2:2")
    );
}

#[test]
fn who_speaks_for_itself_or_of_the_unknown_names_nobody() {
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff::1 ffff::2 65535 1\r\n",
        "PROXY UNKNOWN \n \r \r\n",
    ] {
        assert_eq!(whole(line.as_bytes()), (line.len(), None), "{line:?}");
    }
    assert_eq!(whole(b"PROXY UNKNOWN \xff\xfe\r\nGET /"), (18, None));
    // The family of LOCAL is not looked at, and its length is.
    for (command, family, body) in
        [(0x20, 0, 0), (0x20, 0x11, 12), (0x20, 0xff, 7), (0x21, 0, 5), (0x21, 0x31, 216)]
    {
        let bytes = v2(command, family, &vec![7; body]);
        assert_eq!(whole(&bytes), (bytes.len(), None));
    }
    // Of the Internet, but of no transport that is known.
    assert_eq!(whole(&v2(0x21, 0x10, &[1; 12])).1, None);
}

/// Values of version 2, with a checksum that is still to be made right.
fn tlvs(sizes: &[usize]) -> Vec<u8> {
    let mut all = vec![3, 0, 4, 0, 0, 0, 0];
    for (number, size) in sizes.iter().enumerate() {
        all.push(0x20 + number as u8);
        all.extend((*size as u16).to_be_bytes());
        all.extend((0..*size).map(|place| place as u8));
    }
    all
}

#[test]
fn values_behind_the_addresses_pass_through() {
    let (ipv4, ipv6) = (addrs("1.2.3.4:5", "6.7.8.9:10"), addrs("[::1]:1", "[::2]:2"));
    for sizes in [&[][..], &[0], &[1, 300], &[4000, 80]] {
        // As they came from one balancer, and as the next one sends them.
        let came = Header::v2(Transport::Tcp, ipv4, &tlvs(sizes));
        let with_more = [&came[..], b"GET /"].concat();
        let ParseStatus::Complete { length, addrs, tlvs } = parse(&with_more) else {
            panic!("{:?}", parse(&with_more))
        };
        assert_eq!((length, addrs), (came.len(), Some(ipv4)));
        let sent = Header::v2(Transport::Tcp, ipv6, tlvs);
        let ParseStatus::Complete { tlvs: passed, .. } = parse(&sent) else {
            panic!("{:?}", parse(&sent))
        };
        // All but the checksum, which the other addresses change.
        assert_eq!((&passed[..3], &passed[7..]), (&tlvs[..3], &tlvs[7..]));
        assert_ne!(passed[3..7], tlvs[3..7]);
    }
}

#[test]
fn a_value_that_identifies_the_connection_is_added_once() {
    let own = with_unique_id(&tlvs(&[2]), b"mine");
    assert_eq!(own, [&tlvs(&[2])[..], &[5, 0, 4], b"mine"].concat());
    assert_eq!(with_unique_id(&own, b"yours"), own, "that of the front proxy stays");
    let header = Header::v2(Transport::Tcp, addrs("1.2.3.4:5", "6.7.8.9:10"), &own);
    assert!(
        matches!(parse(&header), ParseStatus::Complete { tlvs, .. } if tlvs.len() == own.len())
    );
}

#[test]
fn values_that_do_not_fit_and_wrong_checksums_are_garbled() {
    let addrs = addrs("1.2.3.4:5", "6.7.8.9:10");
    let header = Header::v2(Transport::Tcp, addrs, &tlvs(&[5])).to_vec();
    // Before its length it may become one that names no client, and at 28 is the type
    // of the checksum, without which there is none.
    for place in (14..28).chain(29..header.len()) {
        let mut wrong = header.clone();
        wrong[place] ^= 1;
        // Bytes of the length make it longer or shorter than what is here.
        let whole = matches!(parse(&wrong), ParseStatus::Complete { .. });
        assert!(!whole, "byte {place} was changed unnoticed");
    }
    for values in [&[1][..], &[1, 0], &[1, 0, 1], &[1, 0, 0, 9], &[3, 0, 3, 1, 2, 3]] {
        garbled(&Header::v2(Transport::Tcp, addrs, values));
    }
    garbled(&Header::v2(Transport::Tcp, addrs, &[tlvs(&[]), tlvs(&[])].concat()));
    // The longest there may be, and one more.
    let room = V2_BYTES_MAX - V2_FIXED_BYTES;
    assert_eq!(whole(&v2(0x20, 0, &vec![0; room])).0, V2_BYTES_MAX);
    garbled(&v2(0x20, 0, &vec![0; room + 1])[..16]);
}

#[test]
fn a_line_may_have_107_bytes_with_its_end_and_no_more() {
    let line = |length: usize| format!("PROXY UNKNOWN {:x<1$}\r\n", "", length - 16);
    assert_eq!(whole(line(107).as_bytes()).0, 107);
    garbled(line(108).as_bytes());
    assert_eq!(parse(&line(108).as_bytes()[..106]), ParseStatus::Incomplete);
    garbled(&line(108).as_bytes()[..107]);
}

#[test]
fn strangers_are_garbled_as_soon_as_they_differ() {
    for text in [
        "G",
        "PROXY\t",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 fe80::1%lo ::2 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY \r\n",
        "\r\n\r\nGET",
    ] {
        garbled(text.as_bytes());
    }
    let start = |more: &[u8]| [V2_START, more].concat();
    for more in [&[0x11][..], &[0x22], &[0x31], &[0x21, 0x13, 0, 12], &[0x21, 0x41, 0, 12]] {
        garbled(&start(more));
    }
    // Less than the addresses of its family need.
    for more in
        [[0x21, 0x11, 0, 11], [0x21, 0x21, 0, 35], [0x21, 0x32, 0, 215], [0x21, 0x11, 0x40, 9]]
    {
        garbled(&start(&more));
    }
}

fn some_ends(random: &mut Random) -> ProxyAddrs {
    let mut address = || {
        let bits = (u128::from(random.bits()) << 64) | u128::from(random.bits());
        let ip = if bits % 2 == 0 {
            IpAddr::from(Ipv4Addr::from(bits as u32))
        } else {
            Ipv6Addr::from(bits).into()
        };
        SocketAddr::new(ip, (bits >> 64) as u16)
    };
    ProxyAddrs::new(address(), address())
}

/// A seed that is different every time; a failure tells it.
fn seed() -> u64 {
    let given = std::env::var("PEGASUS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("PEGASUS_SEED={seed}");
    seed
}

#[test]
fn whatever_is_written_is_read_however_it_comes() {
    let mut random = Random::new(seed());
    for _ in 0..500 {
        let addrs = some_ends(&mut random);
        for header in [
            Header::v1(addrs),
            Header::v2(Transport::Tcp, addrs, &[]),
            Header::v2(Transport::Udp, addrs, &[]),
        ] {
            for length in 0..header.len() {
                assert_eq!(
                    parse(&header[..length]),
                    ParseStatus::Incomplete,
                    "{length} bytes of {header:?}"
                );
            }
            assert_eq!(whole(&header), (header.len(), Some(addrs)));
            let with_more = [&header[..], b"\r\nmore"].concat();
            assert_eq!(whole(&with_more), (header.len(), Some(addrs)));
        }
    }
}

#[test]
fn whatever_comes_is_answered_within_bounds() {
    let mut random = Random::new(seed());
    for _ in 0..2_000 {
        let addrs = some_ends(&mut random);
        // Whole headers with some bytes changed, and with more behind.
        let mut bytes = match random.bits() % 4 {
            0 => Header::v1(addrs).to_vec(),
            1 => Header::v2(Transport::Tcp, addrs, &[]).to_vec(),
            2 => V2_START.to_vec(),
            _ => V1_START.to_vec(),
        };
        for _ in 0..random.bits() % 4 {
            let place = random.bits() as usize % bytes.len();
            bytes[place] = random.bits() as u8;
        }
        let more = random.bits() % 600;
        bytes.extend((0..more).map(|_| random.bits() as u8));
        let mut settled = None;
        for length in 0..=bytes.len() {
            let heard = parse(&bytes[..length]);
            match heard {
                ParseStatus::Incomplete => {
                    assert!(length < V2_BYTES_MAX && settled.is_none(), "{}", bytes.escape_ascii())
                }
                ParseStatus::Complete { length: found, .. } => {
                    assert!(found <= length && found <= V2_BYTES_MAX)
                }
                ParseStatus::Invalid(_) => {}
            }
            // More bytes change nothing of what was said once.
            if heard != ParseStatus::Incomplete {
                assert_eq!(*settled.get_or_insert(heard), heard, "{}", bytes.escape_ascii());
            }
        }
    }
}
