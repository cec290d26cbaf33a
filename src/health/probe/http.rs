//! An HTTP/1.1 GET, of which only the status counts. The body is not read, redirections are not followed.

use std::{
    error::Error as _, future::poll_fn, net::SocketAddr, ops::RangeInclusive, pin::pin, task::Poll,
    time::Instant,
};

use hyper::{
    Request, StatusCode, Uri,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue, USER_AGENT},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;

use super::{Answer, tcp, tls, within};
use crate::health::HealthCheck;

/// A response's head that is longer is taken for an error.
const LONGEST_HEAD_BYTES: usize = 64 * 1024;

/// Sends a GET, in clear or over TLS.
pub(in crate::health) struct Http {
    to: SocketAddr,
    tls: Option<tls::Tls>,
    request: Request<String>,
    status: Vec<RangeInclusive<u16>>,
}

impl Http {
    /// # Errors
    ///
    /// What is wrong with path, host or status.
    pub(super) fn new(to: SocketAddr, check: &HealthCheck, tls: Option<tls::Tls>) -> Result<Self, String> {
        let path = &check.path;
        let uri = path
            .parse::<Uri>()
            .ok()
            .filter(|_| path.starts_with('/'))
            .ok_or_else(|| format!("`{path}` is not a path: it begins with a slash and has no blanks"))?;
        let usual_port = if tls.is_some() { 443 } else { 80 };
        let host = match &check.host {
            Some(host) => host.clone(),
            None if to.port() == usual_port && to.is_ipv6() => format!("[{}]", to.ip()),
            None if to.port() == usual_port => to.ip().to_string(),
            None => to.to_string(),
        };
        let host = HeaderValue::try_from(&host).map_err(|_| format!("`{host}` cannot be a Host header"))?;
        if check.status.iter().all(|range| range.is_empty()) {
            return Err("no HTTP status is good: `status` is empty".to_owned());
        }
        let mut request = Request::new(String::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, HeaderValue::from_static("xfwd-health"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(Self { to, tls, request, status: check.status.clone() })
    }

    pub(super) async fn run(&self, deadline: Instant) -> Answer {
        let status = match &self.tls {
            None => self.ask(tcp::connect(self.to, deadline).await?, deadline).await?,
            Some(tls) => self.ask(tls.connect(deadline).await?, deadline).await?,
        };
        let said = format!("HTTP status {}", status.as_u16());
        if self.status.iter().any(|range| range.contains(&status.as_u16())) { Ok(said) } else { Err(said) }
    }

    async fn ask<S>(&self, stream: S, deadline: Instant) -> Result<StatusCode, String>
    where
        TokioIo<S>: Read + Write + Unpin,
    {
        within(deadline, "no HTTP response", async {
            exchange(TokioIo::new(stream), self.request.clone()).await.map_err(|error| {
                let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
                format!("HTTP: {error}{cause}")
            })
        })
        .await
    }
}

/// Sends the request and drives the connection until there is a response.
async fn exchange(
    stream: impl Read + Write + Unpin,
    request: Request<String>,
) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(LONGEST_HEAD_BYTES).handshake(stream).await?;
    let mut connection = pin!(connection);
    let mut response = pin!(sender.send_request(request));
    let mut open = true;
    poll_fn(|context| {
        if open && connection.as_mut().poll(context).is_ready() {
            // What went wrong, or the response that came before the end, is told to the sender too.
            open = false;
        }
        match response.as_mut().poll(context) {
            Poll::Ready(response) => Poll::Ready(response.map(|response| response.status())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
