//! What inetd and xinetd will do with their lines that start this program.
//!
//! Owns the reading of their files, below a folder that stands for the root. Knows their
//! limits (openbsd-inetd 0.2016, xinetd 2.3.15), not whether they run.

use super::finding::Finding;
use super::host_files::{files, is_ours, read};
use super::systemd;
use crate::config::settings::Settings;
use pegasus_core::base::endpoint::Transport;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Starts a minute that are too few for a balancer: what openbsd-inetd does by default.
const INETD_STARTS: u64 = 256;
/// Clients a second, and at once, below which a limit of xinetd is noticed by clients.
const XINETD_RATE: u64 = 200;
const XINETD_INSTANCES: u64 = 200;

/// What was found on this host.
#[derive(Default)]
pub struct Superservers {
    /// Some line starts this program.
    pub start_us: bool,
    /// What is wrong with these lines.
    pub findings: Vec<Finding>,
}

/// Reads all files below `root`.
pub fn find(root: &Path, settings: &Settings) -> Superservers {
    let services = read(&root.join("etc/services")).unwrap_or_default();
    let mut checker =
        Checker { services: service_names(&services), settings, found: Superservers::default() };
    for path in [root.join("etc/inetd.conf")].into_iter().chain(files(&root.join("etc/inetd.d"))) {
        checker.inetd(&path.display().to_string(), &read(&path).unwrap_or_default());
    }
    let defaults = read(&root.join("etc/xinetd.conf")).unwrap_or_default();
    checker.xinetd(&root.join("etc/xinetd.conf").display().to_string(), &defaults, &defaults);
    for path in files(&root.join("etc/xinetd.d")) {
        checker.xinetd(&path.display().to_string(), &read(&path).unwrap_or_default(), &defaults);
    }
    let (start_us, findings) = systemd::find(root, settings);
    checker.found.start_us |= start_us;
    checker.found.findings.extend(findings);
    checker.found
}

/// `NAME/PROTOCOL` of all lines of `/etc/services`.
fn service_names(text: &str) -> HashSet<String> {
    let mut names = HashSet::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (Some(name), Some((_, protocol))) =
            (words.next(), words.next().and_then(|port| port.split_once('/')))
        else {
            continue;
        };
        names.extend([name].into_iter().chain(words).map(|name| format!("{name}/{protocol}")));
    }
    names
}

struct Checker<'a> {
    services: HashSet<String>,
    settings: &'a Settings,
    found: Superservers,
}

