//! The plan of the house: who may lean on whom.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, its place, and the rooms below that it may use. Those of `core` are pure;
/// `os` and `net` know the system.
const PLAN: [(&str, &str, &[&str]); 9] = [
    ("base", "src/core", &[]),
    ("wire", "src/core", &["base"]),
    ("schedule", "src/core", &["base"]),
    ("queue", "src/core", &["base", "wire", "schedule"]),
    ("redirect", "src/core", &["base", "wire"]),
    ("monitor", "src/core", &["base", "wire"]),
    ("os", "src", &[]),
    ("net", "src", &["base", "wire", "os"]),
    ("command", "src", &["base", "wire", "schedule", "queue", "redirect", "monitor", "os", "net"]),
];

fn files(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn rooms_lean_on_the_floors_below_only() {
    for (room, place, allowed) in PLAN {
        for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(place).join(room)) {
            let text = fs::read_to_string(&file).unwrap();
            for used in text.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let fine = used == room || allowed.contains(&used.as_str());
                assert!(fine, "{}: {room} may not use {used}", file.display());
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    assert!(read("src/core/lib.rs").contains("\n#![forbid(unsafe_code)]\n"), "the core does not forbid unsafe code");
    assert!(!read("src/core/Cargo.toml").contains("dependencies"), "the core needs more than the standard library");
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core"));
    for file in files.iter().filter(|file| !file.to_string_lossy().ends_with("tests.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for impure in ["std::thread", "Instant::now", "SystemTime", "TcpStream", "UdpSocket"] {
            assert!(!text.contains(impure), "{}: {impure}", file.display());
        }
    }
}
