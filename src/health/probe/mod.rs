//! The checks themselves: one question to one backend.

mod command;
mod echo;
mod http;
mod path;
mod tcp;
mod tls;

use std::{
    fmt, io,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use tokio::time::timeout_at;

pub(super) use command::Commands;

use super::{HealthError, HealthKind, Target, Through};

/// Interval and timeout. Nobody needs longer ones, and times do not overflow with it.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a check says: what was seen, good or bad, in one line.
pub(super) type Answer = Result<String, String>;

/// A check that is ready to run, again and again.
pub(super) enum Probe {
    Tcp(tcp::Tcp),
    Tls(tls::Tls),
    Http(Box<http::Http>),
    Echo(echo::Echo),
    Command(command::Run),
    Path(Box<path::Path>),
    /// Through a path that is not known, since its next hop is not: fails.
    NoPath,
}

impl Probe {
    /// Runs it once; the answer comes soon after `deadline` at the latest.
    pub(super) async fn run(&self, deadline: Instant) -> Answer {
        match self {
            Self::Tcp(probe) => probe.run(deadline).await,
            Self::Tls(probe) => probe.run(deadline).await,
            // Boxed, since the others are small and there are thousands of them.
            Self::Http(probe) => Box::pin(probe.run(deadline)).await,
            Self::Echo(probe) => probe.run(deadline).await,
            Self::Path(probe) => Box::pin(probe.run(deadline)).await,
            Self::NoPath => Err("the next hop to the backend is not known".to_owned()),
            Self::Command(probe) => Box::pin(probe.run(deadline)).await,
        }
    }

    /// Descriptors that a run has open at most.
    pub(super) fn descriptors(&self) -> u32 {
        match self {
            Self::Tcp(_) | Self::Tls(_) | Self::Http(_) => 1,
            Self::Echo(_) | Self::NoPath => 0,
            // For the port, the answers, and sending.
            Self::Path(_) => 3,
            // Both ends of the pipe, the kernel's handle on the process, and what spawning needs meanwhile.
            Self::Command(_) => 6,
        }
    }
}

/// What probes share; opened when the first of them needs it.
#[derive(Default)]
pub(super) struct Resources {
    trust: tls::Trust,
    echo_v4: OnceLock<Arc<echo::Socket>>,
    echo_v6: OnceLock<Arc<echo::Socket>>,
    links: path::Links,
    commands: Commands,
}

impl Resources {
    /// The commands that run.
    pub(super) fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Makes a check ready to run. Called within the runtime.
    pub(super) fn prepare(&mut self, target: &Target) -> Result<Probe, HealthError> {
        let wrong = |problem: String| HealthError::Check { target: target.to_string(), problem };
        let check = &target.check;
        for (name, value) in [("interval", check.interval), ("timeout", check.timeout)] {
            if value.is_zero() || value > LONGEST {
                return Err(wrong(format!("{name} must be longer than zero and a day at most")));
            }
        }
        if check.rise == 0 || check.fall == 0 {
            return Err(wrong("rise and fall must be 1 at least".to_owned()));
        }
        if check.through == Through::Path {
            return self.through_path(target);
        }
        let needs_port = !matches!(check.kind, HealthKind::Icmp | HealthKind::Command);
        if needs_port && target.endpoint().port() == 0 {
            return Err(wrong("port 0 cannot be checked".to_owned()));
        }
        let to = target.endpoint();
        Ok(match check.kind {
            HealthKind::Tcp => Probe::Tcp(tcp::Tcp { to }),
            HealthKind::Tls => {
                Probe::Tls(tls::Tls::new(to, check.host.as_deref(), self.connector(target)?).map_err(wrong)?)
            }
            HealthKind::Http => Probe::Http(Box::new(http::Http::new(to, check, None).map_err(wrong)?)),
            HealthKind::Https => {
                let tls = tls::Tls::new(to, check.host.as_deref(), self.connector(target)?).map_err(wrong)?;
                Probe::Http(Box::new(http::Http::new(to, check, Some(tls)).map_err(wrong)?))
            }
            HealthKind::Icmp => Probe::Echo(echo::Echo::new(target.address, self.echo(target.address)?)),
            HealthKind::Command => {
                Probe::Command(command::Run::new(target, self.commands.clone()).map_err(wrong)?)
            }
        })
    }

    fn through_path(&mut self, target: &Target) -> Result<Probe, HealthError> {
        let wrong = |problem: String| HealthError::Check { target: target.to_string(), problem };
        if target.check.kind != HealthKind::Tcp {
            let kind = target.check.kind;
            return Err(wrong(format!("only `tcp` can go through the path of the service, not `{kind}`")));
        }
        let Some(path) = &target.path else { return Ok(Probe::NoPath) };
        let path = path::Path::new(path, target.address, &mut self.links, wrong)?;
        Ok(Probe::Path(Box::new(path)))
    }

    fn connector(&mut self, target: &Target) -> Result<tls::Connector, HealthError> {
        if target.check.verify { self.trust.verifying() } else { Ok(self.trust.unverified()) }
    }

    fn echo(&mut self, address: IpAddr) -> Result<Arc<echo::Socket>, HealthError> {
        let (socket, family) = match address {
            IpAddr::V4(_) => (&self.echo_v4, echo::Family::V4),
            IpAddr::V6(_) => (&self.echo_v6, echo::Family::V6),
        };
        if let Some(open) = socket.get() {
            return Ok(Arc::clone(open));
        }
        let open = echo::Socket::open(family).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => HealthError::NotPermitted { kind: "icmp", source },
            _ => HealthError::System { call: "socket(SOCK_RAW) for ICMP", source },
        })?;
        Ok(Arc::clone(socket.get_or_init(|| open)))
    }
}

/// Waits for a step of a check, but not longer than until `deadline`. The error names the step if it took too long.
async fn within<T, E: Into<Failure>>(
    deadline: Instant,
    step: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout_at(deadline.into(), work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.into().0),
        Err(_) => Err(format!("timeout: {step}")),
    }
}

/// An error as one line.
struct Failure(String);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(match error.raw_os_error() {
            Some(code) => Errno::from_raw(code).desc().to_lowercase(),
            None => error.to_string(),
        })
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
