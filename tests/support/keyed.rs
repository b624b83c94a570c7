//! Encrypted control connections: key files, a peer of other authors, and what lies
//! between two peers.

use super::pegasus::pegasus;
use super::{Directory, PATIENCE};
use snow::{Builder, TransportState};
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A key file and the key files of its clients, in a directory.
pub struct Keys {
    pub directory: Directory,
    lines: Vec<String>,
}

impl Keys {
    /// A file with these keys, each as `pegasus key` takes it.
    #[track_caller]
    pub fn of(keys: &[&[&str]]) -> Keys {
        let line = |words: &&[&str]| {
            let words: Vec<&str> = ["key"].into_iter().chain(words.iter().copied()).collect();
            let (status, line, errors) = pegasus(&words);
            assert_eq!(status, 0, "{errors}");
            line
        };
        let keys = Keys { directory: Directory::new(), lines: keys.iter().map(line).collect() };
        keys.write("keys", &keys.lines.concat());
        keys
    }

    /// The setting that names a file.
    pub fn setting(&self, name: &str) -> String {
        format!("key_file={}", self.directory.file(name))
    }

    /// Writes a file that its owner alone can read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.directory.write(name, text);
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// The line of a key.
    #[track_caller]
    pub fn line(&self, name: &str) -> &str {
        let start = format!("{name}=");
        self.lines.iter().find(|line| line.starts_with(&start)).unwrap()
    }

    /// All lines but those of a key.
    pub fn without(&self, name: &str) -> String {
        let start = format!("{name}=");
        self.lines.iter().filter(|line| !line.starts_with(&start)).cloned().collect()
    }

    /// The file of one client; the setting that names it.
    #[track_caller]
    pub fn client(&self, role: &str, name: &str) -> String {
        let (status, line, errors) =
            pegasus(&["key", role, name, "--for-client", "-o", &self.setting("keys")]);
        assert_eq!(status, 0, "{errors}");
        let file = format!("{name}.key");
        self.write(&file, &line);
        self.setting(&file)
    }

    /// The secret of a key.
    #[track_caller]
    pub fn secret(&self, name: &str) -> [u8; 32] {
        secret_of(self.line(name))
    }
}

/// The secret in a line.
#[track_caller]
pub fn secret_of(line: &str) -> [u8; 32] {
    let digits = line.split([' ', '"']).find(|word| word.len() == 64).unwrap();
    let byte = |index: usize| u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).unwrap();
    std::array::from_fn(byte)
}

/// A client whose Noise is that of other authors.
pub struct KeyedPeer {
    stream: TcpStream,
    session: TransportState,
    text: String,
}

impl KeyedPeer {
    /// Makes a handshake as the protocol says; an error is what the queue did instead.
    pub fn connect(queue: SocketAddr, name: &str, secret: &[u8; 32]) -> io::Result<KeyedPeer> {
        let stream = TcpStream::connect(queue)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        KeyedPeer::over(stream, name, secret)
    }

    /// The same on a connection that is there.
    pub fn over(mut stream: TcpStream, name: &str, secret: &[u8; 32]) -> io::Result<KeyedPeer> {
        stream.set_nodelay(true)?;
        let (line, message, mut state) = opening(name, secret);
        stream.write_all(&[line.as_bytes(), b"\n", &framed(&message)].concat())?;
        let answer = read_record(&mut stream)?;
        state.read_message(&answer, &mut [0; 64]).map_err(io::Error::other)?;
        let session = state.into_transport_mode().map_err(io::Error::other)?;
        let mut peer = KeyedPeer { stream, session, text: String::new() };
        peer.send(b"")?;
        Ok(peer)
    }

