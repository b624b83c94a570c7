//! The architecture: which room may import which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The core, which is pure: each room, and the rooms below that it may use.
const CORE: [(&str, &[&str]); 7] = [
    ("base", &[]),
    ("protocol", &["base"]),
    ("scheduler", &["base"]),
    ("queue", &["base", "protocol", "scheduler"]),
    ("redirect", &["base", "protocol"]),
    ("monitor", &["base", "protocol"]),
    ("export", &["base"]),
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
    ("command", &["base", "protocol", "scheduler", "queue", "redirect", "monitor", "export"]),
];

/// The files of a room: `place.rs`, and everything in the folder `place`.
fn files(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::from_iter(Some(place.with_extension("rs")).filter(|file| file.exists()));
    for entry in fs::read_dir(place).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found.dedup();
    assert!(!found.is_empty() || place.is_dir(), "there is no {}", place.display());
    found
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

/// A host joins whatever the date is there: nothing that makes or judges a key, a handshake or
/// a record can ask for it. The crates of the cipher are built without the standard library.
#[test]
fn no_key_knows_the_date() {
    for file in [
        "src/net/noise.rs",
        "src/net/secure_link.rs",
        "src/config/key_file.rs",
        "src/command/key.rs",
        "src/command/queue/link.rs",
        "src/command/queue/security.rs",
        "src/core/protocol/record.rs",
        "src/core/protocol/peer_key.rs",
        "src/core/queue/ticket_queue/authority.rs",
    ] {
        let text = read(file);
        for clock in ["SystemTime", "UNIX_EPOCH", "unix_time", "clock_gettime", "libc::time"] {
            assert!(!text.contains(clock), "{file}: {clock}");
        }
    }
    let manifest = read("Cargo.toml");
    for library in ["noise-protocol", "orion"] {
        let line = manifest.lines().find(|line| line.starts_with(&format!("{library} =")));
        assert!(line.unwrap().contains("default-features = false"), "{library}");
    }
}

/// Rust text without comments, the contents of strings, and unit tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut code = String::new();
    let mut rest = text;
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
        let mut depth = 0;
        let group = group.rsplit_once('}').unwrap().0;
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
        "mod.rs" | "lib.rs" | "main.rs" => file.parent().unwrap().to_path_buf(),
        _ => file.with_extension(""),
    };
    let mut module = Module {
        path: path.clone(),
        children: BTreeSet::new(),
        uses: Vec::new(),
        mentions: Vec::new(),
    };
    let mut named = Vec::new();
    for line in raw.lines().map(str::trim) {
        let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).filter(
            |(before, name)| {
                (before.is_empty() || before.starts_with("pub"))
                    && name.chars().all(|c| c.is_alphanumeric() || c == '_')
            },
        );
        if let Some((_, name)) = declared {
            let candidates: Vec<PathBuf> = if named.is_empty() {
                vec![folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]
            } else {
                named.drain(..).map(|path| file.parent().unwrap().join(path)).collect()
            };
            let path: Words = path.iter().cloned().chain([name.to_string()]).collect();
            candidates
                .into_iter()
                .filter(|file| file.exists())
                .for_each(|file| modules(file, path.clone(), all));
            module.children.insert(name.to_string());
        }
        // `#[path = "x.rs"]`, or one for each system: `#[cfg_attr(unix, path = "x.rs")]`.
        if line.starts_with("#[") {
            named.extend(line.split_once("path = \"").and_then(|(_, path)| path.split('"').next()));
        }
    }
    module.take_paths(&text);
    all.insert(file, module);
}

impl Module {
    /// Collects the paths of `use`, and all others.
    fn take_paths(&mut self, text: &str) {
        let mut rest = String::new();
        for statement in text.split_inclusive(';') {
            let at = statement
                .find("use ")
                .filter(|at| statement[..*at].ends_with(['\n', ' ', '(']) || *at == 0);
            match at.filter(|at| !statement[..*at].trim_end().ends_with("::")) {
                Some(at) => {
                    rest += &statement[..at];
                    expand(
                        &Words::new(),
                        statement[at + 4..].trim_end_matches(';'),
                        &mut self.uses,
                    );
                }
                None => rest += statement,
            }
        }
        let paths = rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        self.mentions = paths
            .filter(|path| path.contains("::"))
            .map(|path| {
                path.split("::")
                    .filter(|word| !word.is_empty())
                    .map(str::to_string)
                    .collect::<Words>()
            })
            .filter(|path| !path.is_empty())
            .collect();
    }
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
        let mut seen = BTreeSet::new();
        let mut open = vec![from.clone()];
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
    assert!(circles.is_empty(), "these files import each other: {circles:#?}");
}

/// The pages of the repository, and the folder that their paths start from.
const PAGES: [&str; 6] = [
    "README.md",
    "src/README.md",
    "tests/README.md",
    "tests/bench/README.md",
    ".ci/README.md",
    "conf/README.md",
];

