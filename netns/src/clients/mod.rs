//! Real clients and real servers that share no code with this repository (curl, iperf3, nghttp2, dig, dnsmasq), and those
//! of `xfwd-lab-http`, run in namespaces, with what they report read.
//!
//! A server runs until its [`Child`] is dropped, and listens when its function returns. A client runs to its end; that it
//! saw failures is in its report, not an error, unless it says so.

pub mod curl;
pub mod dns;
pub mod h2;
pub mod hold;
pub mod iperf3;
pub mod requests;

use std::{net::SocketAddr, process::Command, time::Duration};

use crate::{
    error::{Error, Result},
    iproute::line,
    lab::Namespace,
    process::{Child, tool},
};

/// How long a server may take to listen, and a client that was told to stop to end. Long, since it is only waited for when
/// something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a command to its end and reads its standard output. `read` says what is wrong with it, if it cannot.
fn report<T>(
    host: &Namespace,
    command: &mut Command,
    read: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> Result<T> {
    let output = host.output(command)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    read(&stdout).map_err(|why| Error::Report {
        command: line(command),
        why: format!("{why} ({})", output.status),
        stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// As [`report`], where an exit status other than 0 is an error.
fn success<T>(
    host: &Namespace,
    command: &mut Command,
    read: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> Result<T> {
    let output = host.output(command)?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        return Err(Error::Command { command: line(command), status: output.status, stderr });
    }
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    read(&stdout).map_err(|why| Error::Report { command: line(command), why, stdout, stderr })
}

/// Starts a server of `xfwd-lab-http` and waits until it listens on all addresses.
fn serve(host: &Namespace, task: &str, name: &str, addresses: &[SocketAddr]) -> Result<Child> {
    let mut command = Command::new(tool("xfwd-lab-http")?);
    command.args([task, "--name", name]);
    for address in addresses {
        command.args(["--listen", &address.to_string()]);
    }
    let server = host.spawn(&mut command)?;
    for address in addresses {
        server.wait_for(&format!("listening on {address}\n"), PATIENCE)?;
    }
    Ok(server)
}
