//! Real servers and their own clients with the redirector between them: neither notices
//! it. Each uses both data paths.

use crate::support::nginx::Nginx;
use crate::support::pegasus::{Balancer, Redirect};
use crate::support::process::{run, Process};
use crate::support::random::{Random, Stream};
use crate::support::socket::{connect, drain, End};
use crate::support::{free_port, output, tool, until, Directory};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's own Python, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";
const MUCH: usize = 8 << 20;

/// Runs a client through a redirector with each data path.
fn through(server: SocketAddr, mut client: impl FnMut(&mut Redirect)) {
    for splice in ["redirect_splice=auto", "redirect_splice=off"] {
        let mut balancer = Balancer::before(&[server], &[splice]);
        client(&mut balancer.redirect);
        balancer.settles();
    }
}

/// Starts a server on a given port, and waits until it listens.
#[track_caller]
fn serve(name: &str, command: impl FnOnce(u16) -> Command) -> (Process, SocketAddr) {
    let port = free_port();
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut process = Process::start(name, &mut command(port));
    until(&format!("{name} listens"), || {
        assert!(process.runs(), "{name} ended: {:#?}", process.log());
        TcpStream::connect(address).is_ok()
    });
    (process, address)
}

/// Runs a client, which must succeed; returns its output.
#[track_caller]
fn client(command: &mut Command) -> String {
    let (status, printed, errors) = run(command, b"");
    assert_eq!(status, 0, "{command:?}:\n{printed}{errors}");
    printed + &errors
}

/// A file without repeated bytes.
fn file(directory: &Directory, name: &str, count: usize) -> PathBuf {
    let path = directory.path().join(name);
    let mut bytes = Stream::new(7);
    let mut left = count;
    let mut file = fs::File::create(&path).unwrap();
    while left > 0 {
        let piece = bytes.next(left);
        file.write_all(piece).unwrap();
        left -= piece.len();
    }
    path
}

#[track_caller]
fn same(one: &Path, other: &Path) {
    let one = fs::read(one).unwrap();
    let other = fs::read(other).unwrap();
    assert!(one == other, "{} bytes became {} others", one.len(), other.len());
}

/// The reply to each path is the path.
fn web_server(listen: &str, directives: &str, directory: Directory) -> Nginx {
    let place = directory.path().display();
    let server = format!(
        "keepalive_requests 100000;\nlocation /echo/ {{ return 200 \"$request_uri\\n\"; }}\n\
         location / {{ root {place}; }}\n{directives}"
    );
    Nginx::serving("nginx", directory, listen, &server)
}

#[test]
fn http_connections_are_kept_alive() {
    let nginx = web_server("", "", Directory::new());
    through(nginx.address, |redirect| {
        let url = format!("http://{}/echo/1", redirect.address);
        let report = client(tool("ab").args(["-q", "-k", "-n", "2000", "-c", "10", &url]));
        let says = |key: &str| {
            let line = report.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("no {key}\n{report}")).trim().to_string()
        };
        assert_eq!(says("Complete requests:"), "2000");
        assert_eq!(says("Keep-Alive requests:"), "2000");
        assert_eq!(says("Failed requests:"), "0");
        assert!(redirect.log_with(&["closed service="]).len() <= 10, "{report}");
    });
}

#[test]
fn http_requests_in_a_pipeline_are_answered_in_order() {
    const COUNT: usize = 500;
    let nginx = web_server("", "", Directory::new());
    let mut random = Random::told();
    through(nginx.address, |redirect| {
        let last = |number| if number + 1 == COUNT { "Connection: close\r\n" } else { "" };
        let request =
            |number| format!("GET /echo/{number} HTTP/1.1\r\nHost: a\r\n{}\r\n", last(number));
        let requests: String = (0..COUNT).map(request).collect();
        let mut stream = connect(redirect.address);
        let mut left = requests.as_bytes();
        while !left.is_empty() {
            let (piece, rest) = left.split_at((1 + random.below(2000) as usize).min(left.len()));
            stream.write_all(piece).unwrap();
            left = rest;
        }
        let (answers, end) = drain(&mut stream);
        let text = String::from_utf8(answers).unwrap();
        let paths: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("/echo/")).collect();
        let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
        assert_eq!((paths, end), (expected.iter().map(String::as_str).collect(), End::Fin));
    });
}

