//! Messages of DNS (RFC 1035): what a question is, and the bytes of an answer.
//!
//! Owns the form of both and every bound of it. `simple-dns` reads the records of a question
//! and writes those of an answer. It is small (one dependency), kept well and of our Rust;
//! `domain` and `hickory-proto` bring ten crates and more. It knows only common types and
//! believes the counts of a header, so counts and type are looked at here before. Knows no
//! socket and no provider's state.

use pegasus_core::base::provider::Provider;
use pegasus_core::redirect::name_table::leading_name;
use simple_dns::rdata::{RData, AAAA, OPT, SOA, SRV};
use simple_dns::{Label, Name, Packet, PacketFlag, Question as Asked, ResourceRecord};
use simple_dns::{CLASS, QCLASS, QTYPE, RCODE, TYPE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest datagram that is sent, in bytes: it fits into a packet of every network
/// that has IPv6 (DNS flag day 2020).
pub const UDP_BYTES_MAX: usize = 1232;
/// The longest datagram for a client that says nothing of its size (RFC 1035, 4.2.1).
const UDP_BYTES_MIN: usize = 512;
/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

const HEADER_BYTES: usize = 12;
/// Records behind the question: one for EDNS, and perhaps a signature.
const ADDITIONAL_MAX: u16 = 2;
/// Numbers of types.
const TYPE_A: u16 = 1;
const TYPE_OPT: u16 = 41;

/// What a question is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    Any,
    Soa,
    /// Nothing that a name here can have.
    Other,
}

impl Kind {
    fn of(number: u16) -> Kind {
        match number {
            TYPE_A => Kind::A,
            28 => Kind::Aaaa,
            33 => Kind::Srv,
            255 => Kind::Any,
            6 => Kind::Soa,
            _ => Kind::Other,
        }
    }

    /// Whether an address of this kind is in the answer.
    pub fn includes(self, ip: IpAddr) -> bool {
        match self {
            Kind::A => ip.is_ipv4(),
            Kind::Aaaa => ip.is_ipv6(),
            Kind::Any => true,
            Kind::Srv | Kind::Soa | Kind::Other => false,
        }
    }
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    recursion_desired: bool,
    /// Its name, type and class as they came: letters keep their case.
    bytes: Vec<u8>,
    type_number: u16,
    /// The client speaks EDNS (RFC 6891), and takes datagrams of so many bytes.
    edns: Option<u16>,
    /// The length of its message, in bytes.
    pub length: usize,
}

/// What a client sent.
#[derive(Debug)]
pub enum Received {
    Question(Question),
    /// Nothing that is answered with records, and this is the answer.
    Reply(Vec<u8>),
    /// Nothing that is answered.
    Nothing,
}

