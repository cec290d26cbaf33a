//! `xfwd-trafficgen`: sends packets from an interface, and counts what comes back to it.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use xfwd_netns::{
    MacAddress,
    trafficgen::{
        Amount, Counter, CounterOptions, CounterVerdict, Counts, Generator, Protocol, Sent, Traffic,
    },
};

/// Sends packets at millions per second by an XDP program on live frames, and counts what comes back.
///
/// The interface gets an XDP program while this runs, which drops what comes back; the other end of a veth needs an XDP
/// program or GRO of its own to receive.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Interface to send from.
    #[arg(long)]
    interface: String,
    /// Network namespace of the interface, by name or path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Destination address and port (ICMP: any port, or none).
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = destination)]
    to: SocketAddr,
    /// Destination MAC address; without it, the kernel is made to find it out.
    #[arg(long, value_name = "MAC")]
    to_mac: Option<MacAddress>,
    /// First source address; without it, the one the kernel would use.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// First source port, or ICMP identifier.
    #[arg(long, value_name = "PORT", default_value_t = 10_000)]
    from_port: u16,
    /// Kind of packets.
    #[arg(long, value_enum, default_value_t = Kind::Udp)]
    protocol: Kind,
    /// Number of flows, which take turns.
    #[arg(long, default_value_t = 1)]
    flows: u32,
    /// Number of source addresses the flows share.
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    addresses: u32,
    /// Bytes of a frame, without FCS (60 to 3314); longer if the headers need it.
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    size: usize,
    /// VLAN id; given twice, the first is the outer one.
    #[arg(long, value_name = "ID")]
    vlan: Vec<u16>,
    /// Send exactly this many packets.
    #[arg(long, conflicts_with = "seconds", required_unless_present = "seconds")]
    count: Option<u64>,
    /// Send for this long.
    #[arg(long)]
    seconds: Option<f64>,
    /// Packets per second, such as 50000, 50k or 1.5M; without it as many as go.
    #[arg(long, value_name = "PPS", value_parser = rate)]
    rate: Option<u64>,
    /// Core to send from; given several times, all of them send.
    #[arg(long, value_name = "NUMBER")]
    core: Vec<usize>,
    /// Do not count what comes back, and leave the interface without XDP program.
    #[arg(long)]
    no_receive: bool,
    /// Verify the checksums of what comes back.
    #[arg(long, conflicts_with = "no_receive")]
    validate: bool,
    /// Pass what comes back but is not an answer to these packets to the host, instead of dropping it.
    #[arg(long, conflicts_with = "no_receive")]
    pass_others: bool,
    /// Milliseconds to wait for the last answers.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    settle_ms: u64,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// UDP datagrams.
    Udp,
    /// TCP SYN segments.
    TcpSyn,
    /// ICMP or ICMPv6 echo requests.
    Icmp,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(name) = &cli.netns {
        enter(name)?;
    }
    let source = cli.from.map_or_else(|| source_towards(cli.to), Ok)?;
    let destination_mac = match cli.to_mac {
        Some(mac) => mac,
        None => resolve(&cli.interface, cli.to)?,
    };
    let traffic = Traffic {
        protocol: match cli.protocol {
            Kind::Udp => Protocol::Udp,
            Kind::TcpSyn => Protocol::TcpSyn,
            Kind::Icmp => Protocol::IcmpEcho,
        },
        destination_mac,
        vlans: cli.vlan.clone(),
        source_port: cli.from_port,
        flows: cli.flows,
        source_addresses: cli.addresses,
        frame_length: cli.size,
        rate_pps: cli.rate,
        cores: cli.core.clone(),
        ..Traffic::udp(source, cli.to.ip(), cli.to.port())
    };
    let amount = match (cli.count, cli.seconds) {
        (Some(count), _) => Amount::Packets(count),
        (None, Some(seconds)) => Amount::For(Duration::try_from_secs_f64(seconds)?),
        (None, None) => bail!("--count or --seconds is needed"),
    };
    let mut generator = Generator::new(&cli.interface, &traffic)?;
    let counter = if cli.no_receive {
        None
    } else {
        let verdict = if cli.pass_others {
            CounterVerdict::DropOurs
        } else {
            CounterVerdict::Drop
        };
        let options = CounterOptions {
            verdict,
            validate: cli.validate,
            tcp_port: Some(cli.to.port()),
        };
        Some(Counter::attach(&cli.interface, &options)?)
    };
    let sent = generator.run(amount)?;
    thread::sleep(Duration::from_millis(cli.settle_ms));
    let received = counter.as_ref().map(Counter::read).transpose()?;
    if cli.json {
        print_json(&sent, received.as_ref())
    } else {
        print(&sent, received.as_ref())
    }
    Ok(())
}