/// Whether this names a file, a folder or a module below one of these folders; a word
/// without a folder, any file. A word in capitals stands for a name that is chosen.
fn exists(path: &str, folders: &[&str]) -> bool {
    if !path.contains('/') {
        let all = ["src", "tests"].map(|folder| files(&place(folder)));
        return place(path).exists() || all.iter().flatten().any(|file| file.ends_with(path));
    }
    let chosen = |part: &&str| part.split('.').next().unwrap().chars().all(char::is_uppercase);
    let fixed: Vec<&str> = path.split('/').take_while(|part| !chosen(part)).collect();
    folders.iter().any(|folder| {
        let file = place(folder).join(fixed.join("/"));
        file.exists() || file.with_extension("rs").exists()
    })
}

#[test]
fn what_a_page_names_exists() {
    for page in PAGES {
        let text = read(page);
        let folder = Path::new(page).parent().unwrap().to_str().unwrap();
        let mut seen = 0;
        // [text](file), and `folder/file` or `file.rs`.
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .filter(|link| !link.contains("://"));
        for link in links {
            assert!(place(folder).join(link).exists(), "{page}: there is no {link}");
            seen += 1;
        }
        let quoted = text.split('`').skip(1).step_by(2).filter(|word| {
            let path = |c: char| c.is_ascii_alphanumeric() || "_./".contains(c);
            let made = ["/", "target/", "dist/"].iter().any(|made| word.starts_with(made));
            word.chars().all(path) && !made
        });
        for word in quoted.filter(|word| word.contains('/') || word.ends_with(".rs")) {
            assert!(exists(word, &["", folder]), "{page}: there is no {word}");
            seen += 1;
        }
        assert!(seen > 0 || page == ".ci/README.md", "{page} names nothing");
    }
}

#[test]
fn every_file_belongs_to_a_module() {
    let mut all = BTreeMap::new();
    for root in ["src/lib.rs", "src/core/lib.rs", "tests/main.rs"] {
        modules(place(root), Words::new(), &mut all);
    }
    let folders = ["src", "tests"].map(place);
    let lost: Vec<_> = folders
        .iter()
        .flat_map(|folder| files(folder))
        // The fuzzers are programs of a workspace of their own.
        .filter(|file| !file.starts_with(place("tests/fuzz")))
        .filter(|file| !all.contains_key(file) && !file.ends_with("src/main.rs"))
        .collect();
    assert!(lost.is_empty(), "no module: {lost:#?}");
}

#[test]
fn the_page_of_the_tests_has_every_system_test() {
    let page = read("tests/README.md");
    for line in read("tests/system/mod.rs").lines() {
        if let Some(name) = line.strip_prefix("mod ").and_then(|line| line.strip_suffix(';')) {
            assert!(page.contains(&format!("`{name}`")), "tests/README.md has no {name}");
        }
    }
}

/// A message is in the parser and in the manual, with the same parameters.
#[test]
fn the_manual_has_every_message() {
    let parser = read("src/core/protocol/request.rs");
    // A message may go on in a line of its own that is indented further.
    let page = read("src/command/help/protocol.txt");
    let page: Vec<&str> = page.split_whitespace().collect();
    let page = page.join(" ").replace(" [&", "[&").replace(
        " pegasus://",
        "
pegasus://",
    );
    let values = |field| parser.lines().filter_map(move |line| line.trim().strip_prefix(field));
    let rows: Vec<_> = values("word: \"").zip(values("parameters: &[\"")).collect();
    assert!(rows.len() >= 6, "where are the messages of {parser:.100}?");
    for (command, parameters) in rows {
        let message = format!("pegasus://B/{}?", command.trim_end_matches("\","));
        let line = page.lines().find(|line| {
            let line = line.trim().replace('[', "").replace('&', "?");
            line.starts_with(&message)
        });
        let Some(line) = line else { panic!("`help protocol` has no {message}") };
        for parameter in parameters.trim_end_matches("],").split(", ") {
            let parameter = format!("{}=", parameter.trim_matches('"'));
            // What only older peers send is explained further down.
            let known = line.contains(&parameter) || page.contains(&format!("Older: {parameter}"));
            assert!(known, "`help protocol`, {message} has no {parameter}");
        }
    }
}

/// The tests that do not run under Wine are left out by name: a name that changes
/// would let them run there, and fail.
#[test]
fn the_tests_that_wine_leaves_out_exist() {
    let script = read(".ci/wine").replace("\\\n", " ");
    let tests: String = files(&place("tests/system"))
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let rows = script.lines().filter_map(|line| line.trim().strip_prefix("without "));
    let mut seen = 0;
    for row in rows {
        let quote = &row[..1];
        let names = row[1..].split_once(quote).unwrap().1;
        for name in names.split_whitespace() {
            let known = tests
                .split("\nfn ")
                .any(|text| text.split('(').next().is_some_and(|function| function.contains(name)));
            assert!(known || place(&format!("tests/system/{name}.rs")).exists(), "no test {name}");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} names");
    let modules = script.split_once("modules=(").unwrap().1.split(')').next().unwrap();
    for module in modules.split_whitespace().filter(|module| *module != "service") {
        assert!(place(&format!("tests/system/{module}.rs")).exists(), "no module {module}");
    }
}
