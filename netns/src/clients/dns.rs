//! DNS, over UDP and TCP: dig and dnsmasq.

use std::{net::SocketAddr, process::Command, time::Duration};

use super::{PATIENCE, success};
use crate::{error::Result, lab::Namespace, process::Child};

/// The name whose TXT record says which server answers.
pub const WHO: &str = "who.lab";

/// Starts a dnsmasq that answers [`WHO`] with its name, on UDP and TCP.
///
/// # Errors
///
/// If it cannot listen.
pub fn serve(host: &Namespace, name: &str, address: SocketAddr) -> Result<Child> {
    let mut command = Command::new("dnsmasq");
    command.args([
        "--no-daemon",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
    ]);
    command.args(["--bind-interfaces", &format!("--listen-address={}", address.ip())]);
    command.args([&format!("--port={}", address.port()), &format!("--txt-record={WHO},{name}")]);
    let server = host.spawn(&mut command)?;
    server.wait_for("started, version", PATIENCE)?;
    Ok(server)
}

/// Asks a server, once, who it is, over UDP or over TCP.
///
/// # Errors
///
/// If there is no answer in time, which is taken in whole seconds.
pub fn dig(host: &Namespace, server: SocketAddr, tcp: bool, timeout: Duration) -> Result<String> {
    let mut command = Command::new("dig");
    command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
    command.args(["+short", "+tries=1", "+nocookie", if tcp { "+tcp" } else { "+notcp" }]);
    command.args([&format!("+time={}", timeout.as_secs().max(1)), WHO, "TXT"]);
    success(host, &mut command, |text| {
        let name = text.trim().trim_matches('"');
        if name.is_empty() { Err("no TXT record".to_owned()) } else { Ok(name.to_owned()) }
    })
}
