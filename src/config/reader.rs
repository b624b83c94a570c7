//! Reads a configuration file and the command line into settings, or reports every
//! mistake.
//!
//! Owns the mistakes, the application of defaults, and checks that involve several keys.

use super::include::{self, Files};
use super::key_file;
use super::keys::{self, Setter};
use super::settings::{Check, ServiceSettings, Settings};
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::key_value;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::protocol::proxy_header::Version;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The key that names further files. Only in files has it a meaning.
const INCLUDE: &str = "include";

impl Default for Settings {
    /// Every key at the default in its row of the table.
    fn default() -> Self {
        let mut settings = Settings::blank();
        for key in keys::all() {
            if let Setter::Global(set) = key.set {
                let set = set(&mut settings, key.default);
                debug_assert!(set.is_ok(), "the default of {}: {set:?}", key.name);
            }
        }
        settings
    }
}

/// A service with every key at the default in its row.
fn service_settings(name: ServiceName) -> ServiceSettings {
    let mut settings = ServiceSettings::blank(name);
    for key in keys::all() {
        if let Setter::Service(set) = key.set {
            let set = set(&mut settings, key.default);
            debug_assert!(set.is_ok(), "the default of {}: {set:?}", key.name);
        }
    }
    settings
}

/// A mistake in a configuration, ready to be printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Settings {
    /// Reads a file, if any, then the `KEY=VALUE` of the command line, which override it.
    ///
    /// # Errors
    /// Returns every mistake, in order.
    pub fn load(file: Option<&Path>, assignments: &[String]) -> Result<Settings, Vec<ConfigError>> {
        ConfigReader::of(file, assignments).finish()
    }

    /// Returns the settings of a configuration that may contain mistakes. They say where a
    /// process without a standard error logs these.
    pub fn with_mistakes(file: Option<&Path>, assignments: &[String]) -> Settings {
        ConfigReader::of(file, assignments).settings
    }
}

#[derive(Default)]
struct ConfigReader {
    settings: Settings,
    errors: Vec<ConfigError>,
    /// Each key that was set, and where.
    origins: Vec<(String, String)>,
    files: Files,
    /// Where each key of all files was set.
    seen: HashMap<String, String>,
}

/// Returns where a key was set last; empty if it was not.
fn origin(origins: &[(String, String)], key: &str) -> String {
    let set = origins.iter().rfind(|(known, _)| known == key);
    set.map(|(_, origin)| origin.clone()).unwrap_or_default()
}

impl ConfigReader {
    /// Reads the file, if any, and the assignments.
    fn of(file: Option<&Path>, assignments: &[String]) -> ConfigReader {
        let mut reader = ConfigReader::default();
        if let Some(path) = file {
            reader.read_file(path, "", 0);
        }
        for assignment in assignments {
            match key_value::assignment(assignment) {
                Ok((key, value)) => {
                    reader.set(&format!("-o {key}={value}"), &key.to_ascii_lowercase(), value)
                }
                Err(why) => reader.errors.push(ConfigError(format!("-o {why}"))),
            }
        }
        reader
    }

    fn fail(&mut self, why: String) {
        self.errors.push(ConfigError(why));
    }

    /// `place`: where the file is named; empty: by `-c`.
    fn read_file(&mut self, path: &Path, place: &str, level: usize) {
        let name = path.display();
        self.settings.read_from.push(path.to_path_buf());
        match self.files.read(path, place) {
            Ok(text) => self.read_text(path, &text, level),
            Err(why) if place.is_empty() => self.fail(format!("{name}: {why}")),
            Err(why) => self.fail(format!("{place}: include: {name}: {why}")),
        }
    }

    fn read_text(&mut self, path: &Path, text: &str, level: usize) {
        let name = path.display();
        for pair in key_value::read(text) {
            let pair = match pair {
                Err((line, why)) => {
                    self.fail(format!("{name}:{line}: {why}"));
                    continue;
                }
                Ok(pair) => pair,
            };
            let place = format!("{name}:{}", pair.line);
            // One key, however it is written.
            let key = pair.key.to_ascii_lowercase();
            if key == INCLUDE {
                // An empty folder, too: there may be files in it next time.
                self.settings.read_from.push(include::path(&pair.value, path));
                match include::files(&pair.value, path, level) {
                    Ok(files) => {
                        files.iter().for_each(|file| self.read_file(file, &place, level + 1));
                    }
                    Err(why) => self.fail(format!("{place}: include={}: {why}", pair.value)),
                }
                continue;
            }
            if let Some(first) = self.seen.get(&key) {
                let first = first.strip_prefix(&format!("{name}:"));
                let first =
                    first.map_or_else(|| self.seen[&key].clone(), |line| format!("line {line}"));
                self.fail(format!("{place}: {} is already set in {first}", pair.key));
                continue;
            }
            self.set(&format!("{place}: {}={}", pair.key, pair.value), &key, &pair.value);
            self.seen.insert(key, place);
        }
    }

