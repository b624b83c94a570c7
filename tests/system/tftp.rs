//! TFTP, which takes a port for each transfer: streams of datagrams are
//! followed.

use crate::support::datagram::Flows;
use crate::support::process::{run, Process};
use crate::support::random::Random;
use crate::support::{free_port, output, tool, until, Directory};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// The server needs to be root; it serves this directory.
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

#[test]
fn files_come_and_go_unchanged() {
    let directories = [Directory::new(), Directory::new(), Directory::new()];
    let file = Random::told().bytes(1 << 20);
    for directory in &directories {
        fs::write(directory.path().join("file"), &file).unwrap();
    }
    let servers: Vec<_> = directories.iter().filter_map(tftpd).collect();
    if servers.is_empty() {
        println!("skipped: in.tftpd needs root");
        return;
    }
    let places: Vec<SocketAddr> = servers.iter().map(|(_, address)| *address).collect();
    let flows = Flows::before(&places, &[]);
    let here = Directory::new();
    let port = flows.redirect.address.port();
    let url = |name: &str| format!("tftp://127.0.0.1:{port}/{name}");

    for number in 0..6 {
        let to = here.file(&format!("got{number}"));
        output(tool("curl").args(["-sS", "--tftp-blksize", "8192", "-m", "20", "-o", &to, &url("file")]));
        assert!(fs::read(&to).unwrap() == file, "what came is what is there");
    }
    // Blocks of 512 bytes, as the RFC has it.
    let to = here.file("small");
    output(tool("curl").args(["-sS", "--tftp-no-options", "-m", "20", "-o", &to, &url("file")]));
    assert!(fs::read(&to).unwrap() == file);

    let mine = here.file("mine");
    fs::write(&mine, &file).unwrap();
    for number in 0..3 {
        let name = format!("stored{number}");
        output(tool("curl").args(["-sS", "--tftp-blksize", "8192", "-m", "20", "-T", &mine, &url(&name)]));
        let stored = || directories.iter().find_map(|directory| fs::read(directory.path().join(&name)).ok());
        until("it is stored", || stored().is_some_and(|stored| stored == file));
    }

    // One client that keeps its port, and reads again and again.
    let script: String = (0..6).map(|number| format!("get file {}\n", here.file(&format!("kept{number}")))).collect();
    let mut tftp = tool("tftp");
    let (status, out, errors) = run(tftp.args(["-m", "binary", "127.0.0.1", &port.to_string()]), script.as_bytes());
    assert_eq!(status, 0, "{out} {errors}");
    for number in 0..6 {
        assert!(fs::read(here.file(&format!("kept{number}"))).unwrap() == file, "{out} {errors}");
    }
    assert!(flows.log_with(&["failure"]).is_empty(), "the end of a transfer is no failure");
}