impl Checker<'_> {
    fn add(&mut self, check: &'static str, place: &str, what: String, mend: String) {
        self.found.findings.push(Finding::new(check, place, what, mend));
    }

    /// The lines of an `inetd.conf`.
    fn inetd(&mut self, path: &str, text: &str) {
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if line.starts_with('#') || words.len() < 6 || !is_ours(words[5..].iter()) {
                continue;
            }
            self.found.start_us = true;
            let place = format!("{path}:{}", index + 1);
            // `.N` and `:N` are starts a minute; FreeBSD's `/` has limits of its own.
            let end = words[3].find(['.', ':', '/']).unwrap_or(words[3].len());
            let (wait, limit) = words[3].split_at(end);
            let most = match limit.strip_prefix(['.', ':']) {
                Some(most) => most.parse().unwrap_or(INETD_STARTS),
                None if limit.is_empty() => INETD_STARTS,
                None => u64::MAX,
            };
            if wait == "nowait" && most <= INETD_STARTS {
                let what = format!(
                    "openbsd-inetd starts this at most {most} times a minute, and then drops \
                     clients"
                );
                let mend = line.replacen(words[3], "nowait.6000", 1);
                self.add("inetd", &place, what, mend);
            }
            let port = words[0].rsplit(':').next().unwrap_or_default();
            let protocol = if words[2].starts_with("udp") { "udp" } else { "tcp" };
            self.service_port("inetd", &place, port, protocol);
            if !words.contains(&"-s") && !words.iter().any(|word| word.starts_with("--service")) {
                self.service_of(&place, port, protocol, &format!("{line} -s NAME"));
            }
        }
    }

    /// The services of a file of xinetd. `defaults` has the section of that name.
    fn xinetd(&mut self, path: &str, text: &str, defaults: &str) {
        let defaults: HashMap<String, String> = sections(defaults)
            .into_iter()
            .filter(|section| section.name.is_none())
            .flat_map(|section| section.values)
            .collect();
        for section in sections(text) {
            let Some(name) = &section.name else { continue };
            let get = |key: &str| section.values.get(key).or_else(|| defaults.get(key));
            let own = |key: &str| section.values.get(key).map_or("", String::as_str);
            let words =
                own("server").split_whitespace().chain(own("server_args").split_whitespace());
            if !is_ours(words) || own("disable") == "yes" {
                continue;
            }
            self.found.start_us = true;
            let place = format!("{path}:{}", section.line);
            if section.brace_on_line {
                let what = format!(
                    "xinetd drops service {name} silently: its {{ must stand on a line of its own"
                );
                self.add("xinetd", &place, what, format!("service {name}\n{{"));
            }
            if own("wait") == "no" {
                let rate = get("cps").and_then(|cps| cps.split_whitespace().next()?.parse().ok());
                let rate: u64 = rate.unwrap_or(50);
                if rate < XINETD_RATE {
                    let what = format!(
                        "xinetd accepts {rate} clients of {name} a second, and \
                        then refuses all for a while"
                    );
                    self.add("xinetd", &place, what, "cps = 10000 1".into());
                }
                for (key, what) in [("instances", "at once"), ("per_source", "of one address")] {
                    let most: Option<u64> = get(key).and_then(|most| most.parse().ok());
                    if let Some(most) = most.filter(|most| *most < XINETD_INSTANCES) {
                        let what =
                            format!("xinetd refuses more than {most} clients of {name} {what}");
                        let good = if key == "instances" { "UNLIMITED" } else { "200" };
                        self.add("xinetd", &place, what, format!("{key} = {good}"));
                    }
                }
            }
            let protocol = if own("socket_type") == "dgram" { "udp" } else { "tcp" };
            if !own("type").contains("UNLISTED") {
                self.service_port("xinetd", &place, name, protocol);
            }
        }
    }

    /// A port by name must be known to the system.
    fn service_port(&mut self, check: &'static str, place: &str, port: &str, protocol: &str) {
        let known =
            port.parse::<u16>().is_ok() || self.services.contains(&format!("{port}/{protocol}"));
        if !known {
            let what = format!("{port} is no service of /etc/services, so nothing listens for it");
            let mend = format!("{port} 8080/{protocol}   (in /etc/services, with its port)");
            self.add(check, place, what, mend);
        }
    }

    /// Without -s the service is the one that listens on the port.
    fn service_of(&mut self, place: &str, port: &str, protocol: &str, mend: &str) {
        let transport = if protocol == "udp" { Transport::Udp } else { Transport::Tcp };
        let Ok(port) = port.parse::<u16>() else { return };
        let by_port = self.settings.services.iter().any(|service| {
            service.listen.iter().any(|at| at.transport == transport && at.covers(port))
        });
        if !by_port && !self.settings.services.is_empty() {
            let what = "without -s its clients are those of service `default`";
            self.add("inetd", place, what.into(), mend.into());
        }
    }
}

/// A section of a file of xinetd.
struct XinetdSection {
    /// None: the defaults.
    name: Option<String>,
    line: usize,
    brace_on_line: bool,
    values: HashMap<String, String>,
}