    /// `origin` is the place and the text of the assignment, for error messages. The key is
    /// in lower case.
    fn set(&mut self, origin: &str, key: &str, value: &str) {
        self.origins.push((key.to_string(), origin.to_string()));
        if let Err(why) = self.assign(key, value) {
            self.errors.push(ConfigError(format!("{origin}: {why}")));
        }
    }

    fn assign(&mut self, key: &str, value: &str) -> Result<(), String> {
        if let Some(Setter::Global(set)) =
            keys::all().find(|known| known.name == key).map(|known| &known.set)
        {
            return set(&mut self.settings, value);
        }
        // `service_my_app_check_rise`: the longest known ending wins.
        let of_service = keys::all().filter_map(|known| match known.set {
            Setter::Service(set) => Some((known.name.strip_prefix("service_NAME")?, (known, set))),
            Setter::Global(_) => None,
        });
        let found = of_service
            .filter_map(|(ending, row)| {
                Some((key.strip_prefix("service_")?.strip_suffix(ending)?, ending.len(), row))
            })
            .max_by_key(|(_, length, _)| *length);
        let Some((name, _, (row, set))) = found else { return Err(unknown_key(key)) };
        let name: ServiceName =
            ServiceName::typed(name).map_err(|why| format!("`{name}` is {why}"))?;
        let services = &mut self.settings.services;
        let index = services.iter().position(|service| service.name == name).unwrap_or_else(|| {
            services.push(service_settings(name));
            services.len() - 1
        });
        let service = &mut services[index];
        set(service, value)?;
        service.offered |= row.offers && !value.is_empty();
        service.check_chosen |= row.name == "service_NAME_check";
        Ok(())
    }

    fn finish(mut self) -> Result<Settings, Vec<ConfigError>> {
        if let Some(path) = self.settings.key_file.clone() {
            match key_file::read(&path) {
                Ok(keys) => self.settings.keys = Arc::new(keys),
                Err(errors) => self.errors.extend(errors.into_iter().map(ConfigError)),
            }
        }
        let found: Vec<ConfigError> = self
            .settings
            .services
            .iter()
            .flat_map(|service| self.contradictions(service))
            .collect();
        self.errors.extend(found);
        if self.errors.is_empty() {
            Ok(self.settings)
        } else {
            Err(self.errors)
        }
    }

    /// What the keys of a service, or those of others with them, cannot mean together.
    fn contradictions(&self, service: &ServiceSettings) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let key = service.name.in_key();
        let at = |ending| origin(&self.origins, &format!("service_{key}_{ending}"));
        // The default check may be impossible; one that was asked for may not.
        let asked = matches!(service.check, Check::Tcp(None) | Check::Http(None, _))
            && !at("check").is_empty();
        if asked && service.provider.is_some() && service.effective_check().is_none() {
            let why = format!(
                "its provider has no port (tcp:PORT, off, or service_{key}_provider=:PORT)"
            );
            errors.push(ConfigError(format!("{}: {why}", at("check"))));
        }
        let others = self.settings.services.iter().filter(|other| other.name != service.name);
        if others.clone().any(|other| listens_overlap(other, service)) {
            errors.push(ConfigError(format!(
                "service_{key}_listen: another service listens there too"
            )));
        }
        let has_other = |name: &&_| others.clone().any(|other| other.dns.contains(name));
        if let Some(name) = service.dns.iter().find(has_other) {
            let why = format!("another service has the name {name} too");
            errors.push(ConfigError(format!("{}: {why}", at("dns"))));
        }
        let transports = service.listen.iter().map(|listen| listen.transport);
        if service.proxy_protocol == Some(Version::V1)
            && transports.clone().any(|spoken| spoken == Transport::Udp)
        {
            let why = "v1 works for TCP only (use v2, or another service for /udp)";
            errors.push(ConfigError(format!("{}: {why}", at("proxy_protocol"))));
        }
        if service.proxy_unique_id && service.proxy_protocol != Some(Version::V2) {
            let why = format!("only v2 carries it: set service_{key}_proxy_protocol=v2");
            errors.push(ConfigError(format!("{}: {why}", at("proxy_unique_id"))));
        }
        let only_udp =
            !service.listen.is_empty() && transports.clone().all(|spoken| spoken == Transport::Udp);
        let of_tcp =
            [("accept_proxy", !service.accept_proxy.is_empty()), ("http", service.http_redirect)];
        for (ending, _) in of_tcp.into_iter().filter(|(_, is_set)| only_udp && *is_set) {
            let why = "this works for TCP only, and the service listens on UDP";
            errors.push(ConfigError(format!("{}: {why}", at(ending))));
        }
        errors
    }
}

