//! TFTP, which uses a port for each transfer: the flow follows it.

use crate::support::datagram::Flows;
use crate::support::process::{run, Process};
use crate::support::random::Random;
use crate::support::{free_port, output, tool, until, Directory};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// The server must run as root; it serves this directory.
fn tftpd(directory: &Directory) -> Option<(Process, SocketAddr)> {
    if output(tool("id").arg("-u")).trim() != "0" {
        return None;
    }
    let port = free_port();
    let mut command = tool("in.tftpd");
    command.args(["--foreground", "--create", "--permissive", "--user", "root", "--secure"]);
    command.args(["--address", &format!("127.0.0.1:{port}")]).arg(directory.path());
    let mut process = Process::start("tftpd", &mut command);
    until("tftpd listens", || {
        assert!(process.runs(), "tftpd ended: {:#?}", process.log());
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err()
    });
    Some((process, (Ipv4Addr::LOCALHOST, port).into()))
}

/// Three servers, and a redirector in front of them.
struct Tftp {
    directories: [Directory; 3],
    servers: Vec<Process>,
    flows: Flows,
    here: Directory,
    file: Vec<u8>,
}

impl Tftp {
    /// Returns none if this user may not start the server.
    fn start(bytes: usize) -> Option<Tftp> {
        let directories = [Directory::new(), Directory::new(), Directory::new()];
        let file = Random::told().bytes(bytes);
        for directory in &directories {
            fs::write(directory.path().join("file"), &file).unwrap();
        }
        let (servers, places): (Vec<Process>, Vec<SocketAddr>) =
            directories.iter().filter_map(tftpd).unzip();
        if servers.is_empty() {
            crate::support::skip("in.tftpd needs root");
            return None;
        }
        let flows = Flows::before(&places, &[]);
        let here = Directory::new();
        fs::write(here.path().join("mine"), &file).unwrap();
        Some(Tftp { directories, servers, flows, here, file })
    }

    fn curl(&self, name: &str, arguments: &[&str]) {
        let url = format!("tftp://127.0.0.1:{}/{name}", self.flows.redirect.address.port());
        output(tool("curl").args(["-sS", "-m", "60"]).args(arguments).arg(url));
    }

    fn fetch(&self, blocks: &[&str]) {
        let to = self.here.file("got");
        self.curl("file", &[blocks, &["-o", &to]].concat());
        assert!(fs::read(&to).unwrap() == self.file, "what came is what is there");
        fs::remove_file(&to).unwrap();
    }

    fn store(&self, name: &str) {
        self.curl(name, &["--tftp-blksize", "8192", "-T", &self.here.file("mine")]);
        let stored = || {
            self.directories
                .iter()
                .map(|directory| directory.path().join(name))
                .find(|path| path.exists())
        };
        // The client is done while the server still has to write.
        until("it is stored", || stored().is_some_and(|path| fs::read(path).unwrap() == self.file));
        fs::remove_file(stored().unwrap()).unwrap();
    }
}

#[test]
fn files_come_and_go_unchanged() {
    let Some(tftp) = Tftp::start(1 << 20) else { return };
    (0..6).for_each(|_| tftp.fetch(&["--tftp-blksize", "8192"]));
    // Blocks of 512 bytes, as the RFC has it.
    tftp.fetch(&["--tftp-no-options"]);
    (0..3).for_each(|number| tftp.store(&format!("stored{number}")));

    // One client that keeps its port, and reads again and again.
    let kept = |number| tftp.here.file(&format!("kept{number}"));
    let script: String = (0..6).map(|number| format!("get file {}\n", kept(number))).collect();
    let port = tftp.flows.redirect.address.port().to_string();
    let (status, out, errors) =
        run(tool("tftp").args(["-m", "binary", "127.0.0.1", &port]), script.as_bytes());
    assert_eq!(status, 0, "{out} {errors}");
    for number in 0..6 {
        assert!(fs::read(kept(number)).unwrap() == tftp.file, "{out} {errors}");
    }
    assert!(tftp.flows.log_with(&["failure"]).is_empty(), "the end of a transfer is no failure");
}

/// `cargo test --release --test main -- --ignored a_hundred_transfers`
#[test]
#[ignore = "a minute"]
fn a_hundred_transfers_each_way() {
    let Some(tftp) = Tftp::start(10 << 20) else { return };
    for number in 0..100 {
        tftp.fetch(&["--tftp-blksize", "8192"]);
        tftp.store(&format!("stored{number}"));
    }
    assert_eq!(tftp.servers.len(), 3);
    assert!(tftp.flows.log_with(&["failure"]).is_empty());
}
