//! HTTP/1.1 by tiny_http (server) and ureq (client).

use std::{process::ExitCode, sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};
use clap::Args;
use tiny_http::{Method, Request, Response, Server as HttpServer, StatusCode};

use crate::{Client, Server};

/// Threads that answer, per address; they spend their time waiting.
const THREADS: usize = 4;

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    server: Server,
    /// Bytes of the body; the name is followed by dots.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    body_size: usize,
}

impl Serve {
    pub fn run(&self) -> Result<ExitCode> {
        let mut body = format!("{}\n", self.server.name).into_bytes();
        body.resize(body.len().max(self.body_size), b'.');
        let body: Arc<[u8]> = body.into();
        let mut threads = Vec::new();
        for address in &self.server.listen {
            let server =
                HttpServer::http(address).map_err(|error| anyhow!("cannot listen on {address}: {error}"))?;
            let server = Arc::new(server);
            for _ in 0..THREADS {
                let (server, body) = (Arc::clone(&server), Arc::clone(&body));
                threads.push(thread::spawn(move || {
                    for request in server.incoming_requests() {
                        answer(request, &body);
                    }
                }));
            }
            println!("listening on {address}");
        }
        for thread in threads {
            let _ = thread.join();
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn answer(request: Request, body: &[u8]) {
    let known = request.url() == "/" && matches!(request.method(), Method::Get | Method::Head);
    let (status, body) = if known {
        (200, body)
    } else {
        (404, &b"not found\n"[..])
    };
    let response = Response::new(StatusCode(status), Vec::new(), body, Some(body.len()), None);
    // Fails when the client is gone, which is its own business.
    let _ = request.respond(response);
}

#[derive(Args)]
pub struct Fetch {
    /// What to get, such as `http://198.18.10.1/`.
    #[arg(long)]
    url: String,
    #[command(flatten)]
    client: Client,
}

impl Fetch {
    pub fn run(&self) -> Result<ExitCode> {
        self.client.run(|_, timeout| self.get(timeout))
    }

    /// One request; an agent of its own, so no connection is ever used twice.
    fn get(&self, timeout: Duration) -> Result<String, String> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .max_idle_connections(0)
            .proxy(None)
            .build();
        let mut response = ureq::Agent::new_with_config(config)
            .get(&self.url)
            .header("connection", "close")
            .call()
            .map_err(|error| reason(&error))?;
        let body = response
            .body_mut()
            .read_to_string()
            .map_err(|error| reason(&error))?;
        Ok(body.lines().next().unwrap_or_default().to_owned())
    }
}

/// A short reason, the same for the same cause.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::Timeout(_) => "timed out".to_owned(),
        other => other.to_string(),
    }
}