#[test]
fn tls_reaches_the_provider_as_it_is() {
    let directory = Directory::new();
    let key = directory.file("key.pem");
    let certificate = directory.file("certificate.pem");
    let mut openssl = tool("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=provider",
    ]);
    output(openssl.args([
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ]));
    let much = file(&directory, "much", MUCH);
    let got = directory.path().join("got");
    let echo = directory.file("got-too");
    let directives = format!("ssl_certificate {certificate};\nssl_certificate_key {key};\n");
    let nginx = web_server("ssl http2", &directives, directory);
    through(nginx.address, |redirect| {
        for version in ["1.1", "2"] {
            // The certificate is checked: the connection is end to end.
            let mut curl = tool("curl");
            let url = format!("https://{}", redirect.address);
            curl.args([
                "-sSf",
                "--cacert",
                &certificate,
                &format!("--http{version}"),
                "-w",
                "%{http_version} ",
            ]);
            curl.arg(format!("{url}/much"))
                .arg("-o")
                .arg(&got)
                .arg(format!("{url}/echo/1"))
                .args(["-o", &echo]);
            assert_eq!(client(&mut curl).trim(), format!("{version} {version}"));
            assert_eq!(fs::read(&echo).unwrap(), b"/echo/1\n");
            same(&got, &much);
        }
    });
}

/// A database whose server ends in good order: killed, it would leave its shared memory
/// behind.
struct Postgres {
    process: Process,
    address: SocketAddr,
    bin: PathBuf,
    _directory: Directory,
}

impl Postgres {
    #[track_caller]
    fn start() -> Postgres {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bins = versions
            .map(|version| version.path().join("bin"))
            .filter(|bin| bin.join("initdb").is_file());
        let bin = bins
            .max()
            .expect("PostgreSQL is not installed; tests/run installs what the system tests need");
        let directory = Directory::new();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        // It refuses to serve root.
        let root = output(tool("id").arg("-u")).trim() == "0";
        let number =
            |flag| output(tool("id").args([flag, "postgres"])).trim().parse::<u32>().unwrap();
        let user = root.then(|| (number("-u"), number("-g")));
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(&data, Some(user), Some(group)).unwrap();
        }
        let command = |name: &str| {
            let mut command = Command::new(bin.join(name));
            command.current_dir(directory.path()).arg("-D").arg(&data);
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            command
        };
        client(command("initdb").args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-N",
            "--locale=C",
            "--no-instructions",
        ]));
        let (process, address) = serve("postgres", |port| {
            let mut postgres = command("postgres");
            postgres.args(["-F", "-h", "127.0.0.1", "-k", "", "-p", &port.to_string()]);
            postgres
        });
        Postgres { process, address, bin, _directory: directory }
    }

    /// Returns the command of a client.
    fn pgbench(&self, at: SocketAddr) -> Command {
        let mut pgbench = Command::new(self.bin.join("pgbench"));
        pgbench.args(["-h", "127.0.0.1", "-p", &at.port().to_string(), "-U", "postgres"]);
        pgbench
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.process.signal(libc::SIGQUIT);
        if !std::thread::panicking() {
            self.process.ends();
        }
    }
}

#[test]
fn postgresql_is_benchmarked_by_its_own_client() {
    let postgres = Postgres::start();
    through(postgres.address, |redirect| {
        client(postgres.pgbench(redirect.address).args(["-i", "-q", "postgres"]));
        for mode in ["simple", "prepared"] {
            let mut pgbench = postgres.pgbench(redirect.address);
            let report = client(
                pgbench.args(["-n", "-c", "8", "-j", "2", "-t", "25", "-M", mode, "postgres"]),
            );
            assert!(report.contains("actually processed: 200/200"), "{report}");
            assert!(!report.contains("transactions: 1"), "{report}");
        }
    });
}

#[test]
fn redis_executes_each_command_once() {
    let directory = Directory::new();
    let (_process, address) = serve("redis", |port| {
        let mut redis = tool("redis-server");
        redis.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        redis.arg("--dir").arg(directory.path());
        redis
    });
    through(address, |redirect| {
        let port = redirect.address.port().to_string();
        let benchmark = |arguments: &[&str]| {
            let mut benchmark = tool("redis-benchmark");
            client(
                benchmark.args(["-h", "127.0.0.1", "-p", &port, "-q", "-c", "20"]).args(arguments),
            );
        };
        let ask =
            |arguments: &[&str]| client(tool("redis-cli").args(["-p", &port]).args(arguments));
        ask(&["del", "count"]);
        benchmark(&["-P", "16", "-n", "20000", "incr", "count"]);
        assert_eq!(ask(&["get", "count"]).trim(), "20000");
        benchmark(&["-P", "4", "-n", "800", "-d", "100000", "-t", "set,get"]);
        assert_eq!(ask(&["strlen", "key:__rand_int__"]).trim(), "100000");
    });
}

