//! A TLS server on the loopback interface, with a self-signed certificate made for it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // Each test file uses a part of it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, Stream,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

/// What the server does with a connection.
#[derive(Clone, Copy)]
pub enum Behaviour {
    /// The handshake, and nothing else.
    Handshake,
    /// The handshake, then this HTTP status.
    Http(u16),
}

pub struct TlsServer {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    names: mpsc::Receiver<Option<String>>,
}

impl TlsServer {
    /// Starts it, on a thread that ends with the process. The certificate is for `names`.
    pub fn start(names: &[&str], behaviour: Behaviour) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, names) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, sender) = (Arc::clone(&config), sender.clone());
                thread::spawn(move || serve(stream.unwrap(), config, behaviour, &sender));
            }
        });
        Self { address, certificate, names }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The name that the next client asked for.
    pub fn next_name(&self) -> Option<String> {
        self.names.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

fn serve(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    behaviour: Behaviour,
    names: &mpsc::Sender<Option<String>>,
) {
    let mut connection = ServerConnection::new(config).unwrap();
    // Clients that go away are the usual case here.
    while connection.is_handshaking() {
        if connection.complete_io(&mut stream).is_err() {
            return;
        }
    }
    let _ = names.send(connection.server_name().map(str::to_owned));
    let mut tls = Stream::new(&mut connection, &mut stream);
    if let Behaviour::Http(status) = behaviour {
        let _ = tls.read(&mut [0; 4096]);
        let _ = write!(tls, "HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
        let _ = tls.flush();
    }
    let _ = tls.read(&mut [0; 1]);
}
