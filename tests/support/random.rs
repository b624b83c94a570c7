//! Random numbers that a seed repeats, and long streams that can be checked.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea and Flood).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn of_now() -> Random {
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        Random(now ^ u64::from(std::process::id()).rotate_left(40))
    }

    /// Uses `PEGASUS_SEED` or a new seed, and prints it, so that a failure can be
    /// repeated.
    pub fn told() -> Random {
        let seed = std::env::var("PEGASUS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| Random::of_now().next());
        println!("PEGASUS_SEED={seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns how long to wait for the next of things that come by chance, `mean` apart.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        -mean * (1.0 - unit).ln()
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// An endless stream of bytes: a random block, repeated. Its length shares no factor with
/// any buffer's, so that each byte identifies its position.
#[derive(Clone)]
pub struct Stream {
    block: std::sync::Arc<Vec<u8>>,
    place: usize,
}

impl Stream {
    pub fn new(seed: u64) -> Stream {
        Stream { block: Random::new(seed).bytes(1_000_003).into(), place: 0 }
    }

    /// Returns the next bytes: at least one, at most `count`.
    pub fn next(&mut self, count: usize) -> &[u8] {
        let start = self.place;
        let end = (start + count).min(self.block.len());
        self.place = end % self.block.len();
        &self.block[start..end]
    }

    /// Whether these are the next bytes.
    pub fn continues(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.next(bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            if now != expected {
                return false;
            }
            bytes = later;
        }
        true
    }
}
