//! Completions for shells: commands, their options, keys of the configuration and pages.
//!
//! Owns the three scripts. The words come from the tables that the program itself uses,
//! and what takes a file is left to the shell.

use super::page::Page;
use crate::command::options as commands;
use crate::config::keys;
use std::fmt::Write;

/// The shells.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// An option as it is typed, and the name of its value if it takes one.
pub struct TypedOption {
    pub names: Vec<String>,
    pub value: Option<String>,
}

/// Returns the options of a command: getopts tells them in the lines of its usage.
pub fn options(command: &str) -> Vec<TypedOption> {
    let usage = commands::options(command).usage("");
    let option = |line: &str| {
        let (mut names, mut value) = (Vec::new(), None);
        for word in line.split([' ', ',']).filter(|word| !word.is_empty()) {
            if word.starts_with('-') {
                names.push(word.to_string());
            } else {
                value.get_or_insert(word.to_string());
            }
        }
        (!names.is_empty()).then_some(TypedOption { names, value })
    };
    usage.lines().filter_map(option).collect()
}

/// The words that may follow a command.
fn words(command: &str, pages: &[Page]) -> Vec<&'static str> {
    match command {
        "help" => pages.iter().map(|page| page.name).filter(|name| !name.is_empty()).collect(),
        "export" => vec!["nft", "ipvsadm", "haproxy", "nginx"],
        "key" => vec!["provider", "balancer", "observer", "operator"],
        _ => Vec::new(),
    }
}

/// Returns the script for a shell.
pub fn script(shell: &str, pages: &[Page]) -> Option<String> {
    match shell {
        "bash" => Some(bash(pages)),
        "zsh" => Some(zsh(pages)),
        "fish" => Some(fish(pages)),
        _ => None,
    }
}

fn all_keys() -> String {
    keys::all().map(|key| format!("{}=", key.name)).collect::<Vec<_>>().join(" ")
}

fn names(command: &str) -> String {
    options(command).into_iter().flat_map(|option| option.names).collect::<Vec<_>>().join(" ")
}

fn bash(pages: &[Page]) -> String {
    let commands = commands::commands();
    let mut text = format!(
        "# Completion of pegasus for bash: source it, or put it where bash-completion looks.\n\
         _pegasus() {{\n\
         \x20   local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words=\n\
         \x20   COMPREPLY=()\n\
         \x20   if [ \"$COMP_CWORD\" = 1 ]; then\n\
         \x20       COMPREPLY=($(compgen -W \"{} -h -V\" -- \"$cur\"))\n\
         \x20       return\n\
         \x20   fi\n\
         \x20   case $prev in\n\
         \x20   -c | --config | --root) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n\
         \x20   -o | --set)\n\
         \x20       COMPREPLY=($(compgen -W \"{}\" -- \"$cur\"))\n\
         \x20       compopt -o nospace 2>/dev/null\n\
         \x20       return ;;\n\
         \x20   --complete) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")); return ;;\n\
         \x20   esac\n\
         \x20   case ${{COMP_WORDS[1]}} in\n",
        commands.join(" "),
        all_keys(),
        SHELLS.join(" ")
    );
    for command in commands {
        let all = [names(command), words(command, pages).join(" ")].join(" ");
        let _ = writeln!(text, "    {command}) words=\"{}\" ;;", all.trim_end());
    }
    text.push_str(
        "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n\
         complete -F _pegasus pegasus\n",
    );
    text
}

fn zsh(pages: &[Page]) -> String {
    let mut text = String::from(
        "#compdef pegasus\n\
         # Completion of pegasus for zsh: a file _pegasus in a directory of fpath.\n\
         _pegasus() {\n  local -a commands\n  commands=(\n",
    );
    for command in commands::commands() {
        let _ = writeln!(text, "    '{command}:{}'", summary(command, pages).replace('\'', ""));
    }
    let _ = write!(
        text,
        "  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n\
         \x20 case $words[CURRENT-1] in\n\
         \x20   -c|--config|--root) _files; return ;;\n\
         \x20   -o|--set) compadd -S '' -- {}; return ;;\n\
         \x20   --complete) compadd -- {}; return ;;\n  esac\n  case $words[2] in\n",
        all_keys(),
        SHELLS.join(" ")
    );
    for command in commands::commands() {
        let all = [names(command), words(command, pages).join(" ")].join(" ");
        let _ = writeln!(text, "    {command}) compadd -- {} ;;", all.trim_end());
    }
    text.push_str(
        "  esac\n}\n\
         if [ \"$funcstack[1]\" = _pegasus ]; then _pegasus; else compdef _pegasus pegasus; fi\n",
    );
    text
}

fn fish(pages: &[Page]) -> String {
    let mut text = String::from(
        "# Completion of pegasus for fish: a file pegasus.fish in ~/.config/fish/completions.\n\
         complete -c pegasus -f\n",
    );
    for command in commands::commands() {
        let _ = writeln!(
            text,
            "complete -c pegasus -n __fish_use_subcommand -a {command} -d '{}'",
            summary(command, pages).replace('\'', "")
        );
    }
    for command in commands::commands() {
        let seen = format!("complete -c pegasus -n '__fish_seen_subcommand_from {command}'");
        let words = words(command, pages);
        if !words.is_empty() {
            let _ = writeln!(text, "{seen} -a '{}'", words.join(" "));
        }
        for TypedOption { names, value } in options(command) {
            let _ = write!(text, "{seen}");
            for name in &names {
                match name.strip_prefix("--") {
                    Some(long) => text.push_str(&format!(" -l {long}")),
                    None => text.push_str(&format!(" -s {}", &name[1..])),
                }
            }
            match value.as_deref() {
                Some("KEY=VALUE") => {
                    let _ = write!(text, " -x -a '{}'", all_keys());
                }
                Some("SHELL") => {
                    let _ = write!(text, " -x -a '{}'", SHELLS.join(" "));
                }
                Some("FILE" | "DIR") => text.push_str(" -r -F"),
                Some(_) => text.push_str(" -x"),
                None => {}
            }
            text.push('\n');
        }
    }
    text
}

fn summary(command: &str, pages: &[Page]) -> &'static str {
    match command {
        "resume" => "let clients come to a provider again",
        "key" => "make a line for a key file",
        "help" => "the manual",
        _ => pages.iter().find(|page| page.name == command).map_or("", |page| page.summary),
    }
}
