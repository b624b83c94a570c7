//! What a service manager hears: systemd's protocol, with the test as systemd.

use crate::support::pegasus::program;
use crate::support::process::Process;
use crate::support::{Directory, PATIENCE};
use std::os::unix::net::UnixDatagram;

struct Manager(UnixDatagram);

impl Manager {
    /// The next message; those of the watchdog are passed over unless one is wanted.
    #[track_caller]
    fn hears(&self, watchdog: bool) -> String {
        loop {
            let mut buffer = [0; 256];
            let count = self.0.recv(&mut buffer).expect("nothing was reported in time");
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if (text == "WATCHDOG=1") == watchdog {
                return text;
            }
        }
    }
}

#[test]
fn every_daemon_reports_ready_reloading_stopping_and_that_it_lives() {
    let own: [(&str, &[&str]); 3] = [
        ("queue", &["queue_listen=127.0.0.1:0"]),
        ("redirect", &["queue_listen=127.0.0.1:0", "service_web_listen=127.0.0.1:0"]),
        ("monitor", &["service_web_provider=127.0.0.1:9", "drain_timeout=1s"]),
    ];
    for (name, settings) in own {
        let directory = Directory::new();
        let path = directory.file("notify");
        let manager = Manager(UnixDatagram::bind(&path).unwrap());
        manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = program();
        command.args([name, "-c", "/dev/null"]);
        for setting in settings {
            command.args(["-o", setting]);
        }
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
        let mut process = Process::start(name, &mut command);
        let ready = format!("MAINPID={}\nREADY=1", process.id());
        assert_eq!(manager.hears(false), ready, "{name}");
        for _ in 0..3 {
            manager.hears(true);
        }
        process.signal(libc::SIGHUP);
        let reloading = manager.hears(false);
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{name}: {reloading}");
        assert_eq!(manager.hears(false), ready, "{name}");
        process.signal(libc::SIGTERM);
        assert_eq!(manager.hears(false), "STOPPING=1", "{name}");
        assert_eq!(process.ends(), 0, "{name}");
    }
}
