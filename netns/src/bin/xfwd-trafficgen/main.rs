//! `xfwd-trafficgen`: sends packets from an interface, and counts what comes back to it.

mod report;

use std::{
    fs::File,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{ArgGroup, Parser, ValueEnum};
use nix::sched::{CloneFlags, setns};
use report::Report;
use xfwd_netns::{
    MacAddress, read_pcap,
    trafficgen::{
        Amount, Counter, CounterOptions, CounterVerdict, Generator, MAX_FRAME_LENGTH, Mix, Pace, Protocol,
        Replay, Sent, Traffic, calibrate,
    },
};

/// Sends packets at millions per second by an XDP program on live frames, and counts what comes back.
///
/// The interface gets an XDP program while this runs, which drops what comes back; the other end of a veth needs an XDP
/// program or GRO of its own to receive. Captures, and frames longer than 3314 bytes, are sent through a packet socket, at
/// up to a million per second.
#[derive(Parser)]
#[command(version)]
#[command(group(ArgGroup::new("what").required(true).args(["to", "replay"])))]
struct Cli {
    /// Interface to send from.
    #[arg(long)]
    interface: String,
    /// Network namespace of the interface, by name or path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Destination address and port (ICMP: any port, or none).
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = destination)]
    to: Option<SocketAddr>,
    /// Send the frames of this capture (pcap or pcapng) as they are: one round, at the capture's own times, unless --count or
    /// --seconds and --rate or --speed say otherwise.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "latency", "calibrate", "mix", "spread", "size"])]
    replay: Option<PathBuf>,
    /// Replay at this many times the capture's speed; 0 for as fast as it goes.
    #[arg(long, value_name = "FACTOR", requires = "replay", conflicts_with = "rate")]
    speed: Option<f64>,
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
    /// Bytes of a frame, without FCS; longer if the headers need it.
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    size: usize,
    /// Lengths that take turns: imix (7:4:1 of 64, 594 and 1518 bytes), such as 64x7,594x4,1518x1, or such as aaaadg, a
    /// letter a packet as in RFC 6985. With FCS, as there.
    #[arg(long, value_name = "MIX", conflicts_with = "size", value_parser = Mix::parse)]
    mix: Option<Mix>,
    /// Spread flows over this many queues of the other end, instead of one queue a core; through the host stack, so slower.
    #[arg(long, value_name = "QUEUES")]
    spread: Option<u32>,
    /// Stamp packets with the time when they were due, and tell how long after it they came back.
    #[arg(long, conflicts_with = "no_receive")]
    latency: bool,
    /// Find out first how many packets a second this traffic can have at most on this machine.
    #[arg(long)]
    calibrate: bool,
    /// VLAN id; given twice, the first is the outer one.
    #[arg(long, value_name = "ID")]
    vlan: Vec<u16>,
    /// Send exactly this many packets.
    #[arg(long, conflicts_with = "seconds", required_unless_present_any = ["seconds", "replay"])]
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
    let amount = match (cli.count, cli.seconds) {
        (Some(count), _) => Some(Amount::Packets(count)),
        (None, Some(seconds)) => Some(Amount::For(Duration::try_from_secs_f64(seconds)?)),
        (None, None) => None,
    };
    let mut source = source(&cli)?;
    let limit = match &source {
        Source::Generated(_, traffic) if cli.calibrate => {
            Some(calibrate(traffic, traffic.spread.unwrap_or(1), CALIBRATION)?)
        }
        _ => None,
    };
    let counter = if cli.no_receive {
        None
    } else {
        let verdict = if cli.pass_others { CounterVerdict::DropOurs } else { CounterVerdict::Drop };
        let options = CounterOptions {
            verdict,
            validate: cli.validate,
            tcp_port: cli.to.map(|to| to.port()),
            latency: cli.latency,
        };
        Some(Counter::attach(&cli.interface, &options)?)
    };
    let sent = source.send(&cli, amount)?;
    thread::sleep(Duration::from_millis(cli.settle_ms));
    let received = counter.as_ref().map(Counter::read).transpose()?;
    let latency = counter.as_ref().filter(|_| cli.latency).map(Counter::latency).transpose()?;
    let lateness = match &source {
        Source::Generated(generator, _) if cli.latency => Some(generator.lateness()?),
        _ => None,
    };
    let report = Report { sent, received, latency, lateness, limit };
    if cli.json {
        println!("{}", report.to_json())
    } else {
        print!("{report}")
    }
    Ok(())
}

/// How long the limit of the generator is measured.
const CALIBRATION: Duration = Duration::from_millis(500);

/// Where packets come from.
enum Source {
    Generated(Box<Generator>, Traffic),
    Replayed(Replay),
}

impl Source {
    fn send(&mut self, cli: &Cli, amount: Option<Amount>) -> Result<Sent> {
        match (self, amount) {
            (Source::Generated(generator, _), Some(amount)) => Ok(generator.run(amount)?),
            (Source::Generated(..), None) => bail!("--count or --seconds is needed"),
            (Source::Replayed(replay), amount) => {
                let pace = match (cli.rate, cli.speed, &cli.replay) {
                    (Some(rate), _, _) => Pace::Rate(rate),
                    (None, Some(speed), _) if speed > 0.0 => Pace::Recorded(speed),
                    (None, None, Some(_)) => Pace::Recorded(1.0),
                    _ => Pace::Unlimited,
                };
                let round = Amount::Packets(replay.frames().len() as u64);
                Ok(replay.run(pace, amount.unwrap_or(round))?)
            }
        }
    }
}

fn source(cli: &Cli) -> Result<Source> {
    if let Some(path) = &cli.replay {
        let replay = Replay::new(&cli.interface, read_pcap(path)?)?;
        return Ok(Source::Replayed(match cli.core.first() {
            Some(core) => replay.from_core(*core),
            None => replay,
        }));
    }
    let to = cli.to.context("--to or --replay is needed")?;
    let source = cli.from.map_or_else(|| source_towards(to), Ok)?;
    let destination_mac = match cli.to_mac {
        Some(mac) => mac,
        None => resolve(&cli.interface, to)?,
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
        mix: cli.mix.clone(),
        stamped: cli.latency,
        spread: cli.spread,
        rate_pps: cli.rate,
        cores: cli.core.clone(),
        ..Traffic::udp(source, to.ip(), to.port())
    };
    if traffic.longest_frame() > MAX_FRAME_LENGTH {
        if cli.calibrate {
            bail!("--calibrate is for frames of up to {MAX_FRAME_LENGTH} bytes");
        }
        return Ok(Source::Replayed(Replay::of_traffic(&cli.interface, &traffic)?));
    }
    Ok(Source::Generated(Box::new(Generator::new(&cli.interface, &traffic)?), traffic))
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
        None => text.strip_suffix(['m', 'M']).map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let value = digits.parse::<f64>().map_err(|error| error.to_string())? * factor;
    if (1.0..=1e9).contains(&value) { Ok(value as u64) } else { Err("must be 1 to 1000M".to_owned()) }
}

/// Enters a network namespace.
fn enter(name: &str) -> Result<()> {
    let path =
        if name.contains('/') { Path::new(name).to_owned() } else { Path::new("/run/netns").join(name) };
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

/// A socket that the kernel has routed towards the destination.
fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
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
        let output = Command::new("ip").args(["neigh", "show", &address, "dev", interface]).output()?;
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
