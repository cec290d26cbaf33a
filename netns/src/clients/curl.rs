//! curl: one page over HTTP/1.1.

use std::{net::SocketAddr, process::Command, time::Duration};

use super::success;
use crate::{error::Result, lab::Namespace};

/// A page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// How long it took.
    pub took: Duration,
}

impl Page {
    /// The first line of the body; servers of this lab write their name there.
    pub fn server(&self) -> &str {
        self.body.lines().next().unwrap_or_default()
    }
}

/// Gets `path` (with its leading `/`) from a server.
///
/// # Errors
///
/// If there is no answer in time; a status such as 404 is an answer.
pub fn get(host: &Namespace, from: SocketAddr, path: &str, timeout: Duration) -> Result<Page> {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        &timeout.as_secs_f64().to_string(),
    ]);
    // Behind the body.
    command.args(["--write-out", "\n%{http_code} %{time_total}"]).arg(format!("http://{from}{path}"));
    success(host, &mut command, |text| read(text).ok_or_else(|| "no status".to_owned()))
}

fn read(text: &str) -> Option<Page> {
    let (body, end) = text.rsplit_once('\n')?;
    let (status, seconds) = end.split_once(' ')?;
    let took = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
    Some(Page { status: status.parse().ok()?, body: body.to_owned(), took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_time_are_read_from_behind_the_body() {
        let page = read("backend1\nmore\n\n200 0.25").unwrap();
        assert_eq!((page.status, page.server(), page.took), (200, "backend1", Duration::from_millis(250)));
        assert_eq!(page.body, "backend1\nmore\n");
        assert_eq!(read("200 x"), None);
    }
}
