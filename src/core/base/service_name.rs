//! The name of a service. Owns its grammar; knows nothing of what it names.

use std::fmt;
use std::str::FromStr;

/// A service: `[a-z][a-z0-9-]{0,31}`. Copied freely, never allocated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    length: u8,
    bytes: [u8; ServiceName::BYTES_MAX],
}

impl ServiceName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 32;

    /// The service that a message means which names none.
    pub const DEFAULT: ServiceName = {
        let mut bytes = [0; ServiceName::BYTES_MAX];
        let name = *b"default";
        let mut i = 0;
        while i < name.len() {
            bytes[i] = name[i];
            i += 1;
        }
        ServiceName { length: name.len() as u8, bytes }
    };

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or("")
    }

    /// Reads a name as a person types it: capitals and `_` for `-` are taken, too.
    ///
    /// # Errors
    /// What a name is.
    pub fn typed(text: &str) -> Result<ServiceName, &'static str> {
        text.to_ascii_lowercase().replace('_', "-").parse()
    }

    /// The name as it stands inside a configuration key, `-` written `_`.
    pub fn in_key(&self) -> String {
        self.as_str().replace('-', "_")
    }
}

impl Default for ServiceName {
    fn default() -> ServiceName {
        ServiceName::DEFAULT
    }
}

impl FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ServiceName, Self::Err> {
        let mut bytes = [0; ServiceName::BYTES_MAX];
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        match text.bytes().next() {
            Some(first)
                if first.is_ascii_lowercase()
                    && text.len() <= bytes.len()
                    && text.bytes().all(good) =>
            {
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Ok(ServiceName { length: text.len() as u8, bytes })
            }
            _ => Err("not a service name (a to z, then up to 31 of a-z 0-9 -)"),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_the_grammar() {
        for good in ["a", "web", "ftp-data", "x0-", &"a".repeat(32)] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        for bad in ["", "Web", "0a", "-a", "a_b", "a.b", &"a".repeat(33), "é"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?} was taken");
        }
        assert_eq!(ServiceName::DEFAULT.as_str(), "default");
        for typed in ["my-app", "my_app", "MY_APP", "My-App"] {
            assert_eq!(ServiceName::typed(typed).unwrap().as_str(), "my-app");
        }
        assert!(ServiceName::typed("_x").is_err());
    }
}
