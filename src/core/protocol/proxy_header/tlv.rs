//! What version 2 carries behind the addresses: values with a type and a length.
//!
//! Owns the check of their lengths and of the checksum (CRC32C) over the whole
//! header, and the value that identifies a connection. Knows no other type: values pass
//! through as they are.

use std::ops::Range;

/// The type of the checksum.
const CRC32C: u8 = 3;
const CRC32C_BYTES: usize = 4;
/// The type of the value that identifies a connection.
const UNIQUE_ID: u8 = 5;

/// Adds a value that identifies the connection, of at most 128 bytes, to those of its
/// header. One that is there already stays the only one.
pub fn with_unique_id(tlvs: &[u8], id: &[u8]) -> Vec<u8> {
    debug_assert!(id.len() <= 128, "the longest that the specification allows");
    let mut all = tlvs.to_vec();
    if !kinds(tlvs).any(|kind| kind == UNIQUE_ID) {
        all.push(UNIQUE_ID);
        all.extend((id.len() as u16).to_be_bytes());
        all.extend(id);
    }
    all
}

/// The types of values that were checked.
fn kinds(mut tlvs: &[u8]) -> impl Iterator<Item = u8> + '_ {
    std::iter::from_fn(move || {
        let ([kind, high, low], rest) = tlvs.split_first_chunk()?;
        tlvs = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
        Some(*kind)
    })
}

/// Checks the values that begin at `start` of a whole header.
pub(super) fn check(header: &[u8], start: usize) -> Result<(), &'static str> {
    let Some(checksum) = find_checksum(header, start)? else { return Ok(()) };
    let mut zeroed = header.to_vec();
    zeroed[checksum.clone()].fill(0);
    match header[checksum] == crc32c(&zeroed).to_be_bytes() {
        true => Ok(()),
        false => Err("with a wrong checksum"),
    }
}

/// Makes the checksum right, if there is one among the values that begin at `start`.
pub(super) fn seal(header: &mut [u8], start: usize) {
    if let Ok(Some(checksum)) = find_checksum(header, start) {
        header[checksum.clone()].fill(0);
        let sum = crc32c(header);
        header[checksum].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Where the checksum is. An error: the lengths do not fit.
fn find_checksum(header: &[u8], start: usize) -> Result<Option<Range<usize>>, &'static str> {
    const CUT: &str = "with a value longer than the header";
    let mut found = None;
    let mut at = start;
    while at < header.len() {
        let Some([kind, high, low]) = header.get(at..at + 3) else { return Err(CUT) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([*high, *low]));
        if value.end > header.len() {
            return Err(CUT);
        }
        at = value.end;
        if *kind == CRC32C && (value.len() != CRC32C_BYTES || found.replace(value).is_some()) {
            return Err("with a checksum of another length, or two");
        }
    }
    Ok(found)
}

/// The checksum of RFC 3720, four bits at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    /// Castagnoli's polynomial, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut sum = index as u32;
            let mut bit = 0;
            while bit < 4 {
                sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
                bit += 1;
            }
            table[index] = sum;
            index += 1;
        }
        table
    };
    let step = |sum: u32, bits: u32| (sum >> 4) ^ TABLE[((sum ^ bits) & 15) as usize];
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        let byte = u32::from(*byte);
        step(step(sum, byte), byte >> 4)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