#[test]
fn ssh_copies_files_both_ways() {
    const COUNT: usize = 32 << 20;
    let directory = Directory::new();
    for name in ["host", "user"] {
        output(tool("ssh-keygen").args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-f",
            &directory.file(name),
        ]));
    }
    let public = |name: &str| fs::read_to_string(directory.file(name) + ".pub").unwrap();
    directory.write("authorized", &public("user"));
    // The host's key is known by this name, wherever it is met.
    let known = directory.write("known", &format!("provider {}", public("host")));
    let user = output(tool("id").arg("-un"));
    if user.trim() == "root" {
        // The directory of its unprivileged part.
        fs::create_dir_all("/run/sshd").unwrap();
    }
    let place = directory.path().display();
    let (_process, address) = serve("sshd", |port| {
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\n\
             StrictModes no\nAuthorizedKeysFile {place}/authorized\n\
             PasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\n\
             Subsystem sftp internal-sftp\nMaxStartups 100\n"
        );
        let mut sshd = tool("sshd");
        sshd.args(["-D", "-e", "-f", &directory.write("sshd.conf", &text)]);
        sshd
    });
    let here = file(&directory, "here", COUNT);
    through(address, |redirect| {
        let scp = || {
            let mut scp = tool("scp");
            scp.args(["-q", "-F", "/dev/null", "-i", &directory.file("user"), "-P"]);
            scp.arg(redirect.address.port().to_string());
            for option in
                ["BatchMode=yes", "HostKeyAlias=provider", &format!("UserKnownHostsFile={known}")]
            {
                scp.args(["-o", option]);
            }
            scp
        };
        let there = directory.path().join("there");
        let back = directory.path().join("back");
        let remote = format!("{}@127.0.0.1:{}", user.trim(), there.display());
        client(scp().arg(&here).arg(&remote));
        same(&here, &there);
        client(scp().arg(&remote).arg(&back));
        same(&here, &back);
    });
}

#[test]
fn smtp_begins_with_the_server_and_delivers_mail() {
    const LINES: usize = 20_000;
    let directory = Directory::new();
    let mail: String =
        (0..LINES).map(|number| format!("line {number} of a long letter\r\n")).collect();
    let letter = directory.write("letter", &format!("Subject: test\r\n\r\n{mail}"));
    let inbox = directory.path().join("inbox");
    let (_process, address) = serve("aiosmtpd", |port| {
        let mut server = Command::new(PYTHON);
        server.args([
            "-m",
            "aiosmtpd",
            "-n",
            "-l",
            &format!("127.0.0.1:{port}"),
            "-c",
            "aiosmtpd.handlers.Mailbox",
        ]);
        server.arg(&inbox);
        server
    });
    let mut sent = 0;
    through(address, |redirect| {
        let mut curl = tool("curl");
        curl.args(["-sS", &format!("smtp://{}", redirect.address), "--upload-file", &letter]);
        client(curl.args(["--mail-from", "a@example.org", "--mail-rcpt", "b@example.org"]));
        sent += 1;
        let mails: Vec<_> = fs::read_dir(inbox.join("new")).unwrap().flatten().collect();
        assert_eq!(mails.len(), sent);
        for mail in mails {
            let text = fs::read_to_string(mail.path()).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
            assert_eq!(lines.len(), LINES);
            let right =
                |(number, line): (usize, &&str)| *line == format!("line {number} of a long letter");
            assert!(lines.iter().enumerate().all(right));
        }
    });
}

const WEBSOCKET_SERVER: &str = r#"
import asyncio, sys, websockets

async def echo(socket, *path):
    async for message in socket:
        await socket.send(message)

async def main():
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None):
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"#;

const WEBSOCKET_CLIENT: &str = r#"
import asyncio, os, sys, websockets

async def main():
    async with websockets.connect(sys.argv[1], max_size=None) as socket:
        for size in [0, 1, 125, 126, 65535, 65536, 1 << 20, 3 << 20]:
            data = os.urandom(size)
            await socket.send(data)
            assert await socket.recv() == data, size
        await (await socket.ping())
        for number in range(200):
            await socket.send(f"text {number}")
        for number in range(200):
            assert await socket.recv() == f"text {number}", number
        await socket.close(4321, "enough")
        print("closed", socket.close_code, socket.close_reason)

asyncio.run(main())
"#;

#[test]
fn websockets_upgrade_and_talk_both_ways() {
    let (_process, address) = serve("websockets", |port| {
        let mut server = Command::new(PYTHON);
        server.args(["-c", WEBSOCKET_SERVER, &port.to_string()]);
        server
    });
    through(address, |redirect| {
        let mut python = Command::new(PYTHON);
        python.args(["-c", WEBSOCKET_CLIENT, &format!("ws://{}/", redirect.address)]);
        assert_eq!(client(&mut python), "closed 4321 enough\n");
    });
}
