//! The architecture: which room may import which.

use std::collections::{BTreeMap, BTreeSet};
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
const PROGRAM: [(&str, &[&str]); 5] = [
    ("os", &[]),
    ("logging", &["os"]),
    ("net", &["os"]),
    ("config", &["os", "logging", "net"]),
    ("command", &["os", "logging", "net", "config"]),
];

/// What each room of the program may use of the core.
const OF_THE_CORE: [(&str, &[&str]); 5] = [
    ("os", &[]),
    ("logging", &[]),
    ("net", &["base", "protocol"]),
    ("config", &["base", "protocol", "scheduler", "queue", "redirect", "monitor"]),
    ("command", &["base", "protocol", "scheduler", "queue", "redirect", "monitor"]),
];

/// The files of a room, which may be one file.
fn files(place: &Path) -> Vec<PathBuf> {
    if place.with_extension("rs").exists() {
        return vec![place.with_extension("rs")];
    }
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
                let used: String =
                    used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
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
    assert!(
        read("src/core/lib.rs").contains("\n#![forbid(unsafe_code)]\n"),
        "the core does not forbid unsafe code"
    );
    assert!(
        !read("src/core/Cargo.toml").contains("dependencies"),
        "the core needs more than the standard library"
    );
    // Clocks, sockets, files and threads are clippy's: src/core/clippy.toml.
    assert!(place("src/core/clippy.toml").exists());
}

/// Folders in which files still import each other, and why.
const KNOWN_CIRCLES: [(&str, &str); 1] =
    [("src/command/queue/", "start.rs makes the server of connections, which is in mod.rs")];

/// Rust text without comments, the contents of strings, and unit tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (mut code, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['/', '"', '\'']) {
        code += &rest[..at];
        rest = &rest[at..];
        let bytes = rest.as_bytes();
        let length = match bytes[0] {
            b'/' if bytes.get(1) == Some(&b'/') => rest.find('\n').unwrap_or(rest.len()),
            quote @ (b'"' | b'\'') => {
                let literal =
                    quote == b'"' || bytes.get(1) == Some(&b'\\') || bytes.get(2) == Some(&b'\'');
                let mut at = 1;
                while literal && at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at + usize::from(literal)
            }
            _ => {
                code.push('/');
                1
            }
        };
        rest = rest.get(length..).unwrap_or("");
    }
    code + rest
}

type Words = Vec<String>;

/// Every path of a `use`, with the name that it has in this file.
fn expand(prefix: &Words, tree: &str, found: &mut Vec<(Words, String)>) {
    fn words(text: &str) -> impl Iterator<Item = String> + '_ {
        text.split("::").map(|word| word.trim().to_string()).filter(|word| !word.is_empty())
    }
    let mut path = prefix.clone();
    if let Some((head, group)) = tree.split_once('{') {
        path.extend(words(head));
        let (mut depth, group) = (0, group.rsplit_once('}').unwrap().0);
        let parts = group.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        return parts
            .filter(|part| !part.trim().is_empty())
            .for_each(|part| expand(&path, part, found));
    }
    let (from, name) =
        tree.split_once(" as ").map_or((tree, None), |(from, name)| (from, Some(name.trim())));
    path.extend(words(from).filter(|word| word != "self"));
    // `self::x` is the only other use of that word.
    if from.trim().starts_with("self::") {
        path.insert(0, "self".into());
    }
    let name = name.unwrap_or(path.last().unwrap()).to_string();
    found.push((path, name));
}

/// A file of a crate, and what it says of others.
struct Module {
    path: Words,
    children: BTreeSet<String>,
    uses: Vec<(Words, String)>,
    mentions: Vec<Words>,
}

/// The files of a crate by their names; a module that has two files for two
/// configurations is in it twice.
fn modules(file: PathBuf, path: Words, all: &mut BTreeMap<PathBuf, Module>) {
    let raw = fs::read_to_string(&file).unwrap();
    let text = code(&raw);
    let folder = match file.file_name().unwrap().to_str().unwrap() {
        "mod.rs" | "lib.rs" => file.parent().unwrap().to_path_buf(),
        _ => file.with_extension(""),
    };
    let mut module = Module {
        path: path.clone(),
        children: BTreeSet::new(),
        uses: Vec::new(),
        mentions: Vec::new(),
    };
    let mut named = None;
    for line in raw.lines().map(str::trim) {
        let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).filter(
            |(before, name)| {
                (before.is_empty() || before.starts_with("pub"))
                    && name.chars().all(|c| c.is_alphanumeric() || c == '_')
            },
        );
        if let Some((_, name)) = declared {
            let candidates = match named.take() {
                Some(path) => vec![file.parent().unwrap().join(path)],
                None => vec![folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")],
            };
            let path: Words = path.iter().cloned().chain([name.to_string()]).collect();
            candidates
                .into_iter()
                .filter(|file| file.exists())
                .for_each(|file| modules(file, path.clone(), all));
            module.children.insert(name.to_string());
        }
        named =
            line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")).or(named);
    }
    let mut rest = String::new();
    for statement in text.split_inclusive(';') {
        let at = statement
            .find("use ")
            .filter(|at| statement[..*at].ends_with(['\n', ' ', '(']) || *at == 0);
        match at.filter(|at| !statement[..*at].trim_end().ends_with("::")) {
            Some(at) => {
                rest += &statement[..at];
                expand(&Words::new(), statement[at + 4..].trim_end_matches(';'), &mut module.uses);
            }
            None => rest += statement,
        }
    }
    let paths = rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    module.mentions = paths
        .filter(|path| path.contains("::"))
        .map(|path| {
            path.split("::").filter(|word| !word.is_empty()).map(str::to_string).collect::<Words>()
        })
        .filter(|path| !path.is_empty())
        .collect();
    all.insert(file, module);
}

