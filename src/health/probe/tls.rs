//! A TLS handshake (1.2 or 1.3), with or without a look at the certificate. Sessions are never resumed: the whole handshake is what
//! is checked.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout_at,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::{Answer, tcp, within};
use crate::health::HealthError;

/// Says that nothing follows, and waits until the server closes. To the server a handshake of TLS 1.3 ends later than to us, and
/// it would report one that a RST cuts off.
async fn take_leave(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.get_mut().1.send_close_notify();
    stream.flush().await?;
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// The host of `host:port` or `[address]:port`, if a port is there.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.split_once(':') {
        // A second colon: an IPv6 address without brackets.
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

/// How long a server may take to close, once all is said.
const FAREWELL: Duration = Duration::from_millis(100);

/// How handshakes are made; cheap to clone.
pub(super) type Connector = Arc<ClientConfig>;

/// Makes a handshake.
pub(in crate::health) struct Tls {
    to: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Tls {
    /// `host`: a name, perhaps with a port, which does not count here.
    ///
    /// # Errors
    ///
    /// That `host` is no name.
    pub(super) fn new(to: SocketAddr, host: Option<&str>, connector: Connector) -> Result<Self, String> {
        let name = match host {
            None => ServerName::from(to.ip()),
            Some(host) => ServerName::try_from(without_port(host).to_owned())
                .map_err(|_| format!("`{host}` is not a host name"))?,
        };
        Ok(Self { to, name, connector: TlsConnector::from(connector) })
    }

    pub(super) async fn run(&self, deadline: Instant) -> Answer {
        let mut stream = self.connect(deadline).await?;
        let version = stream.get_ref().1.protocol_version().and_then(|version| version.as_str());
        let good = format!("TLS handshake done ({})", version.unwrap_or("unknown version"));
        // Nothing that happens here changes the result.
        let _ = timeout_at(deadline.min(Instant::now() + FAREWELL).into(), take_leave(&mut stream)).await;
        Ok(good)
    }

    /// A new connection after its handshake.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<TlsStream<TcpStream>, String> {
        let stream = tcp::connect(self.to, deadline).await?;
        let handshake = self.connector.connect(self.name.clone(), stream);
        within(deadline, "TLS handshake not done", async {
            handshake.await.map_err(|error| format!("TLS handshake: {error}"))
        })
        .await
    }
}

/// What certificates are judged by.
#[derive(Default)]
pub(in crate::health) struct Trust {
    unverified: OnceLock<Connector>,
    verifying: OnceLock<Connector>,
}

impl Trust {
    /// Takes any certificate.
    pub(super) fn unverified(&self) -> Connector {
        let config = || {
            let provider = Arc::new(ring::default_provider());
            let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
            config(provider, |builder| {
                builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            })
        };
        Arc::clone(self.unverified.get_or_init(config))
    }

    /// Takes certificates that this system trusts: those of its store, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`. It is read once.
    pub(super) fn verifying(&self) -> Result<Connector, HealthError> {
        if let Some(known) = self.verifying.get() {
            return Ok(Arc::clone(known));
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            let why = if errors.is_empty() { "none found".to_owned() } else { errors.join("; ") };
            return Err(HealthError::NoTrust(why));
        }
        Ok(Arc::clone(self.verifying.get_or_init(|| trusting(roots))))
    }
}

/// Takes certificates that lead to one of `roots`.
fn trusting(roots: RootCertStore) -> Connector {
    config(Arc::new(ring::default_provider()), |builder| {
        builder.with_root_certificates(roots).with_no_client_auth()
    })
}

fn config(
    provider: Arc<CryptoProvider>,
    finish: impl FnOnce(rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>) -> ClientConfig,
) -> Connector {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("ring has cipher suites for TLS 1.2 and 1.3");
    let mut config = finish(builder);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Trusts everybody: whether a server is alive has nothing to do with who it is.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "../../../tests/support/tls_server.rs"]
mod tls_server;

#[cfg(test)]
mod tests {
    use super::{
        tls_server::{Behaviour, TlsServer},
        *,
    };

    #[test]
    fn port_of_a_host_does_not_belong_to_its_name() {
        for host in ["backend.test", "backend.test:8443"] {
            assert_eq!(without_port(host), "backend.test");
        }
        for host in ["::1", "[::1]", "[::1]:443"] {
            assert_eq!(without_port(host), "::1");
        }
    }

    fn handshake(server: &TlsServer, host: Option<&str>, roots: &[&TlsServer]) -> Answer {
        let mut trusted = RootCertStore::empty();
        for root in roots {
            trusted.add(root.certificate().clone()).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tls = Tls::new(server.address(), host, trusting(trusted)).unwrap();
            tls.run(Instant::now() + Duration::from_secs(10)).await
        })
    }

    #[test]
    fn trusted_certificate_with_the_name_is_good() {
        let server = TlsServer::start(&["backend.test"], Behaviour::Handshake);
        assert_eq!(
            handshake(&server, Some("backend.test"), &[&server]),
            Ok("TLS handshake done (TLSv1_3)".to_owned())
        );
        assert_eq!(server.next_name().as_deref(), Some("backend.test"));
    }

    #[test]
    fn address_is_the_name_where_no_host_is_given() {
        let server = TlsServer::start(&["127.0.0.1"], Behaviour::Handshake);
        assert!(handshake(&server, None, &[&server]).is_ok());
        assert_eq!(server.next_name(), None);
    }

    #[test]
    fn certificate_of_somebody_else_is_refused() {
        let server = TlsServer::start(&["backend.test"], Behaviour::Handshake);
        let other = TlsServer::start(&["backend.test"], Behaviour::Handshake);
        let reason = handshake(&server, Some("other.test"), &[&server]).unwrap_err();
        assert!(reason.contains("other.test"), "{reason}");
        let reason = handshake(&server, Some("backend.test"), &[&other]).unwrap_err();
        assert!(reason.contains("invalid peer certificate"), "{reason}");
    }
}
