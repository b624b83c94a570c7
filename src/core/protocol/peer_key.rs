//! The keys of the control channel: which peers there are, and what each may ask for.
//!
//! Owns the notation of a key file, the roles, and the decision on every message by
//! role, address and service. Knows no cipher and no file; a secret is 32 bytes.

use super::reply::{ErrorCode, ProtocolError};
use super::request::Request;
use crate::base::cidr::Cidr;
use crate::base::key_value;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// Keys that one file may hold.
pub const KEYS_MAX: usize = 4096;
/// Secrets that one name may have at the same time.
pub const SECRETS_PER_NAME_MAX: usize = 4;
/// Networks or services that one key may list.
const LIST_MAX: usize = 64;

/// The name of a key: 1 to 32 letters, digits and `_`, as sh takes for a variable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    length: u8,
    bytes: [u8; KeyName::BYTES_MAX],
}

impl KeyName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or("")
    }
}

impl FromStr for KeyName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<KeyName, Self::Err> {
        let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let starts_well = text.bytes().next().is_some_and(|c| !c.is_ascii_digit());
        let mut bytes = [0; KeyName::BYTES_MAX];
        if !starts_well || text.len() > bytes.len() || !text.bytes().all(good) {
            return Err("not a key name (a letter or _, then up to 31 letters, digits and _)");
        }
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(KeyName { length: text.len() as u8, bytes })
    }
}

impl Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a peer with a key may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyRole {
    /// `ticket` and `withdraw`.
    Provider,
    /// `next`, `done` and `failure`.
    Balancer,
    /// `status`.
    Observer,
    /// What an observer may, and maintenance.
    Operator,
}

impl KeyRole {
    const ALL: [KeyRole; 4] =
        [KeyRole::Provider, KeyRole::Balancer, KeyRole::Observer, KeyRole::Operator];

    /// The word in a key file.
    pub const fn word(self) -> &'static str {
        match self {
            KeyRole::Provider => "provider",
            KeyRole::Balancer => "balancer",
            KeyRole::Observer => "observer",
            KeyRole::Operator => "operator",
        }
    }

    /// The roles that may send this message; the plainest one first.
    pub const fn of(request: &Request) -> &'static [KeyRole] {
        match request {
            Request::Ticket { .. } | Request::Withdraw { .. } => &[KeyRole::Provider],
            Request::Next(_) | Request::Failure { .. } | Request::Done { .. } => {
                &[KeyRole::Balancer]
            }
            Request::Drain { .. } | Request::Resume { .. } => &[KeyRole::Operator],
            Request::Status { .. } => &[KeyRole::Observer, KeyRole::Operator],
        }
    }
}

impl FromStr for KeyRole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<KeyRole, Self::Err> {
        KeyRole::ALL
            .into_iter()
            .find(|role| role.word() == text)
            .ok_or("not a role (provider, balancer, observer, operator)")
    }
}

/// A pre-shared secret, 64 hexadecimal digits in a file. Never shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; Secret::BYTES]);

impl Secret {
    /// Its size, in bytes.
    pub const BYTES: usize = 32;