    /// Sends these bytes in one record.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut record = vec![0; bytes.len() + 16];
        let length = self.session.write_message(bytes, &mut record).map_err(io::Error::other)?;
        self.stream.write_all(&framed(&record[..length]))
    }

    /// Ends the sending side.
    pub fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next line.
    pub fn hear(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.text.find('\n') {
                let line = self.text[..end].to_string();
                self.text.drain(..=end);
                return Ok(line);
            }
            let record = read_record(&mut self.stream)?;
            let mut plain = vec![0; record.len()];
            let length =
                self.session.read_message(&record, &mut plain).map_err(io::Error::other)?;
            self.text.push_str(std::str::from_utf8(&plain[..length]).unwrap());
        }
    }

    /// One message, given without `pegasus://B/`, and its answer.
    pub fn ask(&mut self, message: &str) -> io::Result<String> {
        self.send(format!("pegasus://b/{message}\n").as_bytes())?;
        self.hear()
    }
}

/// The first line of a connection, its first message, and the state after that.
pub fn opening(name: &str, secret: &[u8; 32]) -> (String, Vec<u8>, snow::HandshakeState) {
    let line = format!("secure NNpsk0 {name}");
    let mut state = Builder::new("Noise_NNpsk0_25519_ChaChaPoly_SHA256".parse().unwrap())
        .prologue(line.as_bytes())
        .and_then(|builder| builder.psk(0, secret))
        .and_then(Builder::build_initiator)
        .unwrap();
    let mut message = vec![0; 64];
    let length = state.write_message(&[], &mut message).unwrap();
    message.truncate(length);
    (line, message, state)
}

/// A record, behind its length.
pub fn framed(record: &[u8]) -> Vec<u8> {
    [&(record.len() as u16).to_be_bytes()[..], record].concat()
}

fn read_record(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut record = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut record)?;
    Ok(record)
}

/// What passed one connection: the client's bytes, and the queue's.
#[derive(Default)]
pub struct Passed {
    pub sent: Vec<u8>,
    pub answered: Vec<u8>,
}

/// What stands between two peers, sees all bytes and may flip a bit of each connection.
pub struct Wiretap {
    pub address: SocketAddr,
    passed: Arc<Mutex<Vec<Arc<Mutex<Passed>>>>>,
    flip: Arc<AtomicUsize>,
}

/// No bit is flipped.
const NONE: usize = usize::MAX;

impl Wiretap {
    pub fn before(queue: SocketAddr) -> Wiretap {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let passed: Arc<Mutex<Vec<Arc<Mutex<Passed>>>>> = Arc::default();
        let flip = Arc::new(AtomicUsize::new(NONE));
        let (all, bit) = (Arc::clone(&passed), Arc::clone(&flip));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(queue) = TcpStream::connect(queue) else { return };
                let passed = Arc::new(Mutex::new(Passed::default()));
                all.lock().unwrap().push(Arc::clone(&passed));
                for upwards in [true, false] {
                    let (from, to) = if upwards { (&client, &queue) } else { (&queue, &client) };
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (passed, bit) = (Arc::clone(&passed), Arc::clone(&bit));
                    thread::spawn(move || pass(from, to, upwards, &passed, &bit));
                }
            }
        });
        Wiretap { address, passed, flip }
    }

    /// Flips this bit of what the client sends, on connections from now on.
    pub fn flip(&self, bit: usize) {
        self.flip.store(bit, Ordering::SeqCst);
    }

    /// What passed each connection so far.
    pub fn passed(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.passed.lock().unwrap();
        let copy = |passed: &Arc<Mutex<Passed>>| {
            let passed = passed.lock().unwrap();
            (passed.sent.clone(), passed.answered.clone())
        };
        all.iter().map(copy).collect()
    }
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    upwards: bool,
    passed: &Mutex<Passed>,
    flip: &AtomicUsize,
) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..count];
        let mut passed = passed.lock().unwrap();
        let record = if upwards { &mut passed.sent } else { &mut passed.answered };
        let bit = flip.load(Ordering::SeqCst);
        if upwards && bit != NONE {
            if let Some(byte) = (bit / 8).checked_sub(record.len()).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= 1 << (bit % 8);
            }
        }
        record.extend_from_slice(bytes);
        drop(passed);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Reads to the end of a connection, also a reset; what came.
pub fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}
