//! A connection is opened, and reset.

use std::{net::SocketAddr, time::Instant};

use tokio::net::TcpStream;

use super::{Answer, within};

/// Opens a connection.
pub(in crate::health) struct Tcp {
    pub to: SocketAddr,
}

impl Tcp {
    pub(super) async fn run(&self, deadline: Instant) -> Answer {
        connect(self.to, deadline).await?;
        Ok("connected".to_owned())
    }
}

/// A new connection, which is reset when it is dropped, at whatever point of a check that happens.
pub(super) async fn connect(to: SocketAddr, deadline: Instant) -> Result<TcpStream, String> {
    within(deadline, "no TCP connection", async {
        let stream = TcpStream::connect(to).await?;
        stream.set_zero_linger()?;
        // A request is one segment anyhow; a TLS handshake must not wait for acknowledgements.
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    })
    .await
}
