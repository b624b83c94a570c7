//! What the text for an engine says besides its providers.
//!
//! Owns the addresses that clients connect to, and the names. Asks no queue.

use crate::config::settings::Settings;
use getopts::Matches;
use pegasus_core::base::endpoint::{ListenAddr, Transport};
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use std::net::{IpAddr, SocketAddr};

/// An address that clients connect to.
#[derive(Clone, Debug)]
pub struct Listen {
    /// None: every address of the host.
    pub ip: Option<IpAddr>,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    pub transport: Transport,
}

impl Listen {
    /// Whether an address is of a family that comes in here.
    pub fn takes(&self, ip: IpAddr) -> bool {
        self.ip.is_none_or(|own| own.is_ipv4() == ip.is_ipv4())
    }
}

/// What an engine's text says besides its providers.
#[derive(Clone, Debug)]
pub struct Frame {
    pub service: ServiceName,
    pub listen: Vec<Listen>,
    /// A client address keeps its provider for so long after its last connection.
    pub affinity: Option<Span>,
    /// The name of the queue's scheduler for the service.
    pub scheduler: String,
    /// Providers see this host instead of the clients.
    pub masquerade: bool,
    /// Further transactions will follow.
    pub stays: bool,
}

impl Frame {
    /// The frame that the configuration and the command line describe.
    ///
    /// # Errors
    /// What is wrong with an address.
    pub fn new(
        service: ServiceName,
        settings: &Settings,
        matches: &Matches,
    ) -> Result<Frame, String> {
        let configured = settings.service(service);
        let mut listen: Vec<ListenAddr> = Vec::new();
        for text in matches.opt_strs("listen") {
            listen.push(text.parse().map_err(|why| format!("--listen: `{text}` is {why}"))?);
        }
        if let Some(configured) = configured.filter(|_| listen.is_empty()) {
            listen = configured.listen.clone();
        }
        let affinity = configured.filter(|configured| configured.affinity);
        Ok(Frame {
            service,
            listen: listen.iter().map(place).collect::<Result<_, _>>()?,
            affinity: affinity.map(|configured| configured.affinity_timeout),
            scheduler: String::new(),
            masquerade: matches.opt_present("masquerade"),
            stays: false,
        })
    }

    /// What every name in the text begins with.
    pub fn name(&self) -> String {
        format!("pegasus_{}", self.service)
    }

    /// Where a provider is reached; none: its port is not known.
    pub fn socket(&self, provider: Provider) -> Option<SocketAddr> {
        let port = provider.port.or(self.listen.first().map(|listen| listen.first))?;
        Some(SocketAddr::new(provider.ip, port))
    }

    /// Whether the address of a client decides where it is led.
    pub fn by_client(&self) -> bool {
        self.affinity.is_some() || self.scheduler == "source-hash"
    }
}

fn place(listen: &ListenAddr) -> Result<Listen, String> {
    let ip = match listen.host.as_str() {
        "*" => None,
        host => {
            let wrong = "engines need an IP address or * to listen on, not";
            let ip: IpAddr = host.parse().map_err(|_| format!("{listen}: {wrong} a name"))?;
            Some(ip).filter(|ip| !ip.is_unspecified())
        }
    };
    if listen.first == 0 {
        return Err(format!("{listen}: engines need a port"));
    }
    let (first, last) = (listen.first, listen.last);
    Ok(Listen { ip, first, last, transport: listen.transport })
}
