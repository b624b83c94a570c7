//! PROXY headers, as two libraries of other authors write and read them.

use crate::support::random::Random;
use pegasus_core::base::endpoint::Transport;
use pegasus_core::protocol::proxy_header::{parse, Header, ParseStatus, ProxyAddrs, Version};
use ppp::model::Addresses;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader, Tlv};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

fn some_addrs(random: &mut Random) -> ProxyAddrs {
    let v4 = random.below(2) == 0;
    let mut address = || {
        let bits = (u128::from(random.next()) << 64) | u128::from(random.next());
        // Never a mapped one, which ours takes for IPv4.
        let v6 = Ipv6Addr::from(bits | (1 << 127));
        let ip: IpAddr = if v4 { Ipv4Addr::from(bits as u32).into() } else { v6.into() };
        SocketAddr::new(ip, random.below(65536) as u16)
    };
    ProxyAddrs { source: address(), destination: address() }
}

/// Values with any type but that of the checksum.
fn some_tlvs(random: &mut Random) -> Vec<(u8, Vec<u8>)> {
    let count = random.below(6);
    let mut value = || {
        let kind = [0x01, 0x02, 0x04, 0x05, 0x20, 0x30, 0xe0, 0xef][random.below(8) as usize];
        let most = if random.below(9) == 0 { 600 } else { 40 };
        let length = random.below(most);
        (kind, random.bytes(length as usize))
    };
    (0..count).map(|_| value()).collect()
}

fn bytes_of(tlvs: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let one = |(kind, value): &(u8, Vec<u8>)| {
        [&[*kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    };
    tlvs.iter().flat_map(one).collect()
}

/// The addresses and values that `ppp` reads, of either version.
fn by_ppp(bytes: &[u8]) -> Option<(usize, ProxyAddrs, Vec<u8>)> {
    let (rest, header) = ppp::parse_header(bytes).ok()?;
    let tlvs: Vec<_> = header.tlvs().map(|tlv| (tlv.value_type(), tlv.value().to_vec())).collect();
    let (source, destination): (IpAddr, IpAddr) = match header.addresses {
        Addresses::IPv4 { source_address: from, destination_address: to, .. } => {
            (from.into(), to.into())
        }
        Addresses::IPv6 { source_address: from, destination_address: to, .. } => {
            (from.into(), to.into())
        }
        Addresses::Unix { .. } | Addresses::None => return None,
    };
    let (Addresses::IPv4 { source_port: from, destination_port: to, .. }
    | Addresses::IPv6 { source_port: from, destination_port: to, .. }) = header.addresses
    else {
        return None;
    };
    let addrs = ProxyAddrs {
        source: SocketAddr::new(source, from?),
        destination: SocketAddr::new(destination, to?),
    };
    Some((bytes.len() - rest.len(), addrs, bytes_of(&tlvs)))
}

/// The addresses that `proxy-header` reads, of either version.
fn by_proxy_header(bytes: &[u8]) -> Option<(usize, ProxyAddrs)> {
    let config = ParseConfig { include_tlvs: true, allow_v1: true, allow_v2: true };
    let (header, length) = ProxyHeader::parse(bytes, config).ok()?;
    let addresses = header.proxied_address()?;
    let addrs = ProxyAddrs { source: addresses.source, destination: addresses.destination };
    Some((length, addrs))
}

#[test]
fn others_read_what_is_written() {
    let mut random = Random::told();
    for _ in 0..2_000 {
        let addrs = some_addrs(&mut random);
        let tlvs = bytes_of(&some_tlvs(&mut random));
        let line = Header::of_stream(Version::V1, addrs, &tlvs);
        assert_eq!(by_proxy_header(&line), Some((line.len(), addrs)), "{line:?}");
        assert_eq!(by_ppp(&line), Some((line.len(), addrs, Vec::new())), "{line:?}");
        for transport in [Transport::Tcp, Transport::Udp] {
            let header = Header::v2(transport, addrs, &tlvs);
            let length = header.len();
            assert_eq!(by_ppp(&header), Some((length, addrs, tlvs.clone())), "{header:?}");
            assert_eq!(by_proxy_header(&header), Some((length, addrs)), "{header:?}");
        }
    }
}

#[test]
fn what_others_write_is_read() {
    let mut random = Random::told();
    for _ in 0..2_000 {
        let addrs = some_addrs(&mut random);
        let tlvs = some_tlvs(&mut random);
        let protocol = [Protocol::Stream, Protocol::Datagram][random.below(2) as usize];
        let ProxyAddrs { source, destination } = addrs;
        let values = tlvs.iter().map(|(kind, value)| Tlv::Custom(*kind, value.into()));
        let address = ProxiedAddress { protocol, source, destination };
        let header = ProxyHeader::with_tlvs(Some(address.clone()), values);
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).unwrap();
        let length = bytes.len();
        bytes.extend(b"GET /");
        let expected = ParseStatus::Complete { length, addrs: Some(addrs), tlvs: &bytes_of(&tlvs) };
        assert_eq!(parse(&bytes), expected, "{}", bytes.escape_ascii());
        if protocol == Protocol::Stream {
            let mut line = Vec::new();
            ProxyHeader::with_address(address).encode_v1(&mut line).unwrap();
            let length = line.len();
            let expected = ParseStatus::Complete { length, addrs: Some(addrs), tlvs: &[] };
            assert_eq!(parse(&line), expected, "{}", line.escape_ascii());
        }
    }
}

#[test]
fn of_mangled_headers_all_read_the_same_or_refuse() {
    let mut random = Random::told();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let addrs = some_addrs(&mut random);
        let header = Header::v2(Transport::Tcp, addrs, &bytes_of(&some_tlvs(&mut random)));
        let mut bytes = header.to_vec();
        for _ in 0..random.below(3) {
            let place = random.below(bytes.len() as u64) as usize;
            bytes[place] = random.next() as u8;
        }
        bytes.truncate(bytes.len() - (random.below(40) as usize).saturating_sub(36));
        match parse(&bytes) {
            ParseStatus::Complete { length, addrs: Some(addrs), tlvs } => {
                read += 1;
                let text = bytes.escape_ascii();
                assert_eq!(by_ppp(&bytes), Some((length, addrs, tlvs.to_vec())), "{text}");
                assert_eq!(by_proxy_header(&bytes), Some((length, addrs)), "{text}");
            }
            // The others do not look at the checksum, and take longer headers.
            ParseStatus::Invalid(why) if why.contains("checksum") || why.contains("4 KiB") => {}
            ParseStatus::Invalid(_) | ParseStatus::Incomplete => {
                refused += 1;
                assert_eq!(by_ppp(&bytes), None, "{}", bytes.escape_ascii());
            }
            ParseStatus::Complete { .. } => {}
        }
    }
    assert!(read > 1_000 && refused > 1_000, "{read} were read, {refused} refused");
}