/// The files that a path in `file` leads to; a name that another file only passes
/// on leads to where that one has it from.
fn lead(
    all: &BTreeMap<PathBuf, Module>,
    file: &Path,
    path: &[String],
    depth: usize,
) -> Vec<PathBuf> {
    let of = &all[file];
    let mut place = of.path.clone();
    let mut rest = path;
    match path[0].as_str() {
        "crate" => (place, rest) = (Words::new(), &path[1..]),
        "super" | "self" => {
            while let Some((word @ ("super" | "self"), after)) =
                rest.split_first().map(|(w, after)| (w.as_str(), after))
            {
                if word == "super" {
                    place.pop();
                }
                rest = after;
            }
        }
        word if of.children.contains(word) => {}
        _ => return Vec::new(),
    }
    let are_at = |place: &Words| -> Vec<PathBuf> {
        all.iter()
            .filter(|(_, module)| module.path == *place)
            .map(|(file, _)| file.clone())
            .collect()
    };
    while let Some(word) = rest.first() {
        let deeper: Words = place.iter().cloned().chain([word.clone()]).collect();
        if are_at(&deeper).is_empty() {
            break;
        }
        (place, rest) = (deeper, &rest[1..]);
    }
    let mut found = Vec::new();
    for there in are_at(&place) {
        let passed_on =
            rest.first().and_then(|name| all[&there].uses.iter().find(|(_, known)| known == name));
        match passed_on.filter(|_| there != file && depth < 8) {
            Some((path, _)) => found.extend(lead(all, &there, path, depth + 1)),
            None => found.push(there),
        }
    }
    found
}

/// The files that can be reached from one and back.
fn circles(root: &str) -> Vec<Vec<String>> {
    let mut all = BTreeMap::new();
    modules(place(root), Words::new(), &mut all);
    // A back end of the system answers with the types of the `mod.rs` beside it.
    let own = |from: &Path, to: &Path| {
        from.components().any(|part| part.as_os_str() == "os")
            && to.file_name() == Some("mod.rs".as_ref())
            && from.parent() == to.parent()
    };
    let imports = |file: &Path| -> BTreeSet<PathBuf> {
        let module = &all[file];
        let paths = module.uses.iter().map(|(path, _)| path).chain(&module.mentions);
        paths
            .flat_map(|path| lead(&all, file, path, 0))
            .filter(|to| to != file && !own(file, to))
            .collect()
    };
    let imports: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
        all.keys().map(|file| (file, imports(file))).collect();
    let reached = |from: &PathBuf| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = open.pop() {
            open.extend(imports[&file].iter().filter(|next| seen.insert((*next).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
        all.keys().map(|file| (file, reached(file))).collect();
    let name = |file: &PathBuf| file.strip_prefix(place("")).unwrap().display().to_string();
    let mut circles = BTreeSet::new();
    for (file, seen) in reached.iter().filter(|(file, seen)| seen.contains(**file)) {
        circles.insert(
            seen.iter()
                .filter(|other| reached[other].contains(*file))
                .map(name)
                .collect::<Vec<_>>(),
        );
    }
    circles.into_iter().collect()
}

#[test]
fn no_two_files_import_each_other() {
    let circles: Vec<Vec<String>> =
        ["src/lib.rs", "src/core/lib.rs"].into_iter().flat_map(circles).collect();
    let mut needed = BTreeSet::new();
    for circle in &circles {
        let known = KNOWN_CIRCLES
            .iter()
            .find(|(folder, _)| circle.iter().all(|file| file.starts_with(folder)));
        let Some((folder, _)) = known else { panic!("these files import each other: {circle:#?}") };
        needed.insert(folder);
    }
    let mended: Vec<_> =
        KNOWN_CIRCLES.iter().map(|(folder, _)| folder).filter(|it| !needed.contains(it)).collect();
    assert!(mended.is_empty(), "take these from the list: {mended:?}");
}
