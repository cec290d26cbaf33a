//! HTTP/2 without TLS (prior knowledge): nghttp, h2load and nghttpd of nghttp2.

use std::{
    env, fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, success};
use crate::{
    error::{Error, Result},
    lab::Namespace,
    process::Child,
};

/// A running nghttpd.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub child: Child,
    directory: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What h2load counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that were to be made.
    pub total: u64,
    /// Requests that were answered with a good status.
    pub succeeded: u64,
    /// All others.
    pub failed: u64,
}

/// Starts a server whose page `/` is its name, followed by dots up to `page_bytes`.
///
/// # Errors
///
/// If it cannot listen, or no file can be written.
pub fn serve(host: &Namespace, name: &str, address: SocketAddr, page_bytes: usize) -> Result<Server> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = env::temp_dir().join(format!("xfwd-h2-{}-{number}", process::id()));
    let mut page = format!("{name}\n").into_bytes();
    page.resize(page.len().max(page_bytes), b'.');
    let written =
        fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join("index.html"), &page));
    written.map_err(|source| Error::System {
        call: "write",
        subject: directory.display().to_string(),
        source,
    })?;
    let mut command = Command::new("nghttpd");
    command.args(["--no-tls", "--address", &address.ip().to_string(), "--htdocs"]).arg(&directory);
    command.arg(address.port().to_string());
    let server = Server { child: host.spawn(&mut command)?, directory };
    wait_until_it_listens(host, address, &server.child)?;
    Ok(server)
}

/// nghttpd says nothing; it is asked from its own host.
fn wait_until_it_listens(host: &Namespace, address: SocketAddr, server: &Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = host.run(|| TcpStream::connect_timeout(&address, PATIENCE)) {
        if Instant::now() >= deadline {
            return Err(Error::Report {
                command: "nghttpd".to_owned(),
                why: format!("it does not listen on {address}: {error}"),
                stdout: server.stdout(),
                stderr: server.stderr(),
            });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Gets the page `/` on a new connection, and returns its first line: the name of the server.
///
/// # Errors
///
/// If there is no answer in time, or another status than 200.
pub fn get(host: &Namespace, from: SocketAddr, timeout: Duration) -> Result<String> {
    let mut command = Command::new("nghttp");
    command.args([&format!("--timeout={}s", timeout.as_secs().max(1)), &format!("http://{from}/")]);
    success(host, &mut command, |text| {
        let name = text.lines().next().filter(|line| !line.starts_with('<'));
        name.map(str::to_owned).ok_or_else(|| "no page".to_owned())
    })
}

/// Makes `requests` requests over `connections` connections, up to ten at a time on each.
///
/// # Errors
///
/// If there is no report. Requests that failed are in the report.
pub fn load(
    host: &Namespace,
    from: SocketAddr,
    requests: u32,
    connections: u32,
    timeout: Duration,
) -> Result<Load> {
    let mut command = Command::new("h2load");
    command.args(["--requests", &requests.to_string(), "--clients", &connections.to_string()]);
    command.args(["--max-concurrent-streams", "10"]);
    let seconds = format!("{}s", timeout.as_secs().max(1));
    command.args(["--connection-active-timeout", &seconds, "--connection-inactivity-timeout", &seconds]);
    command.arg(format!("http://{from}/"));
    success(host, &mut command, |text| read(text).ok_or_else(|| "no line of requests".to_owned()))
}

/// Reads `requests: 100 total, 100 started, 100 done, 98 succeeded, 2 failed, 2 errored, 0 timeout`.
fn read(text: &str) -> Option<Load> {
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let number = |name: &str| {
        let mut parts = line.split(", ").filter_map(|part| part.split_once(' '));
        parts.find(|(_, part)| *part == name)?.0.parse::<u64>().ok()
    };
    let (total, succeeded) = (number("total")?, number("succeeded")?);
    Some(Load { total, succeeded, failed: total.checked_sub(succeeded)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_succeeded_has_failed() {
        let text = "progress: 100% done\n\nrequests: 100 total, 99 started, 98 done, 97 succeeded, 1 failed, 0 errored, 0 timeout\n";
        assert_eq!(read(text), Some(Load { total: 100, succeeded: 97, failed: 3 }));
        assert_eq!(read("finished"), None);
    }
}
