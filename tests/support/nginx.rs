//! A real web server that replies with its name.

use super::process::Process;
use super::{free_port, tool, until, Directory};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

/// `/` returns the server's name at once. `/slow` begins with the name and takes some
/// tens of milliseconds.
pub struct Nginx {
    pub name: &'static str,
    pub address: SocketAddr,
    directory: Directory,
    process: Option<Process>,
}

/// Bytes of `/slow`: sent in pieces of a kilobyte, a hundred a second.
const SLOW_BYTES: usize = 4096;

impl Nginx {
    #[track_caller]
    pub fn start(name: &'static str) -> Nginx {
        let directory = Directory::new();
        let place = directory.path().display();
        fs::write(directory.path().join("slow"), format!("{name:<SLOW_BYTES$}")).unwrap();
        let server = format!(
            "location = / {{ return 200 '{name}\\n'; }}\n\
             location / {{ root {place}; sendfile on; sendfile_max_chunk 1k; limit_rate 100k; }}"
        );
        Nginx::serving(name, directory, "backlog=1024", &server)
    }

    /// Requires a PROXY header. `/who` returns its content: the client's address and
    /// port, and the address that the client connected to.
    #[track_caller]
    pub fn behind_proxies(name: &'static str, ip: IpAddr) -> Nginx {
        let server = format!(
            "location = / {{ return 200 '{name}\\n'; }}\n\
             location = /who {{ return 200 '$proxy_protocol_addr $proxy_protocol_port \
             $proxy_protocol_server_addr $proxy_protocol_server_port'; }}"
        );
        Nginx::at(name, Directory::new(), ip, "proxy_protocol", &server)
    }

    /// Adds directives to the address of its `listen`, and to the server.
    #[track_caller]
    pub fn serving(name: &'static str, directory: Directory, listen: &str, server: &str) -> Nginx {
        Nginx::at(name, directory, Ipv4Addr::LOCALHOST.into(), listen, server)
    }

    #[track_caller]
    fn at(
        name: &'static str,
        directory: Directory,
        ip: IpAddr,
        listen: &str,
        server: &str,
    ) -> Nginx {
        let address = SocketAddr::new(ip, free_port());
        directory.write(
            "nginx.conf",
            &configuration(&directory, &format!("{address} {listen}"), server),
        );
        let mut nginx = Nginx { name, address, directory, process: None };
        nginx.start_again();
        nginx
    }

    /// Starts it again at the same address.
    #[track_caller]
    pub fn start_again(&mut self) {
        let conf = self.directory.file("nginx.conf");
        let log = self.directory.file("error.log");
        let prefix = self.directory.path().display().to_string();
        // One process, so that it can be killed by its id.
        let mut process =
            Process::start(self.name, tool("nginx").args(["-p", &prefix, "-c", &conf, "-e", &log]));
        until(&format!("nginx {} listens", self.name), || {
            assert!(
                process.runs(),
                "nginx: {:#?} {}",
                process.log(),
                fs::read_to_string(&log).unwrap_or_default()
            );
            TcpStream::connect(self.address).is_ok()
        });
        self.process = Some(process);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Returns its process id, while it runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Returns the number of requests that it has answered.
    pub fn answered(&self) -> usize {
        let log = fs::read_to_string(self.directory.file("access.log")).unwrap_or_default();
        log.lines().filter(|line| line.ends_with(" 200 OK")).count()
    }
}

fn configuration(directory: &Directory, listen: &str, server: &str) -> String {
    let place = directory.path().display();
    // Directives of modules that were left out of the build are errors.
    let version = tool("nginx").arg("-V").output().unwrap();
    let version = String::from_utf8_lossy(&version.stderr).into_owned();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .filter(|module| !version.contains(&format!("--without-http_{module}_module")))
        .map(|module| format!("  {module}_temp_path {place}/{module};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/error.log;\n\
         events {{ worker_connections 11000; }}\n\
         http {{\n{temporary}  default_type text/plain;\n\
         \x20 log_format short '$request_uri $status $request_completion';\n\
         \x20 access_log {place}/access.log short;\n\
         \x20 server {{\nlisten {listen};\n{server}\n  }}\n}}\n"
    )
}
