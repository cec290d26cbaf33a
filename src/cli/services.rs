//! Services in words.

use std::net::SocketAddr;

use crate::config::{
    Affinity, Backend, BackendState, BalanceSettings, HealthCheck, HealthKind, NatSettings, NoBackend,
    Service, Through, show_time,
};
use crate::stages::balance::maglev;

/// More backends than these are counted instead of named.
const NAMED_BACKENDS: usize = 8;

/// A service in a line, and what is special of it in further ones.
pub(super) fn describe(service: &Service) -> Vec<String> {
    let total: u64 = service.backends.iter().map(|backend| u64::from(backend.share())).sum();
    // One more takes no more room than saying so.
    let named =
        if service.backends.len() <= NAMED_BACKENDS + 1 { service.backends.len() } else { NAMED_BACKENDS };
    let mut backends: Vec<String> =
        service.backends[..named].iter().map(|backend| with_share(backend, total)).collect();
    if let more @ 1.. = service.backends.len() - named {
        backends.push(format!("and {more} more"));
    }
    let mut lines = vec![format!(
        "service {}: {} by {} to {}",
        service.name,
        service.endpoint(),
        service.forward,
        backends.join(", ")
    )];
    let special = special(service);
    if !special.is_empty() {
        lines.push(format!("    {}", special.join(", ")));
    }
    if let Some(health) = &service.health {
        lines.push(format!("    {}", describe_health(health, service)));
    }
    lines
}

/// Where packets for it go: its port is told if it has one.
pub(super) fn target(backend: &Backend) -> String {
    match backend.port {
        Some(port) => SocketAddr::new(backend.address, port).to_string(),
        None => backend.address.to_string(),
    }
}

/// A part of a whole.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

fn with_share(backend: &Backend, total: u64) -> String {
    match backend.state {
        BackendState::Up => format!("{} {}", target(backend), percent(u64::from(backend.share()), total)),
        state => format!("{} ({state})", target(backend)),
    }
}

/// What is not as it is by default.
fn special(service: &Service) -> Vec<String> {
    let mut special = Vec::new();
    if service.affinity == Affinity::Src {
        special.push("all connections of a client to one backend".to_owned());
    }
    if service.table_size != maglev::DEFAULT_SIZE {
        special.push(format!("table of {} slots", service.table_size));
    }
    if service.no_backend == NoBackend::Reject {
        special.push("rejects when no backend is left".to_owned());
    }
    if let Some(time) = service.slow_start {
        special.push(format!("slow start of {}", show_time(time)));
    }
    if let Some(mss) = service.mss {
        special.push(format!("TCP segments of {mss} bytes at most"));
    }
    if service.forward == crate::config::Forward::Gue {
        special.push(format!("UDP port {}", service.gue_port));
    }
    special
}

fn describe_health(health: &HealthCheck, service: &Service) -> String {
    let what = match health.kind {
        HealthKind::Http | HealthKind::Https => {
            let status: Vec<String> = health
                .status
                .iter()
                .map(|range| match (range.start(), range.end()) {
                    (low, high) if low == high => low.to_string(),
                    (low, high) => format!("{low}-{high}"),
                })
                .collect();
            format!("{} GET {}, status {},", health.kind, health.path, status.join(" or "))
        }
        HealthKind::Command => health.command.join(" "),
        kind => kind.to_string(),
    };
    let port = match health.kind {
        HealthKind::Icmp | HealthKind::Command if health.port.is_none() => String::new(),
        _ => match health.port.or(service.single_port()) {
            Some(port)
                if health.port.is_some() || service.backends.iter().all(|backend| backend.port.is_none()) =>
            {
                format!(" at port {port}")
            }
            _ => " at the backend's port".to_owned(),
        },
    };
    let through = if health.through == Through::Path { " by the way of the service" } else { "" };
    format!(
        "checked by {what}{port}{through} every {}, {} at most; up after {}, down after {}",
        show_time(health.interval),
        show_time(health.timeout),
        health.rise,
        health.fall
    )
}

/// What all services share, where it is not as it is by default.
pub(super) fn describe_settings(settings: &BalanceSettings) -> Option<String> {
    if *settings == BalanceSettings::default() {
        return None;
    }
    let sources: Vec<String> = settings.tunnel_sources.iter().map(ToString::to_string).collect();
    let sources =
        if sources.is_empty() { String::new() } else { format!("; tunnels from {}", sources.join(" and ")) };
    Some(format!(
        "balance: {} connections a worker, forgotten after {} (SYN), {} (established), {} (closing), {} (UDP); {} answers a \
         second{sources}",
        settings.connections,
        show_time(settings.syn_timeout),
        show_time(settings.established_timeout),
        show_time(settings.closing_timeout),
        show_time(settings.udp_timeout),
        settings.icmp_rate,
    ))
}

pub(super) fn describe_nat(nat: &NatSettings) -> String {
    let addresses: Vec<String> = nat.addresses.iter().map(ToString::to_string).collect();
    format!("nat: from {}, ports {}-{}", addresses.join(", "), nat.ports.start(), nat.ports.end())
}
