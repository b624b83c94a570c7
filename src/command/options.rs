//! The commands, and the options of each.
//!
//! Owns both lists: the command line is read by them, and completions are made from them.

use getopts::Options;

/// All commands, also those that this program was built without.
pub const COMMANDS: [&str; 13] = [
    "queue", "redirect", "monitor", "send", "status", "top", "drain", "resume", "export", "check",
    "key", "demo", "help",
];

/// Of these, the daemons: a superserver may start them, and then descriptor 2 is a client.
pub const DAEMONS: [&str; 3] = ["queue", "redirect", "monitor"];

/// The commands of this program.
#[cfg(feature = "operate")]
pub fn commands() -> Vec<&'static str> {
    let has = |name: &&&str| match **name {
        "queue" => cfg!(feature = "queue"),
        "redirect" => cfg!(feature = "redirect"),
        "monitor" => cfg!(feature = "monitor"),
        "demo" => cfg!(feature = "demo"),
        "export" => cfg!(feature = "export"),
        "status" | "top" | "drain" | "resume" | "check" => cfg!(feature = "operate"),
        _ => true,
    };
    COMMANDS.iter().filter(has).copied().collect()
}

/// The options of a command.
pub fn options(name: &str) -> Options {
    let mut options = Options::new();
    options.optflag("h", "help", "");
    if !matches!(name, "help" | "demo") {
        options.optopt("c", "config", "", "FILE");
        options.optmulti("o", "set", "", "KEY=VALUE");
    }
    match name {
        daemon if DAEMONS.contains(&daemon) => {
            options.optflag("t", "test", "");
            options.optflagmulti("v", "verbose", "");
            options.optflagmulti("q", "quiet", "");
        }
        "key" => super::key::add_options(&mut options),
        #[cfg(feature = "operate")]
        "help" => {
            options.optflag("", "man", "");
            options.optflag("", "topics", "");
            options.optopt("", "complete", "", "SHELL");
        }
        #[cfg(feature = "operate")]
        "status" | "top" | "drain" | "resume" => super::operate::add_options(&mut options),
        #[cfg(feature = "operate")]
        "check" => super::check::add_options(&mut options),
        #[cfg(feature = "export")]
        "export" => super::export::add_options(&mut options),
        _ => {}
    }
    match name {
        "redirect" => options.optopt("s", "service", "", "NAME"),
        "monitor" => options.optflag("", "once", ""),
        "demo" => options.optopt("", "seconds", "", "N"),
        "status" => options.optflag("", "json", ""),
        "top" => options.optopt("n", "", "", "COUNT"),
        "drain" => options.optopt("", "for", "", "TIME"),
        _ => &mut options,
    };
    options
}