/// What is said of a name.
#[derive(Clone, PartialEq, Debug)]
pub enum Content<'a> {
    /// It has these providers. `port`: of those without their own. `hosts`: where the name
    /// begins in it that their hosts have names below.
    Providers { providers: &'a [Provider], port: Option<u16>, hosts: usize },
    /// It has nothing of that type. `zone`: where the name that is ours begins in it.
    NoData { zone: usize },
    /// It does not exist.
    NoName { zone: usize },
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Reads a message.
pub fn read(message: &[u8]) -> Received {
    let (Some(header), Some(id)) = (message.get(..HEADER_BYTES), number(message, 0)) else {
        return Received::Nothing;
    };
    // What answers an answer may be answered again, without end.
    if header[2] & 0x80 != 0 {
        return Received::Nothing;
    }
    let mut question = Question {
        id,
        recursion_desired: header[2] & 1 != 0,
        bytes: Vec::new(),
        type_number: 0,
        edns: None,
        length: message.len(),
    };
    let opcode = header[2] >> 3 & 0xf;
    if opcode != 0 {
        return Received::Reply(question.short_reply_to(
            opcode,
            RCODE::NotImplemented as u16,
            false,
        ));
    }
    match question.read_sections(message) {
        Ok(()) => Received::Question(question),
        Err(code) => Received::Reply(question.error(code)),
    }
}

impl Question {
    /// Reads what stands behind the header.
    ///
    /// # Errors
    /// The code of the answer.
    fn read_sections(&mut self, message: &[u8]) -> Result<(), RCODE> {
        let count = |at| number(message, at).unwrap_or(0);
        let (questions, answers, authorities, additional) =
            (count(4), count(6), count(8), count(10));
        if questions != 1 || answers != 0 || authorities != 0 || additional > ADDITIONAL_MAX {
            return Err(RCODE::FormatError);
        }
        let name = leading_name(&message[HEADER_BYTES..]).ok_or(RCODE::FormatError)?;
        let name_end = HEADER_BYTES + name.len();
        let type_number = number(message, name_end).ok_or(RCODE::FormatError)?;
        let class = number(message, name_end + 2).ok_or(RCODE::FormatError)?;
        self.bytes = message[HEADER_BYTES..name_end + 4].to_vec();
        self.type_number = type_number;
        // The crate refuses a question of a type that it does not know, and reserved flags.
        let mut known = message.to_vec();
        known[3] = 0;
        known[name_end..name_end + 4].copy_from_slice(&[0, 1, 0, 1]);
        let packet = Packet::parse(&known).map_err(|_| RCODE::FormatError)?;
        let is_opt = |record: &ResourceRecord| record.rdata.type_code() == TYPE::OPT;
        if packet.additional_records.iter().any(is_opt) || type_number == TYPE_OPT {
            return Err(RCODE::FormatError);
        }
        if let Some(opt) = packet.opt() {
            self.edns = Some(opt.udp_packet_size);
            // The crate (0.13) takes the version from the byte of the flags. The record is the
            // first one, as a signature has to be the last.
            let record = &message[name_end + 4..];
            let version = record.get(6).filter(|_| record.starts_with(&[0, 0, TYPE_OPT as u8]));
            if version.is_some_and(|version| *version != 0) {
                return Err(RCODE::BADVERS);
            }
        }
        // Other classes have no names here, and no one gets a whole zone.
        let is_transfer = [QTYPE::IXFR, QTYPE::AXFR].map(u16::from).contains(&type_number);
        if class != CLASS::IN as u16 || is_transfer {
            return Err(RCODE::Refused);
        }
        Ok(())
    }

    /// Its name, as it came.
    pub fn name(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - 4]
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        Kind::of(self.type_number)
    }

    /// An answer without records.
    pub fn error(&self, code: RCODE) -> Vec<u8> {
        self.short_reply_to(0, code as u16, false)
    }

    /// The answer that there is none here.
    pub fn refused(&self) -> Vec<u8> {
        self.error(RCODE::Refused)
    }

    /// The answer that there is none now.
    pub fn failed(&self) -> Vec<u8> {
        self.error(RCODE::ServerFailure)
    }

    /// The answer that says to ask over TCP. It is not longer than the question.
    pub fn truncated(&self) -> Vec<u8> {
        self.short_reply_to(0, RCODE::NoError as u16, true)
    }

    /// An answer without records: the header, the question as it came, and a record of EDNS
    /// where the question had one.
    fn short_reply_to(&self, opcode: u8, code: u16, truncated: bool) -> Vec<u8> {
        let mut reply = Vec::with_capacity(HEADER_BYTES + self.bytes.len() + 11);
        reply.extend(self.id.to_be_bytes());
        let flags =
            0x80 | opcode << 3 | u8::from(truncated) << 1 | u8::from(self.recursion_desired);
        reply.extend([flags, (code & 0xf) as u8]);
        let counts = [u16::from(!self.bytes.is_empty()), 0, 0, u16::from(self.edns.is_some())];
        counts.iter().for_each(|count| reply.extend(count.to_be_bytes()));
        reply.extend(&self.bytes);
        if self.edns.is_some() {
            let size = (UDP_BYTES_MAX as u16).to_be_bytes();
            reply.extend([
                0,
                0,
                TYPE_OPT as u8,
                size[0],
                size[1],
                (code >> 4) as u8,
                0,
                0,
                0,
                0,
                0,
            ]);
        }
        reply
    }

    /// The longest answer that the client takes, in bytes. `datagram`: it asked by one.
    fn reply_bytes_max(&self, datagram: bool) -> usize {
        if datagram {
            usize::from(self.edns.unwrap_or(0)).clamp(UDP_BYTES_MIN, UDP_BYTES_MAX)
        } else {
            MESSAGE_BYTES_MAX
        }
    }

    /// The answer with this content, which may be kept for `ttl` seconds. Where it is too
    /// long for a datagram, it goes without the addresses of SRV's hosts, or is truncated.
    pub fn answer(&self, content: &Content, ttl: u32, datagram: bool) -> Vec<u8> {
        let name = name_of(self.name());
        let mut packet = Packet::new_reply(self.id);
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        if self.recursion_desired {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        let qtype =
            QTYPE::try_from(self.type_number).unwrap_or(QTYPE::TYPE(TYPE::from(self.type_number)));
        packet.questions.push(Asked::new(name.clone(), qtype, QCLASS::CLASS(CLASS::IN), false));
        if self.edns.is_some() {
            let opt_codes = Vec::new();
            *packet.opt_mut() =
                Some(OPT { opt_codes, udp_packet_size: UDP_BYTES_MAX as u16, version: 0 });
        }
        let record =
            |name: &Name<'static>, rdata| ResourceRecord::new(name.clone(), CLASS::IN, ttl, rdata);
        match content {
            Content::Providers { providers, port, hosts } if self.kind() == Kind::Srv => {
                for (priority, provider) in providers.iter().enumerate() {
                    let Some(port) = provider.port.or(*port) else { continue };
                    let target = host_name(&self.name()[*hosts..], provider.ip);
                    // The first one is to be taken, the others are for when it fails.
                    let srv =
                        SRV { priority: priority as u16, weight: 0, port, target: target.clone() };
                    packet.answers.push(record(&name, RData::SRV(srv)));
                    packet.additional_records.push(record(&target, address(provider.ip)));
                }
            }
            Content::Providers { providers, .. } => {
                let addresses = providers.iter().map(|provider| address(provider.ip));
                packet.answers.extend(addresses.map(|rdata| record(&name, rdata)));
            }
            Content::NoData { zone } | Content::NoName { zone } => {
                let zone = name_of(&self.name()[*zone..]);
                let soa = record(&zone, RData::SOA(authority(&zone, ttl)));
                if self.kind() == Kind::Soa && zone == name {
                    packet.answers.push(soa);
                } else {
                    packet.name_servers.push(soa);
                }
                if let Content::NoName { .. } = content {
                    *packet.rcode_mut() = RCODE::NameError;
                }
            }
        }
        let most = self.reply_bytes_max(datagram);
        let fits = |bytes: &Vec<u8>| bytes.len() <= most;
        if let Some(bytes) = packet.build_bytes_vec_compressed().ok().filter(fits) {
            return bytes;
        }
        packet.additional_records.clear();
        let bytes = packet.build_bytes_vec_compressed().ok().filter(fits);
        bytes.unwrap_or_else(|| self.truncated())
    }
}

/// A name as the crate has it.
fn name_of(wire: &[u8]) -> Name<'static> {
    let mut labels = Vec::new();
    let mut rest = wire;
    while let Some((&length, behind)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, behind) = behind.split_at(usize::from(length).min(behind.len()));
        labels.push(Label::new_unchecked(label.to_vec()));
        rest = behind;
    }
    Name::new_with_labels(&labels)
}

