//! `xfwd which CONFIG`: which backend does a flow get, and why; or what share of the flows does each get?
//!
//! It finds service, hash, slot and backend by the code of the data path, so the answer is what happens there to a new
//! flow while all backends are healthy. Nothing is touched and no right is needed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::output::{count, print, say};
use super::services::{percent, target};
use super::summary::table;
use super::{WRONG_INPUT, check};
use crate::config::{self, Backend, Plan, Registry, Service, StageKind};
use crate::packet::FiveTuple;
use crate::stages::balance::{Affinity, OfVip, choose};
use crate::stages::filter::Prefix;

/// What is asked.
#[derive(Args)]
pub(super) struct WhichArgs {
    /// Protocol of the flow.
    #[arg(long, value_name = "tcp|udp", value_parser = protocol, required_unless_present = "shares")]
    proto: Option<config::Protocol>,
    /// Address and port of the client, such as `198.18.1.7:40000` or `[2001:db8::7]:40000`.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = endpoint, required_unless_present = "shares")]
    src: Option<SocketAddr>,
    /// Address and port that the client sends to.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = endpoint, required_unless_present = "shares")]
    dst: Option<SocketAddr>,
    /// Say for every backend which share of its service's table it has.
    #[arg(long, conflicts_with_all = ["proto", "src", "dst"])]
    shares: bool,
    /// Only the backends of this service.
    #[arg(long, value_name = "NAME", requires = "shares", conflicts_with_all = ["proto", "src", "dst"])]
    service: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// The config.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
}

/// An address and a port.
fn endpoint(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be an address and a port, such as `198.18.1.7:40000` or `[2001:db8::7]:40000`".to_owned()
    })
}

fn protocol(word: &str) -> Result<config::Protocol, String> {
    use config::Protocol::{Tcp, Udp};
    [Tcp, Udp]
        .into_iter()
        .find(|protocol| protocol.name() == word)
        .ok_or_else(|| "must be `tcp` or `udp`".to_owned())
}

pub(super) fn which(args: &WhichArgs, registry: &Registry) -> ExitCode {
    let plan = match registry.load(&args.config) {
        Ok(plan) => plan,
        Err(error) => return check::refuse(&error),
    };
    if let (Some(proto), Some(src), Some(dst)) = (args.proto, args.src, args.dst) {
        return flow(&plan, proto, src, dst, args.json);
    }
    shares(&plan, args.service.as_deref(), args.json)
}

/// What is wrong with the question.
fn refuse(error: impl std::fmt::Display) -> ExitCode {
    say(format!("error: {error}"));
    ExitCode::from(WRONG_INPUT)
}

fn flow(
    plan: &Plan,
    protocol: config::Protocol,
    src: SocketAddr,
    dst: SocketAddr,
    as_json: bool,
) -> ExitCode {
    if src.is_ipv4() != dst.is_ipv4() {
        return refuse(format!(
            "`--src {src}` and `--dst {dst}` are of different IP versions: no packet has both"
        ));
    }
    let tuple = FiveTuple {
        src: mapped(src.ip()),
        dst: mapped(dst.ip()),
        src_port: src.port(),
        dst_port: dst.port(),
        protocol: protocol.number(),
    };
    let question = json!({ "protocol": protocol, "src": src, "dst": dst });
    let service = match find(plan, &tuple) {
        Ok(service) => service,
        Err(reason) => {
            let text = format!("{protocol} {src} > {dst}: of no service: {reason}");
            let answer = merge(question, json!({ "service": null, "reason": reason }));
            let printed = if as_json { print_json(&answer) } else { print(text) };
            // The answer is no.
            return if printed == ExitCode::SUCCESS { ExitCode::FAILURE } else { printed };
        }
    };
    let table = match service.table() {
        Ok(table) => table,
        Err(error) => return refuse(format!("service {}: {error}", service.name)),
    };
    let hash = choose::hash(&tuple, service.affinity);
    let (slot, slots) = (table.slot(hash), table.slots().len());
    let backend = &service.backends[usize::from(table.slots()[slot])];
    if as_json {
        let answer = json!({
            "service": service_json(service),
            "affinity": service.affinity,
            "hash": format!("{hash:#018x}"),
            "slot": slot,
            "table_size": slots,
            "forward": service.forward,
            "backend": backend,
        });
        return print_json(&merge(question, answer));
    }
    print(
        [
            format!("{protocol} {src} > {dst}"),
            format!("service  {}: {}, {}", service.name, service.endpoint(), why(plan, service, dst.ip())),
            format!("hash     {hash:#018x} of {}", hashed(service.affinity)),
            format!("slot     {} of the {} of its table", count(slot as u64), count(slots as u64)),
            format!(
                "backend  {} by {}, weight {}, {}",
                target(backend),
                service.forward,
                backend.weight,
                backend.state
            ),
            "This holds for a new flow while all backends are healthy.".to_owned(),
        ]
        .join("\n"),
    )
}

