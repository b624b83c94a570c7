//! The plan of the house: who may lean on whom.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms below that it may use. `os` and `net` know the
/// system; the others are pure.
const PLAN: [(&str, &[&str]); 9] = [
    ("base", &[]),
    ("wire", &["base"]),
    ("schedule", &["base"]),
    ("queue", &["base", "wire", "schedule"]),
    ("redirect", &["base", "wire"]),
    ("monitor", &["base", "wire"]),
    ("os", &[]),
    ("net", &["base", "wire", "os"]),
    ("command", &["base", "wire", "schedule", "queue", "redirect", "monitor", "os", "net"]),
];

fn files(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn rooms_lean_on_the_floors_below_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (room, allowed) in PLAN {
        for file in files(&source.join(room)) {
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
fn what_is_not_net_os_or_command_is_pure() {
    let plan = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for (room, _) in PLAN.iter().filter(|(room, _)| !["os", "net", "command"].contains(room)) {
        let guarded = format!("#[forbid(unsafe_code)]\npub mod {room};");
        assert!(plan.contains(&guarded), "lib.rs does not forbid unsafe code in {room}");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (room, _) in PLAN.iter().filter(|(room, _)| !["os", "net", "command"].contains(room)) {
        for file in files(&source.join(room)).iter().filter(|file| !file.to_string_lossy().ends_with("tests.rs")) {
            let text = fs::read_to_string(file).unwrap();
            for impure in ["std::thread", "Instant::now", "SystemTime", "TcpStream", "UdpSocket", "use mio"] {
                assert!(!text.contains(impure), "{}: {impure}", file.display());
            }
        }
    }
}
