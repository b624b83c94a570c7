//! Mangled messages for tests, which reach deeper into a parser than noise does.

use crate::base::random::Random;

/// Gives many variants of these lines, from a seed that is printed.
pub fn mangle(lines: &[&[u8]], mut check: impl FnMut(&[u8])) {
    let given = std::env::var("PEGASUS_SEED").unwrap_or_default();
    let seed = u64::from_str_radix(given.trim_start_matches("0x"), 16).unwrap_or(0x7347);
    println!("replay: PEGASUS_SEED={seed:#x}");
    let mut random = Random::new(seed);
    for _ in 0..100_000 {
        let mut line = lines[random.below(lines.len())].to_vec();
        for _ in 0..random.below(6) {
            let at = random.below(line.len());
            match random.below(3) {
                0 => line[at] = random.bits() as u8,
                1 => line.truncate(at + 1),
                _ => line.insert(at, b"%&=?:/[]\xff\0,"[random.below(11)]),
            }
        }
        check(&line);
    }
}
