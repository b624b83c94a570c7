//! A superserver that starts a program for each client, a proxy that is given its socket, and
//! queues alone.

use super::balancers::{find, listens, local, queue, Balancer, Scene, Skipped};
use crate::support::pegasus::{configuration, path, SERVICE};
use crate::support::process::Process;
use crate::support::{free_port, output, Directory};
use std::path::Path;
use std::process::Command;

/// openbsd-inetd with one line; `arguments` begin with the program's own name.
fn inetd(directory: Directory, program: &str, arguments: &str) -> Result<Balancer, Skipped> {
    let inetd = find("inetd")?;
    let port = free_port();
    let user = output(Command::new(find("id")?).arg("-un"));
    // Without a number it allows 256 starts a minute.
    let line = format!(
        "127.0.0.1:{port} stream tcp nowait.1000000 {} {program} {arguments}\n",
        user.trim()
    );
    let conf = directory.write("inetd.conf", &line);
    let mut command = Command::new(inetd);
    command.args(["-i", "-q", "1024", "-R", "1000000", &conf]);
    let balancer =
        Balancer::of(local(port), Process::start("inetd", &mut command), Some(directory));
    balancer.serves("inetd", || listens(local(port)))
}

/// `nc` or `socat` as the program. They know one provider only.
pub fn inetd_other(scene: &Scene, name: &str) -> Result<Balancer, Skipped> {
    let program = find(name)?.display().to_string();
    let provider = scene.providers[0];
    let arguments = match name {
        // Without -N it does not pass on the client's end, and so never ends.
        "nc" => format!("nc -N {} {}", provider.ip(), provider.port()),
        _ => format!("socat STDIO TCP:{provider}"),
    };
    inetd(Directory::new(), &program, &arguments)
}

/// `pegasus redirect`; the queue that it asks counts, too.
pub fn inetd_pegasus(scene: &Scene) -> Result<Balancer, Skipped> {
    let mut queue = queue(SERVICE, scene.providers)?;
    let directory = Directory::new();
    let place = format!("redirect_queue={}", queue.doors[0]);
    let conf = configuration(&directory, &["log=none", &place]);
    let mut balancer =
        inetd(directory, path(), &format!("pegasus redirect -c {conf} -s {SERVICE}"))?;
    balancer.processes.append(&mut queue.processes);
    Ok(balancer)
}

/// The proxy of systemd, with the socket that systemd would give it. It knows one provider only.
pub fn socket_proxyd(scene: &Scene) -> Result<Balancer, Skipped> {
    let activate = find("systemd-socket-activate")?;
    let program = "/usr/lib/systemd/systemd-socket-proxyd";
    if !Path::new(program).is_file() {
        return Err(format!("there is no {program}"));
    }
    let place = local(free_port());
    let mut command = Command::new(activate);
    command.args(["-l", &place.to_string(), program]);
    command.arg(format!("--connections-max={}", scene.connections));
    command.arg(scene.providers[0].to_string());
    // It becomes the proxy when the first client comes.
    let balancer = Balancer::of(place, Process::start("socket-proxyd", &mut command), None);
    balancer.serves("socket-proxyd", || listens(place))
}

/// LPOP of an empty list: protocol and sockets alone.
pub fn redis(_: &Scene) -> Result<Balancer, Skipped> {
    let (program, directory, port) = (find("redis-server")?, Directory::new(), free_port());
    let mut command = Command::new(program);
    command.current_dir(directory.path()).args([
        "--bind",
        "127.0.0.1",
        "--port",
        &port.to_string(),
    ]);
    command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
    let mut balancer =
        Balancer::of(local(port), Process::start("redis-server", &mut command), Some(directory));
    balancer.question = "LPOP q\r\n";
    balancer.serves("redis-server", || listens(local(port)))
}
