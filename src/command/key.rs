//! `pegasus key`: lines for a key file.
//!
//! Owns what is printed for which side. Writes no file: the line goes where the operator
//! puts it.

use super::exit;
use super::terminal::print_error;
use crate::config::settings::Settings;
use crate::config::source::default_file;
use crate::net::secure_link;
use getopts::{Matches, Options};
use pegasus_core::protocol::peer_key::{parse_list, KeyName, PeerKey, Secret};
use std::io::{self, Write};
use std::path::PathBuf;

/// Its options besides those of the configuration.
pub fn add_options(options: &mut Options) {
    options.optflag("", "for-client", "");
    options.optopt("", "rotate", "", "NAME");
    options.optopt("", "addr", "", "CIDR,…");
    options.optopt("s", "service", "", "NAME,…");
}

/// Why there is no line, and the exit status.
type Failure = (i32, String);

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    let line = match line(matches) {
        Ok(line) => line,
        Err((status, why)) => {
            print_error(format_args!("pegasus: key: {why}"));
            return status;
        }
    };
    match writeln!(io::stdout().lock(), "{line}") {
        Ok(()) => exit::OK,
        // A secret that was not printed whole is not to be taken for one.
        Err(error) => {
            print_error(format_args!("pegasus: key: {error}"));
            exit::SYSTEM
        }
    }
}

fn line(matches: &Matches) -> Result<String, Failure> {
    let usage = |why: String| (exit::USAGE, why);
    if !secure_link::BUILT_IN {
        return Err(usage("this program was built without encrypted control connections".into()));
    }
    if let Some(name) = matches.opt_str("rotate") {
        if !matches.free.is_empty() || matches.opt_present("for-client") {
            return Err(usage("--rotate NAME takes nothing else".into()));
        }
        let known = known_key(matches, &name)?;
        return Ok(PeerKey { secret: new_secret()?, ..known }.line(true));
    }
    let [role, name] = matches.free.as_slice() else {
        let why = "say ROLE and NAME (provider, balancer, observer, operator), or --rotate NAME";
        return Err(usage(why.into()));
    };
    let role = role.parse().map_err(|why| usage(format!("`{role}` is {why}")))?;
    if matches.opt_present("for-client") {
        let known = known_key(matches, name)?;
        if known.role != role {
            let why = format!("{name} is a key of role {} in key_file", known.role.word());
            return Err((exit::CONFIG, why));
        }
        return Ok(known.line(false));
    }
    let list = |option: &str| matches.opt_str(option);
    let addresses = list("addr").map_or(Ok(Vec::new()), |list| parse_list(&list));
    let services = list("service")
        .map_or(Ok(Vec::new()), |list| parse_list(&list.to_ascii_lowercase().replace('_', "-")));
    let key = PeerKey {
        name: parse_name(name)?,
        role,
        secret: new_secret()?,
        addresses: addresses.map_err(|why| usage(format!("--addr: {why}")))?,
        services: services.map_err(|why| usage(format!("-s: {why}")))?,
    };
    Ok(key.line(true))
}

fn parse_name(name: &str) -> Result<KeyName, Failure> {
    name.parse().map_err(|why| (exit::USAGE, format!("`{name}` is {why}")))
}

/// The newest key of this name in the configured file.
fn known_key(matches: &Matches, name: &str) -> Result<PeerKey, Failure> {
    let file = matches.opt_str("config").map(PathBuf::from).or_else(default_file);
    let settings = Settings::load(file.as_deref(), &matches.opt_strs("set")).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        (exit::CONFIG, errors.join("\npegasus: key: "))
    })?;
    let Some(path) = &settings.key_file else {
        return Err((exit::CONFIG, "key_file is not set (-o key_file=FILE)".into()));
    };
    let newest = settings.keys.named(parse_name(name)?).last();
    let missing = || (exit::CONFIG, format!("no key {name} in {}", path.display()));
    newest.map(|key| PeerKey::clone(key)).ok_or_else(missing)
}

fn new_secret() -> Result<Secret, Failure> {
    let mut secret = Secret([0; Secret::BYTES]);
    let random = secure_link::await_randomness(|| {
        print_error("pegasus: key: waiting for the randomness of the system");
    });
    random
        .and_then(|()| secure_link::random(&mut secret.0))
        .map_err(|error| (exit::SYSTEM, error.to_string()))?;
    Ok(secret)
}