/// The name of a provider's host below a name: its address in hexadecimal digits.
fn host_name(below: &[u8], ip: IpAddr) -> Name<'static> {
    let label = match ip {
        IpAddr::V4(ip) => format!("{:08x}", u32::from(ip)),
        IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
    };
    let mut wire = vec![label.len() as u8];
    wire.extend(label.bytes());
    wire.extend(below);
    name_of(&wire)
}

/// The address that a label names, as [`host_name`] writes it.
pub fn host_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let digits = text.bytes().all(|c| c.is_ascii_hexdigit());
    match text.len() {
        8 if digits => Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?).into()),
        32 if digits => Some(Ipv6Addr::from(u128::from_str_radix(text, 16).ok()?).into()),
        _ => None,
    }
}

fn address(ip: IpAddr) -> RData<'static> {
    match ip {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(AAAA::from(ip)),
    }
}

/// What says how long it is known that something does not exist (RFC 2308): as long as what
/// does exist.
fn authority(zone: &Name<'static>, ttl: u32) -> SOA<'static> {
    let mut hostmaster = vec![Label::new_unchecked(b"hostmaster".to_vec())];
    hostmaster.extend(zone.get_labels().iter().cloned());
    SOA {
        mname: zone.clone(),
        rname: Name::new_with_labels(&hostmaster),
        serial: 1,
        refresh: 3600,
        retry: 600,
        expire: 86_400,
        minimum: ttl,
    }
}

#[cfg(test)]
mod tests;
