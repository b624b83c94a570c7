//! The notation of a configuration file: what the program reads, sh reads alike.

use crate::support::random::Random;
use crate::support::Directory;
use pegasus_core::base::key_value;
use std::process::Command;

/// What sh gives a meaning to, and what surrounds it.
const PIECES: [&str; 43] = [
    "a", "Z", "7", "_", "-", ".", "/", ":", ",", "=", "*", "?", "[", "]", "{", "}", "#", "%", "!",
    "^", "@", "~", "+", " ", "\t", "'", "\"", "\\", "$", "`", "|", "&", ";", "<", ">", "(", ")",
    "ö", "\u{a0}", "\u{3000}", "\u{81}", "\"x y\"", "'x  y'",
];

/// Reads the file in this shell, and prints the value of each key, ended by NUL.
fn values(shell: &[&str], file: &str, count: usize) -> Option<Vec<String>> {
    let script =
        ". \"$1\"; i=0; while [ $i -lt $2 ]; do eval \"v=\\$k$i\"; printf '%s\\0' \"$v\"; \
                  i=$((i+1)); done";
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", script, "sh", file, &count.to_string()]);
    let output = command.output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{shell:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split_terminator('\0').map(str::to_string).collect())
}

#[test]
fn what_the_program_reads_sh_reads_alike() {
    let mut random = Random::told();
    let mut lines = Vec::new();
    while lines.len() < 5_000 {
        let pieces = random.below(12);
        let text: String = (0..pieces).map(|_| random.pick(&PIECES)).collect();
        let line = format!("k{}={text}", lines.len());
        let read = key_value::read(&line).next().and_then(Result::ok).map(|pair| pair.value);
        lines.extend(read.map(|value| (line, value)));
    }
    let quoted = lines.iter().filter(|(_, value)| value.contains([' ', '$', '\\'])).count();
    assert!(quoted > 500, "only {quoted} of the values need quotes");
    let file: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let directory = Directory::new();
    let path = directory.write("pegasus.conf", &file);
    let mut shells = 0;
    for shell in [&["sh"][..], &["dash"], &["bash", "--posix"], &["bash"], &["busybox", "sh"]] {
        let Some(values) = values(shell, &path, lines.len()) else { continue };
        shells += 1;
        assert_eq!(values.len(), lines.len());
        for ((line, ours), theirs) in lines.iter().zip(&values) {
            assert_eq!(ours, theirs, "{shell:?} reads {line:?} otherwise");
        }
    }
    assert!(shells > 0, "no shell");
}