fn listens_overlap(one: &ServiceSettings, other: &ServiceSettings) -> bool {
    one.listen.iter().any(|listen| {
        listen.first != 0
            && other.listen.iter().any(|other| {
                other.transport == listen.transport
                    && other.host == listen.host
                    && other.first <= listen.last
                    && listen.first <= other.last
            })
    })
}

/// Returns the message for a key that does not exist, with the nearest one that does.
fn unknown_key(key: &str) -> String {
    let name =
        key.strip_prefix("service_").and_then(|rest| rest.split('_').next()).unwrap_or("NAME");
    let near = keys::all()
        .map(|known| known.name.replace("NAME", name))
        .map(|known| (distance(key, &known), known))
        .min();
    match near {
        Some((distance, near)) if distance <= near.len() / 3 => {
            format!("no such key; did you mean {near}?")
        }
        _ => "no such key (`pegasus help config` shows all)".into(),
    }
}

/// Returns the Levenshtein distance: letters to change, add or remove.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_core::base::time::Span;
    use pegasus_core::queue::ticket_queue::QueueOptions;
    use pegasus_core::redirect::flows::FlowLimits;
    use pegasus_core::redirect::redirector::RedirectOptions;

    fn read(text: &str) -> Result<Settings, Vec<String>> {
        let mut reader = ConfigReader::default();
        reader.read_text(Path::new("pegasus.conf"), text, 0);
        reader.finish().map_err(|errors| errors.into_iter().map(|error| error.0).collect())
    }

    #[test]
    fn a_file_for_all_commands() {
        let settings = read(
            "queue_listen=\"127.0.0.1:7347 [::1]:7347\"\nqueue_scheduler=rr\nredirect_wait=0\n\
             service_my_app_listen='*:8080 *:40000-40020'\nservice_my_app_check_rise=3\n\
             service_my_app_wait=30s\n\
             service_my_app_provider=:80\nservice_web_fallback=10.0.0.1:80\n",
        )
        .unwrap();
        assert_eq!(settings.queue_listen.len(), 2);
        assert_eq!(settings.queue.scheduler.to_string(), "round-robin");
        assert!(settings.redirect.wait.usual.is_zero());
        let app = settings.service("my-app".parse().unwrap()).unwrap();
        assert_eq!(
            (app.rise, app.effective_check(), app.listen.len()),
            (3, Some(Check::Tcp(Some(80))), 2)
        );
        let options = settings.redirect_options();
        assert_eq!(options.wait.of("my-app".parse().unwrap()), Span::from_secs(30));
        assert!(options.wait.of("web".parse().unwrap()).is_zero());
        assert_eq!(
            settings.offered().iter().map(|service| service.name.as_str()).collect::<Vec<_>>(),
            ["my-app"]
        );
    }

    #[test]
    fn a_service_of_udp_only_is_checked_where_a_key_says_so() {
        let check = |listen: &str, more: &str| {
            let text = format!("service_a_listen='{listen}'\nservice_a_provider=:514\n{more}");
            read(&text).unwrap().service("a".parse().unwrap()).unwrap().effective_check()
        };
        let by_tcp = |port| Some(Check::Tcp(Some(port)));
        assert_eq!(check("*:514/udp", ""), None);
        assert_eq!(check("*:514/udp 127.0.0.1:515/udp", ""), None);
        assert_eq!(check("*:514/udp", "service_a_check=tcp\n"), by_tcp(514));
        assert_eq!(check("*:514/udp", "service_a_check=tcp:601\n"), by_tcp(601));
        assert_eq!(check("*:514/udp *:514", ""), by_tcp(514));
        assert_eq!(check("", ""), by_tcp(514));
    }

    #[test]
    fn where_the_log_is_can_be_read_among_mistakes() {
        let assignments =
            |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let log = |words: &[&str]| {
            Settings::with_mistakes(Some(Path::new("/no/such.conf")), &assignments(words))
                .log
                .to_string()
        };
        assert_eq!(log(&["queue_listn=*:1", "log=/var/log/queue", "nonsense"]), "/var/log/queue");
        assert_eq!(log(&["log="]), "stderr");
    }

    #[test]
    fn every_mistake_names_file_line_key_and_what_would_be_right() {
        let errors = read(
            "queue_schedular=fifo\nqueue_scheduler=fastest\n\nqueue_lease=soon\nqueue_lease=1s\n\
             service_2web_listen=*:80\nredirect_tries=0\nservice_web_lisen=*:80\n\
             queue_listen=*:53/udp\nservice_x_check=tcp\nnonsense\n\
             service_x_provider=10.0.0.7\n",
        )
        .unwrap_err();
        let expected = [
            "pegasus.conf:1: queue_schedular=fifo: no such key; did you mean queue_scheduler?",
            "pegasus.conf:2: queue_scheduler=fastest: no such scheduler (competitive, ",
            "pegasus.conf:4: queue_lease=soon: not a duration",
            "pegasus.conf:5: queue_lease is already set in line 4",
            "pegasus.conf:6: service_2web_listen=*:80: `2web` is not a service name",
            "pegasus.conf:7: redirect_tries=0: not a number from 1 to 16",
            "pegasus.conf:8: service_web_lisen=*:80: no such key; did you mean service_web_listen?",
            "pegasus.conf:9: queue_listen=*:53/udp: TCP only: leave out /udp",
            "pegasus.conf:11: `nonsense` is not KEY=VALUE",
            "pegasus.conf:10: service_x_check=tcp: its provider has no port",
        ];
        assert_eq!(errors.len(), expected.len(), "{errors:#?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_transport_that_a_key_does_not_have_is_told_with_what_would_be_right() {
        let said = |assignments: &[&str]| {
            let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
            Settings::load(None, &assignments).unwrap_err()[0].to_string()
        };
        for key in ["queue_listen", "queue_admin", "redirect_admin", "monitor_agent"] {
            let error = said(&[&format!("{key}=*:7 *:8/udp")]);
            assert!(error.ends_with(": TCP only: leave out /udp"), "{error}");
        }
        for end in ["udp", "tcp"] {
            let error = said(&[&format!("redirect_dns=127.0.0.1:53/{end}")]);
            assert!(error.ends_with(": always UDP and TCP: leave out /udp and /tcp"), "{error}");
        }
        let error = said(&["service_web_listen=*:80/udp", "service_web_http=redirect"]);
        assert!(error.contains("service_web_http=redirect: this works for TCP only"), "{error}");
    }

    /// Setting a key to its documented default changes nothing: defaults have one source.
    #[test]
    fn the_defaults_are_those_of_the_table() {
        let named = "service_web_fallback=".to_string();
        let load = |assignments: &[String]| {
            let mut settings = Settings::load(None, assignments).unwrap();
            // Setting a check, even to its default, means to offer the service.
            for service in &mut settings.services {
                service.offered = false;
                service.check_chosen = false;
            }
            format!("{settings:#?}")
        };
        let before = load(std::slice::from_ref(&named));
        for key in keys::all() {
            let assignment = format!("{}={}", key.name.replace("NAME", "web"), key.default);
            assert_eq!(load(&[named.clone(), assignment.clone()]), before, "{assignment}");
        }
    }

    #[test]
    fn the_core_has_the_same_defaults() {
        let settings = Settings::load(None, &["service_web_fallback=".into()]).unwrap();
        assert_eq!(format!("{:#?}", settings.queue), format!("{:#?}", QueueOptions::default()));
        assert_eq!(
            format!("{:#?}", settings.redirect),
            format!("{:#?}", RedirectOptions::default())
        );
        assert_eq!(
            format!("{:#?}", settings.services[0].udp),
            format!("{:#?}", FlowLimits::default())
        );
    }

    #[test]
    fn the_command_line_wins() {
        let settings =
            Settings::load(None, &["redirect_wait=2s".into(), "redirect_wait=3s".into()]).unwrap();
        assert_eq!(settings.redirect.wait.usual, Span::from_secs(3));
        assert!(Settings::load(None, &["redirect_wait".into()]).is_err());
        assert_eq!(Settings::load(None, &[]).unwrap().redirect.wait.usual, Span::from_secs(1));
    }
}
