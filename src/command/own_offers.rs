//! Offers that lead back to the balancer: one configuration for a redirector and a
//! monitor whose provider, or a fallback, is a listen address of the redirector.
//!
//! Owns what is said about such a file. Refuses nothing: the redirector does not connect
//! to itself in any case.

use crate::config::settings::{ServiceSettings, Settings};
use crate::os::addresses;
use pegasus_core::base::endpoint::{HostPort, ListenAddr, Transport};
use pegasus_core::base::provider::ProviderSpec;
use std::net::{IpAddr, Ipv4Addr};

/// A sentence about each service of which a monitor with these settings would offer a
/// listen address of this host. `command`: a monitor offers all named services if none
/// has a key for providers; for others, such a service is only one to listen for.
pub fn warnings(command: &str, settings: &Settings) -> Vec<String> {
    let mut warnings = fallback_warnings(settings);
    // One file may be for all hosts: those that run a monitor for other balancers only
    // listen on nothing of it.
    if !settings.monitor_balancers.iter().any(is_here) {
        return warnings;
    }
    for offer in settings.offered() {
        if command != "monitor" && !offer.offered {
            continue;
        }
        let listener = settings.services.iter().find_map(|service| {
            let leads_back = |listen: &&ListenAddr| leads_back(settings, offer, service, listen);
            service.listen.iter().find(leads_back).map(|listen| (service, listen))
        });
        if let Some((service, listen)) = listener {
            warnings.push(format!(
                "the monitor would offer service {} at an address where redirect listens \
                 (service_{}_listen={listen}), so clients would come back to the balancer: \
                 set service_{}_provider to the server's own port or address",
                offer.name,
                service.name.in_key(),
                offer.name.in_key()
            ));
        }
    }
    warnings
}

/// The same about each fallback.
fn fallback_warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for service in &settings.services {
        for fallback in &service.fallback {
            let Some(ip) = ip_of(fallback) else { continue };
            let leads_back = |listen: &&ListenAddr| {
                listen.covers(fallback.port) && same_host(settings, Some(ip), &listen.host)
            };
            let mut all = settings.services.iter();
            let listener =
                all.find_map(|other| Some((other, other.listen.iter().find(leads_back)?)));
            if let Some((other, listen)) = listener {
                warnings.push(format!(
                    "service_{}_fallback={fallback} is where redirect listens \
                     (service_{}_listen={listen}), so clients would come back to the balancer: \
                     name the server's own port or address",
                    service.name.in_key(),
                    other.name.in_key()
                ));
            }
        }
    }
    warnings
}

/// Whether a client that is led to this offer comes to this listen address of `service`.
fn leads_back(
    settings: &Settings,
    offer: &ServiceSettings,
    service: &ServiceSettings,
    listen: &ListenAddr,
) -> bool {
    let provider = offer.provider.unwrap_or(ProviderSpec { ip: None, port: None });
    let same_transport = match offer.listen.as_slice() {
        [] => listen.transport == Transport::Tcp,
        own => own.iter().any(|own| own.transport == listen.transport),
    };
    let same_port = match provider.port {
        Some(port) => listen.covers(port),
        // The port that the client came to.
        None => service.name == offer.name,
    };
    same_transport && same_port && same_host(settings, provider.ip, &listen.host)
}

/// Whether a provider's address (without one, that of this host) is where this host of a
/// listen address is.
fn same_host(settings: &Settings, provider: Option<IpAddr>, listen: &str) -> bool {
    let listen: Option<IpAddr> = match listen {
        "*" => None,
        host => match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => None,
            Ok(ip) => Some(ip.to_canonical()),
            // A name: not looked up for a warning.
            Err(_) => return false,
        },
    };
    match (provider, listen) {
        (None, None) => true,
        (Some(provider), Some(listen)) => provider == listen,
        (Some(provider), None) => {
            let here = || addresses::of_this_host();
            provider.is_loopback() || here().iter().any(|own| own.ip() == provider)
        }
        // A queue sees a monitor of its own host come from the address that it is on.
        (None, Some(listen)) => {
            settings.monitor_balancers.iter().any(|at| ip_of(at) == Some(listen))
        }
    }
}

/// The address of a balancer; names are not looked up for a warning.
fn ip_of(balancer: &HostPort) -> Option<IpAddr> {
    match balancer.host.as_str() {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        host => host.parse().ok(),
    }
}

/// Whether a balancer is on this host.
fn is_here(balancer: &HostPort) -> bool {
    let is_own = |ip| addresses::of_this_host().iter().any(|own| own.ip() == ip);
    ip_of(balancer).is_some_and(|ip| ip.is_loopback() || is_own(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(command: &str, assignments: &[&str]) -> usize {
        let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
        warnings(command, &Settings::load(None, &assignments).unwrap()).len()
    }

    #[test]
    fn a_monitor_that_offers_where_the_redirector_listens_is_noticed() {
        let everywhere = "service_web_listen=*:80";
        for (listen, provider) in [
            (everywhere, ":80"),
            (everywhere, "127.0.0.1:80"),
            (everywhere, "127.0.0.1"),
            ("service_web_listen=127.0.0.1:80", ":80"),
            ("service_web_listen=127.0.0.1:80", "127.0.0.1:80"),
            ("service_shop_listen=*:80", ":80"),
            ("service_web_listen=[::1]:80", "[::1]:80"),
            ("service_web_listen=*:80-90/udp", ":85"),
        ] {
            let provider = format!("service_web_provider={provider}");
            for command in ["monitor", "redirect", "queue"] {
                assert_eq!(warned(command, &[listen, &provider]), 1, "{listen} {provider}");
            }
        }
        let elsewhere = "monitor_balancers=192.0.2.1 lb1";
        assert_eq!(warned("monitor", &[everywhere, "service_web_provider=:80", elsewhere]), 0);
        assert_eq!(warned("monitor", &[everywhere]), 1);
        assert_eq!(warned("redirect", &[everywhere]), 0);
    }

    #[test]
    fn a_fallback_where_the_redirector_listens_is_noticed() {
        let listen = "service_my_app_listen=*:80";
        for (fallback, count) in [("127.0.0.1:80", 1), ("127.0.0.1:81", 0), ("192.0.2.1:80", 0)] {
            let fallback = format!("service_web_fallback={fallback}");
            assert_eq!(warned("redirect", &[listen, &fallback]), count, "{fallback}");
        }
    }

    #[test]
    fn a_server_beside_the_redirector_is_fine() {
        for (listen, provider) in [
            ("service_web_listen=*:80", ":8080"),
            ("service_web_listen=*:80", "192.0.2.1:80"),
            ("service_web_listen=*:80", "192.0.2.1"),
            ("service_web_listen=192.0.2.7:80", ":80"),
            ("service_web_listen=127.0.0.1:80", "127.0.0.2:80"),
            ("service_dns_listen=*:80/udp", ":80"),
        ] {
            let provider = format!("service_web_provider={provider}");
            assert_eq!(warned("monitor", &[listen, &provider]), 0, "{listen} {provider}");
        }
    }
}
