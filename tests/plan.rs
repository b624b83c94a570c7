//! The plan of the house: who may lean on whom.

use std::fs;
use std::path::{Path, PathBuf};

/// The core, which is pure: each room, and the rooms below that it may use.
const CORE: [(&str, &[&str]); 6] = [
    ("base", &[]),
    ("protocol", &["base"]),
    ("scheduler", &["base"]),
    ("queue", &["base", "protocol", "scheduler"]),
    ("redirect", &["base", "protocol"]),
    ("monitor", &["base", "protocol"]),
];

/// The program. It says `pegasus_core::`, so that every line shows the wall.
const PROGRAM: [(&str, &[&str]); 3] = [("os", &[]), ("net", &["os"]), ("command", &["os", "net"])];

/// What each room of the program may use of the core.
const OF_THE_CORE: [(&str, &[&str]); 3] = [
    ("os", &[]),
    ("net", &["base", "protocol"]),
    ("command", &["base", "protocol", "scheduler", "queue", "redirect", "monitor"]),
];

fn files(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(place(path)).unwrap()
}

fn check(root: &str, prefix: &str, plan: &[(&str, &[&str])]) {
    for (room, allowed) in plan {
        for file in files(&place(root).join(room)) {
            let text = fs::read_to_string(&file).unwrap();
            for used in text.split(prefix).skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let fine = used == *room && prefix == "crate::" || allowed.contains(&used.as_str());
                assert!(fine, "{}: {room} may not use {prefix}{used}", file.display());
            }
        }
    }
}

#[test]
fn rooms_lean_on_the_floors_below_only() {
    check("src/core", "crate::", &CORE);
    check("src", "crate::", &PROGRAM);
    check("src", "pegasus_core::", &OF_THE_CORE);
}

#[test]
fn the_core_is_pure() {
    assert!(read("src/core/lib.rs").contains("\n#![forbid(unsafe_code)]\n"), "the core does not forbid unsafe code");
    assert!(!read("src/core/Cargo.toml").contains("dependencies"), "the core needs more than the standard library");
    // Clocks, sockets, files and threads are clippy's: src/core/clippy.toml.
    assert!(place("src/core/clippy.toml").exists());
}