/// The service of a flow, or why there is none.
fn find<'p>(plan: &'p Plan, tuple: &FiveTuple) -> Result<&'p Service, String> {
    if !plan.stages.contains(&StageKind::Balance) {
        return Err(match plan.services.len() {
            0 => "the config has none".to_owned(),
            _ => "`stages` of `[pipeline]` does not name `balance`".to_owned(),
        });
    }
    let lookup = plan.service_lookup();
    if let Some(index) = lookup.find(&tuple.dst, tuple.protocol, tuple.dst_port) {
        return Ok(&plan.services[index]);
    }
    let (vip, port) = (tuple.destination().ip(), tuple.dst_port);
    let here = plan.services.iter().filter(|service| service.vip.contains(vip));
    Err(match lookup.find_fragment(&tuple.dst, tuple.protocol) {
        OfVip::None if here.clone().next().is_none() => format!("none has the VIP {vip}"),
        OfVip::None => format!("{} has another protocol", some_names(here)),
        OfVip::One(_) | OfVip::Several => {
            let here = here.filter(|service| service.protocol.number() == tuple.protocol);
            format!("{} does not have port {port}", some_names(here))
        }
    })
}

fn some_names<'p>(mut services: impl Iterator<Item = &'p Service>) -> String {
    let first = services.next().map(Service::endpoint).unwrap_or_default();
    match services.count() {
        0 => first,
        more => format!("{first} (and {more} more)"),
    }
}

/// Why this service and no other.
fn why(plan: &Plan, service: &Service, vip: IpAddr) -> String {
    let others = |other: &&Service| other.vip != service.vip && other.vip.contains(vip);
    let others: Vec<&Service> = plan.services.iter().filter(others).collect();
    match (service.single_vip(), others.len()) {
        (Some(_), _) => "which has this address".to_owned(),
        (None, 0) => "the only prefix with this address".to_owned(),
        (None, _) => "the longest prefix with this address and port".to_owned(),
    }
}

fn hashed(affinity: Affinity) -> &'static str {
    match affinity {
        Affinity::FiveTuple => "addresses, ports and protocol (affinity 5tuple)",
        Affinity::Src => "source and destination address (affinity src)",
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    Prefix::new(address, 128).mapped().0
}

fn service_json(service: &Service) -> Value {
    json!({
        "name": service.name,
        "vip": service.vip,
        "protocol": service.protocol,
        "ports": { "start": service.ports.start(), "end": service.ports.end() },
    })
}

/// Both objects as one.
fn merge(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

fn print_json(value: &Value) -> ExitCode {
    print(format!("{value:#}"))
}

/// A backend's part of its service's table.
struct Share<'p> {
    backend: &'p Backend,
    slots: u64,
}

/// The backends of a service, in the order of the file.
struct Shares<'p> {
    service: &'p Service,
    table_size: u64,
    weights: u64,
    backends: Vec<Share<'p>>,
}

fn shares(plan: &Plan, name: Option<&str>, as_json: bool) -> ExitCode {
    let services: Vec<&Service> =
        plan.services.iter().filter(|service| name.is_none_or(|name| name == service.name)).collect();
    if services.is_empty() {
        let known: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).collect();
        return refuse(match (name, known.len()) {
            (_, 0) => "the config has no service".to_owned(),
            (Some(name), 1..=8) => {
                format!("no service has the name `{name}`; there are {}", known.join(", "))
            }
            (Some(name), _) => format!("no service has the name `{name}`"),
            (None, _) => "the config has no service".to_owned(),
        });
    }
    let mut all = Vec::new();
    for service in services {
        match shares_of(service) {
            Ok(shares) => all.push(shares),
            Err(error) => return refuse(format!("service {}: {error}", service.name)),
        }
    }
    if as_json { print_json(&shares_json(&all)) } else { print(shares_table(&all)) }
}

fn shares_of(service: &Service) -> Result<Shares<'_>, crate::stages::balance::maglev::TableError> {
    let table = service.table()?;
    let mut slots = vec![0; service.backends.len()];
    for backend in table.slots() {
        slots[usize::from(*backend)] += 1;
    }
    Ok(Shares {
        service,
        table_size: table.slots().len() as u64,
        weights: service.backends.iter().map(|backend| u64::from(backend.share())).sum(),
        backends: service
            .backends
            .iter()
            .zip(slots)
            .map(|(backend, slots)| Share { backend, slots })
            .collect(),
    })
}

fn shares_json(all: &[Shares<'_>]) -> Value {
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole as f64;
    let service = |shares: &Shares<'_>| {
        let backend = |share: &Share<'_>| {
            let numbers = json!({
                "slots": share.slots,
                "table_percent": percent(share.slots, shares.table_size),
                "weight_percent": percent(u64::from(share.backend.share()), shares.weights),
            });
            merge(json!(share.backend), numbers)
        };
        let backends: Vec<Value> = shares.backends.iter().map(backend).collect();
        let rest = json!({ "table_size": shares.table_size, "backends": backends });
        merge(service_json(shares.service), rest)
    };
    json!({ "services": all.iter().map(service).collect::<Vec<_>>() })
}

fn shares_table(all: &[Shares<'_>]) -> String {
    let mut table =
        table(&["service", "backend", "state", "weight", "slots", "of the table", "of the weights"]);
    for shares in all {
        for Share { backend, slots } in &shares.backends {
            table.add_row([
                shares.service.name.clone(),
                target(backend),
                backend.state.to_string(),
                backend.weight.to_string(),
                count(*slots),
                percent(*slots, shares.table_size),
                percent(u64::from(backend.share()), shares.weights),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