fn sections(text: &str) -> Vec<XinetdSection> {
    let mut sections: Vec<XinetdSection> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["service", name, rest @ ..] => {
                open = !rest.is_empty();
                let name = Some((*name).to_string());
                let (line, values) = (index + 1, HashMap::new());
                sections.push(XinetdSection { name, line, brace_on_line: open, values });
            }
            ["defaults", ..] => {
                let (line, values) = (index + 1, HashMap::new());
                sections.push(XinetdSection { name: None, line, brace_on_line: false, values });
            }
            ["{"] => open = true,
            ["}"] => open = false,
            _ => {
                let pair = line.split_once('=').filter(|_| open);
                if let (Some((key, value)), Some(section)) = (pair, sections.last_mut()) {
                    let key = key.trim().trim_end_matches(['+', '-']).trim_end();
                    section.values.insert(key.to_string(), value.trim().to_string());
                }
            }
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(settings: &[&str], check: impl FnOnce(&mut Checker)) -> (bool, Vec<String>) {
        let assignments: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let settings = Settings::load(None, &assignments).unwrap();
        let services = service_names("http 80/tcp www # web\ndomain 53/udp\n");
        let mut checker = Checker { services, settings: &settings, found: Superservers::default() };
        check(&mut checker);
        let findings = checker.found.findings.iter().map(Finding::text).collect();
        (checker.found.start_us, findings)
    }

    #[test]
    fn lines_of_inetd_that_drop_clients_or_name_nothing() {
        let inetd = |line: &str| checked(&["service_web_listen=*:80"], |it| it.inetd("i", line));
        let good = "8080 stream tcp nowait.6000 nobody /usr/sbin/pegasus pegasus redirect -s web";
        assert_eq!(inetd(good), (true, Vec::new()));
        let stock = good.replace(".6000", "");
        let (_, findings) = inetd(&stock);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].starts_with("i:1: openbsd-inetd starts this at most 256 times a minute")
        );
        assert!(findings[0].ends_with(&format!("-> {good}")), "{findings:?}");
        assert_eq!(inetd(&good.replace("8080", "www")), (true, Vec::new()));
        for explicit in ["nowait:6000", "nowait/0/6000"] {
            assert_eq!(inetd(&good.replace("nowait.6000", explicit)), (true, Vec::new()));
        }
        assert_eq!(inetd(&good.replace("6000", "40")).1.len(), 1, "fewer than usual");
        assert_eq!(inetd(&good.replace("8080", "[::]:http")), (true, Vec::new()));
        let (_, findings) = inetd(&good.replace("8080", "pegasus"));
        assert!(findings[0].contains("pegasus is no service of /etc/services"), "{findings:?}");
        assert_eq!(inetd(&good.replace(" -s web", "").replace("8080", "80")).1.len(), 0);
        assert_eq!(inetd(&good.replace(" -s web", "")).1.len(), 1, "the service is unknown");
        let wait = "53 dgram udp wait nobody /usr/sbin/tcpd /usr/sbin/pegasus redirect -s dns";
        assert_eq!(inetd(wait), (true, Vec::new()), "it is started rarely");
        for other in [&format!("#{stock}"), "80 stream tcp nowait nobody /usr/sbin/httpd httpd", ""]
        {
            assert_eq!(inetd(other), (false, Vec::new()), "{other}");
        }
    }

    #[test]
    fn services_of_xinetd_that_refuse_clients() {
        let xinetd = |text: &str, defaults: &str| checked(&[], |it| it.xinetd("x", text, defaults));
        let sample = include_str!("../../../conf/xinetd/pegasus");
        assert_eq!(xinetd(sample, ""), (true, Vec::new()));
        let stock = "service pegasus-web\n{\n type = UNLISTED\n port = 80\n wait = no\n\
                     server = /usr/sbin/pegasus\n}\n";
        let (_, findings) = xinetd(stock, "");
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("x:1: xinetd accepts 50 clients"), "{findings:?}");
        let defaults = "defaults\n{\n cps = 1000 1\n instances = 60\n}\n";
        let (_, findings) = xinetd(stock, defaults);
        assert!(
            findings[0].contains("more than 60 clients") && findings.len() == 1,
            "{findings:?}"
        );
        let (_, findings) = xinetd(&stock.replace("web\n{", "web {"), defaults);
        assert!(findings[0].contains("silently"), "{findings:?}");
        let (_, findings) = xinetd(&stock.replace("type = UNLISTED", "cps = 900 1"), "");
        assert!(findings[0].contains("pegasus-web is no service"), "{findings:?}");
        let off = stock.replace("port", "disable = yes\n port");
        assert_eq!(xinetd(&off, ""), (false, Vec::new()));
    }
}