    /// The digits, for a key file.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Secret, Self::Err> {
        if text.len() != 2 * Secret::BYTES {
            let count = text.chars().count();
            return Err(format!("the secret has {count} characters instead of 64 digits"));
        }
        let mut bytes = [0; Secret::BYTES];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |c: u8| char::from(c).to_digit(16);
            let value = digit(digits[0]).zip(digit(digits[1]));
            let (high, low) = value.ok_or("the secret has other characters than 0-9 and a-f")?;
            *byte = (high * 16 + low) as u8;
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err("the secret is one digit repeated (`pegasus key` makes one)".into());
        }
        Ok(Secret(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// One key: what a peer proves with its secret, and what it may then ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerKey {
    /// Its name, sent in the clear.
    pub name: KeyName,
    /// What it may ask for.
    pub role: KeyRole,
    /// What proves it.
    pub secret: Secret,
    /// The providers that a provider may register; for other roles the addresses that
    /// they may come from. Empty: its own source address, or any.
    pub addresses: Vec<Cidr>,
    /// The services that it may speak of. Empty: all.
    pub services: Vec<ServiceName>,
}

const OUTSIDE_ADDRESSES: &str = "outside addr= of this key";
const OUTSIDE_SERVICES: &str = "outside service= of this key";

impl PeerKey {
    /// Reads the value of a line: `ROLE SECRET [addr=CIDR,…] [service=NAME,…]`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right. The secret is never quoted.
    pub fn parse(name: KeyName, value: &str) -> Result<PeerKey, String> {
        let mut words = value.split_whitespace();
        let role: KeyRole = words.next().unwrap_or("").parse()?;
        let secret = words.next().ok_or("the secret is missing (64 hexadecimal digits)")?;
        let mut key = PeerKey {
            name,
            role,
            secret: secret.parse()?,
            addresses: Vec::new(),
            services: Vec::new(),
        };
        for word in words {
            match word.split_once('=') {
                Some(("addr", list)) if key.addresses.is_empty() => {
                    key.addresses = parse_list(list)?
                }
                Some(("service", list)) if key.services.is_empty() => {
                    key.services = parse_list(&list.to_ascii_lowercase().replace('_', "-"))?
                }
                Some(("addr" | "service", _)) => return Err(format!("`{word}` is a second list")),
                _ => {
                    // It may be the rest of a secret with a blank in it: not quoted.
                    let why = "more words after the secret (addr=CIDR,… or service=NAME,…)";
                    return Err(why.into());
                }
            }
        }
        Ok(key)
    }

    /// Whether this key may send `request`, of these providers and services. A provider
    /// that a balancer reports must also be one that it was given: the queue knows that.
    ///
    /// # Errors
    /// `denied`, and why.
    pub fn authorize(&self, request: &Request, peer: IpAddr) -> Result<(), ProtocolError> {
        let denied = |why: &'static str| Err(ProtocolError::new(ErrorCode::Denied, why));
        if !KeyRole::of(request).contains(&self.role) {
            let may = KeyRole::of(request)[0].word();
            let why = format!("{} keys may not; it takes a key of role {may}", self.role.word());
            return Err(ProtocolError::new(ErrorCode::Denied, why));
        }
        if self.role != KeyRole::Provider && !self.may_use_address(peer) {
            return denied("this key may not be used from this address (its addr=)");
        }
        match request {
            Request::Ticket { provider, service, .. } | Request::Withdraw { provider, service } => {
                if !self.may_register(provider.resolve(peer), peer) {
                    return denied(OUTSIDE_ADDRESSES);
                }
                self.may_use_service(Some(*service))
            }
            Request::Next(next) => self.may_use_service(Some(next.service)),
            Request::Failure { service, .. } => self.may_use_service(Some(*service)),
            Request::Drain { service, .. }
            | Request::Resume { service, .. }
            | Request::Status { service, .. } => self.may_use_service(*service),
            Request::Done { .. } => Ok(()),
        }
    }

    fn may_use_address(&self, ip: IpAddr) -> bool {
        self.addresses.is_empty() || self.addresses.iter().any(|net| net.contains(ip))
    }

    fn may_register(&self, provider: Provider, peer: IpAddr) -> bool {
        if self.addresses.is_empty() {
            return provider.ip == peer;
        }
        self.may_use_address(provider.ip)
    }

    /// `None`: all services at once.
    fn may_use_service(&self, service: Option<ServiceName>) -> Result<(), ProtocolError> {
        let inside = self.services.is_empty()
            || service.is_some_and(|service| self.services.contains(&service));
        inside.then_some(()).ok_or(ProtocolError::new(ErrorCode::Denied, OUTSIDE_SERVICES))
    }

    /// The line of a key file; without its restrictions for the peer itself.
    pub fn line(&self, restricted: bool) -> String {
        let mut line = format!("{}=\"{} {}", self.name, self.role.word(), self.secret.to_hex());
        if restricted {
            for (word, list) in [("addr", join(&self.addresses)), ("service", join(&self.services))]
            {
                if !list.is_empty() {
                    line.push_str(&format!(" {word}={list}"));
                }
            }
        }
        line + "\""
    }
}

/// A list of networks or services, separated by commas.
///
/// # Errors
/// What is wrong with an element.
pub fn parse_list<T: FromStr>(text: &str) -> Result<Vec<T>, String>
where
    T::Err: Display,
{
    let parsed: Result<Vec<T>, String> = text
        .split(',')
        .map(|word| word.parse().map_err(|why: T::Err| format!("`{word}` is {why}")))
        .collect();
    parsed.and_then(|list| {
        let fits = list.len() <= LIST_MAX;
        fits.then_some(list).ok_or(format!("more than {LIST_MAX} in a list"))
    })
}

fn join<T: Display>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// All keys of a file, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyTable {
    keys: Vec<Arc<PeerKey>>,
    by_name: HashMap<KeyName, Vec<usize>>,
}

