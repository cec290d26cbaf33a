//! UDP request and answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{Client, Server};

/// Longest datagram.
const DATAGRAM_BYTES: usize = 65_535;

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    server: Server,
}

impl Serve {
    pub fn run(&self) -> Result<ExitCode> {
        let name = format!("{}\n", self.server.name).into_bytes();
        let mut threads = Vec::new();
        for address in &self.server.listen {
            let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}"))?;
            let name = name.clone();
            threads.push(thread::spawn(move || answer(&socket, &name)));
            println!("listening on {address}");
        }
        for thread in threads {
            let _ = thread.join();
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn answer(socket: &UdpSocket, name: &[u8]) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // Errors are about earlier answers that could not be delivered.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let answer = [name, &buffer[..length]].concat();
        let _ = socket.send_to(&answer, from);
    }
}

#[derive(Args)]
pub struct Fetch {
    /// Address and port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    #[command(flatten)]
    client: Client,
}

impl Fetch {
    pub fn run(&self) -> Result<ExitCode> {
        self.client
            .run(|number, timeout| self.ask(number, timeout).map_err(|error| reason(&error)))
    }

    fn ask(&self, number: u64, timeout: Duration) -> io::Result<String> {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // Connected: only answers from the address that was asked count.
        socket.connect(self.to)?;
        let question = format!("request {number}");
        socket.send(question.as_bytes())?;
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            let length = socket.recv(&mut buffer)?;
            let answer = String::from_utf8_lossy(&buffer[..length]);
            if let Some((name, echo)) = answer.split_once('\n')
                && echo == question
            {
                return Ok(name.to_owned());
            }
        }
    }
}

/// A short reason, the same for the same cause.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.to_string(),
        other => other.to_string(),
    }
}