fn print(sent: &Sent, received: Option<&Counts>) {
    println!(
        "sent      {:>12} packets in {:.3} s, {:.0} pps",
        sent.packets,
        sent.elapsed.as_secs_f64(),
        sent.pps()
    );
    if let Some(refused) = sent.refused.filter(|refused| *refused > 0) {
        println!("refused   {refused:>12} packets by the interface");
    }
    let Some(received) = received else {
        return;
    };
    let total = received.total();
    let share = total.ours as f64 * 100.0 / sent.packets.max(1) as f64;
    println!(
        "received  {:>12} packets, {} of them answers ({share:.2}% of those sent)",
        total.packets, total.ours
    );
    for (class, counters) in received.iter().filter(|(_, counters)| counters.packets > 0) {
        print!(
            "  {:<10} {:>9} packets {:>14} bytes",
            class.name(),
            counters.packets,
            counters.bytes
        );
        if counters.bad_checksum > 0 {
            print!(", {} with a wrong checksum", counters.bad_checksum);
        }
        println!();
    }
}

fn print_json(sent: &Sent, received: Option<&Counts>) {
    let received = received.map(|counts| {
        let total = counts.total();
        let classes: serde_json::Map<_, _> = counts
            .iter()
            .map(|(class, counters)| {
                let counters = json!({
                    "packets": counters.packets,
                    "bytes": counters.bytes,
                    "ours": counters.ours,
                    "bad_checksum": counters.bad_checksum,
                });
                (class.name().to_owned(), counters)
            })
            .collect();
        json!({ "packets": total.packets, "bytes": total.bytes, "ours": total.ours, "classes": classes })
    });
    let report = json!({
        "sent": {
            "packets": sent.packets,
            "refused": sent.refused,
            "seconds": sent.elapsed.as_secs_f64(),
            "pps": sent.pps(),
        },
        "received": received,
    });
    println!("{report}");
}

/// An address with a port, or without.
fn destination(text: &str) -> Result<SocketAddr, String> {
    let alone = |text: &str| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 9));
    text.parse()
        .or_else(|_| alone(text))
        .map_err(|_| "looks like 198.18.0.2:80, [2001:db8::2]:80 or ::1".to_owned())
}

/// A number, with k or M for thousands or millions.
fn rate(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text
            .strip_suffix(['m', 'M'])
            .map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let value = digits.parse::<f64>().map_err(|error| error.to_string())? * factor;
    if (1.0..=1e9).contains(&value) {
        Ok(value as u64)
    } else {
        Err("must be 1 to 1000M".to_owned())
    }
}

/// Enters a network namespace.
fn enter(name: &str) -> Result<()> {
    let path = if name.contains('/') {
        Path::new(name).to_owned()
    } else {
        Path::new("/run/netns").join(name)
    };
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

/// A socket that the kernel has routed towards the destination.
fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to).with_context(|| format!("no route to {to}"))?;
    Ok(socket)
}

/// The address the kernel would send from.
fn source_towards(to: SocketAddr) -> Result<IpAddr> {
    Ok(connected(to)?.local_addr()?.ip())
}

/// Has the kernel find the MAC address of a neighbour out, by sending it a datagram.
fn resolve(interface: &str, to: SocketAddr) -> Result<MacAddress> {
    let socket = connected(to)?;
    let deadline = Instant::now() + Duration::from_secs(3);
    let address = to.ip().to_string();
    loop {
        // The first answer may be that nobody listens there.
        let _ = socket.send(b"who is there?");
        let output = Command::new("ip")
            .args(["neigh", "show", &address, "dev", interface])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace().skip_while(|word| *word != "lladdr");
        if let Some(mac) = words.nth(1) {
            return Ok(mac.parse()?);
        }
        if Instant::now() > deadline {
            bail!(
                "{address} does not answer on {interface}: give its MAC address, or that of the gateway, by --to-mac"
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
}
