//! A real FTP server with its own range of data ports.

use super::process::Process;
use super::{tool, until, Directory};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;

/// Serves two files: `data`, and `name`, which contains its own name.
pub struct Vsftpd {
    pub name: &'static str,
    pub ip: Ipv4Addr,
    process: Process,
    _directory: Directory,
}

impl Vsftpd {
    /// Listens on `control` of its own address, and for data on one of `passive`. As a
    /// provider behind a balancer it announces the balancer's address, 127.0.0.1.
    #[track_caller]
    pub fn start(
        name: &'static str,
        ip: Ipv4Addr,
        control: u16,
        passive: &Range<u16>,
        data: &[u8],
    ) -> Vsftpd {
        let directory = Directory::new();
        for folder in ["root", "empty"] {
            fs::create_dir(directory.path().join(folder)).unwrap();
        }
        fs::write(directory.path().join("root/data"), data).unwrap();
        directory.write("root/name", &format!("{name}\n"));
        let place = directory.path().display();
        let last = passive.end - 1;
        let text = format!(
            "listen=YES\nlisten_address={ip}\nlisten_port={control}\n\
             pasv_address=127.0.0.1\npasv_min_port={}\npasv_max_port={last}\n\
             anonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\n\
             xferlog_enable=NO\naccept_timeout=2\n\
             anon_root={place}/root\nsecure_chroot_dir={place}/empty\n\
             run_as_launching_user=YES\nseccomp_sandbox=NO\n",
            passive.start
        );
        let mut process =
            Process::start(name, tool("vsftpd").arg(directory.write("vsftpd.conf", &text)));
        until(&format!("vsftpd {name} listens"), || {
            assert!(process.runs(), "vsftpd ended: {:#?}", process.log());
            TcpStream::connect((ip, control)).is_ok()
        });
        Vsftpd { name, ip, process, _directory: directory }
    }

    /// Accepts no more sessions; those that run go on.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