impl KeyTable {
    /// Reads a key file. A name may stand there several times, each time with another
    /// secret: all of them are good.
    ///
    /// # Errors
    /// Every mistake, with the number of its line.
    pub fn parse(text: &str) -> Result<KeyTable, Vec<(usize, String)>> {
        let mut table = KeyTable::default();
        let mut errors = Vec::new();
        for pair in key_value::read(text) {
            // What the reader says of a line may quote it, and with it a secret.
            let pair = pair.map_err(|(line, _)| (line, WRONG_LINE.to_string()));
            let added = pair.and_then(|pair| {
                let name = pair.key.parse().map_err(|why| format!("`{}` is {why}", pair.key));
                let key = name.and_then(|name| {
                    PeerKey::parse(name, &pair.value).map_err(|why| format!("{name}: {why}"))
                });
                key.and_then(|key| table.add(key)).map_err(|why| (pair.line, why))
            });
            errors.extend(added.err());
        }
        if errors.is_empty() {
            Ok(table)
        } else {
            Err(errors)
        }
    }

    fn add(&mut self, key: PeerKey) -> Result<(), String> {
        if self.keys.len() >= KEYS_MAX {
            return Err(format!("{}: more than {KEYS_MAX} keys", key.name));
        }
        if let Some(twin) = self.keys.iter().find(|known| known.secret == key.secret) {
            return Err(format!("{}: {} has the same secret already", key.name, twin.name));
        }
        let known = self.by_name.entry(key.name).or_default();
        if let Some(first) = known.first().map(|index| &self.keys[*index]) {
            if first.role != key.role {
                let why = "a second line of a name must have the same role";
                return Err(format!("{}: {why} ({})", key.name, first.role.word()));
            }
        }
        if known.len() >= SECRETS_PER_NAME_MAX {
            return Err(format!("{}: more than {SECRETS_PER_NAME_MAX} secrets", key.name));
        }
        known.push(self.keys.len());
        self.keys.push(Arc::new(key));
        Ok(())
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All keys, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PeerKey>> {
        self.keys.iter()
    }

    /// The keys with this name.
    pub fn named(&self, name: KeyName) -> impl Iterator<Item = &Arc<PeerKey>> {
        self.by_name.get(&name).into_iter().flatten().map(|index| &self.keys[*index])
    }

    /// The key that a client uses: the first one of the first of these roles that has any.
    pub fn first_of(&self, roles: &[KeyRole]) -> Option<&Arc<PeerKey>> {
        roles.iter().find_map(|role| self.keys.iter().find(|key| key.role == *role))
    }

    /// The most secrets that any name has.
    pub fn secrets_max(&self) -> usize {
        self.by_name.values().map(Vec::len).max().unwrap_or(0)
    }

    /// The key that a session with `key` has from now on; none: its key was removed.
    pub fn successor_of(&self, key: &PeerKey) -> Option<&Arc<PeerKey>> {
        self.named(key.name).find(|known| known.secret == key.secret)
    }

    /// Whether some key is bound to a network that holds `ip`.
    pub fn expects(&self, ip: IpAddr) -> bool {
        self.keys.iter().any(|key| key.addresses.iter().any(|net| net.contains(ip)))
    }
}

const WRONG_LINE: &str =
    "not a key (NAME=\"ROLE SECRET [addr=CIDR,…] [service=NAME,…]\", `pegasus key` makes one)";

#[cfg(test)]
mod tests;
