//! TCP, TLS and HTTP backends that work, and the ways in which they do not.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::mpsc,
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};
use xfwd::health::{Condition, Health, HealthCheck, HealthError, HealthKind, Target};

use crate::{
    MS, PATIENCE, answer, down, first, next, request, server, start, target,
    tls_server::{Behaviour, TlsServer},
    up,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn tcp_backend_is_up_over_both_families() {
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(first(target(HealthKind::Tcp, server(address, drop))), up("connected"));
    }
}

#[test]
fn tcp_check_ends_with_a_reset() {
    let (sender, ends) = mpsc::channel();
    let to = server("127.0.0.1", move |mut stream| {
        let _ = sender.send(std::io::Read::read(&mut stream, &mut [0]).map_err(|error| error.kind()));
    });
    assert_eq!(first(target(HealthKind::Tcp, to)), up("connected"));
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn closed_port_is_down_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    drop(listener);
    for kind in [HealthKind::Tcp, HealthKind::Tls, HealthKind::Http, HealthKind::Https] {
        assert_eq!(first(target(kind, to)), down("connection refused"));
    }
}

/// A port on which SYNs are dropped: the queue of connections is full, and nobody takes any.
struct Full {
    _listener: std::os::fd::OwnedFd,
    _queued: Vec<TcpStream>,
    address: SocketAddr,
}

fn full() -> Full {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&socket, Backlog::new(1).unwrap()).unwrap();
    let address = TcpListener::from(socket.as_fd().try_clone_to_owned().unwrap()).local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, 300 * MS) {
        queued.push(stream);
    }
    Full { _listener: socket, _queued: queued, address }
}

#[test]
fn silent_backend_is_down_after_the_timeout() {
    let full = full();
    let mut silent = target(HealthKind::Tcp, full.address);
    silent.check.timeout = 200 * MS;
    let (health, changes) = start(vec![silent]);
    assert_eq!(next(&changes), down("timeout: no TCP connection"));
    let took = health.status()[0].last_duration.unwrap();
    assert!((200 * MS..1500 * MS).contains(&took), "{took:?}");
}

#[test]
fn backend_that_accepts_and_says_nothing_is_down() {
    // Connections wait in the queue of the kernel.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = |kind| {
        let mut silent = target(kind, listener.local_addr().unwrap());
        silent.check.timeout = 200 * MS;
        first(silent)
    };
    assert_eq!(silent(HealthKind::Http), down("timeout: no HTTP response"));
    assert_eq!(silent(HealthKind::Tls), down("timeout: TLS handshake not done"));
    assert_eq!(silent(HealthKind::Https), down("timeout: TLS handshake not done"));
}

#[test]
fn http_request_carries_path_and_host() {
    let (sender, requests) = mpsc::channel();
    let to = server("127.0.0.1", move |mut stream| {
        let _ = sender.send(request(&mut stream));
        answer(&mut stream, OK);
    });
    let mut asked = target(HealthKind::Http, to);
    asked.check.path = "/healthz?full=1".to_owned();
    assert_eq!(first(asked.clone()), up("HTTP status 200"));
    let head = requests.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {to}\r\n")), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");

    asked.check.host = Some("backend.test".to_owned());
    let (_health, changes) = start(vec![asked]);
    assert_eq!(next(&changes), up("HTTP status 200"));
    let heads = || requests.recv_timeout(PATIENCE).unwrap();
    // Checks of the first round may have been under way.
    assert!((0..10).any(|_| heads().contains("host: backend.test\r\n")));
}

#[test]
fn http_status_decides_by_the_ranges_that_are_given() {
    let with = |status: u16, good| {
        let to = server("127.0.0.1", move |mut stream| {
            request(&mut stream);
            answer(&mut stream, &format!("HTTP/1.1 {status} Status\r\n\r\n"));
        });
        let mut asked = target(HealthKind::Http, to);
        asked.check.status = good;
        first(asked)
    };
    let default = HealthCheck::default().status;
    assert_eq!(with(204, default.clone()), up("HTTP status 204"));
    assert_eq!(with(301, default.clone()), up("HTTP status 301"));
    assert_eq!(with(503, default), down("HTTP status 503"));
    assert_eq!(with(204, vec![200..=200, 404..=404]), down("HTTP status 204"));
    assert_eq!(with(404, vec![200..=200, 404..=404]), up("HTTP status 404"));
}

#[test]
fn what_is_not_http_is_down_with_a_reason() {
    let to = server("127.0.0.1", |mut stream| {
        request(&mut stream);
        answer(&mut stream, "SSH-2.0-OpenSSH\r\n");
    });
    let (condition, reason) = first(target(HealthKind::Http, to));
    assert_eq!(condition, Condition::Down);
    assert!(reason.starts_with("HTTP: "), "{reason}");

    let to = server("127.0.0.1", |mut stream| drop(request(&mut stream)));
    assert_eq!(first(target(HealthKind::Http, to)), down("HTTP: connection closed before message completed"));
}

#[test]
fn unverified_certificate_does_when_none_is_asked_for() {
    let server = TlsServer::start(&["backend.test"], Behaviour::Handshake);
    assert_eq!(first(target(HealthKind::Tls, server.address())), up("TLS handshake done (TLSv1_3)"));

    let server = TlsServer::start(&["backend.test"], Behaviour::Http(200));
    let mut asked = target(HealthKind::Https, server.address());
    asked.check.host = Some("other.test:8443".to_owned());
    assert_eq!(first(asked), up("HTTP status 200"));
    assert_eq!(server.next_name().as_deref(), Some("other.test"));

    let server = TlsServer::start(&["backend.test"], Behaviour::Http(500));
    assert_eq!(first(target(HealthKind::Https, server.address())), down("HTTP status 500"));
}

#[test]
fn self_signed_certificate_is_refused_when_it_is_to_be_verified() {
    let server = TlsServer::start(&["backend.test"], Behaviour::Http(200));
    for kind in [HealthKind::Tls, HealthKind::Https] {
        let mut asked = target(kind, server.address());
        asked.check.verify = true;
        asked.check.host = Some("backend.test".to_owned());
        let (sender, changes) = mpsc::channel();
        match Health::start(vec![asked], move |all| sender.send(all.to_vec()).unwrap()) {
            Ok(_health) => {
                let change = changes.recv_timeout(PATIENCE).unwrap().remove(0);
                assert_eq!(change.to, Condition::Down);
                assert!(change.reason.contains("invalid peer certificate"), "{}", change.reason);
            }
            // A machine without any certificates cannot verify, and says so at the start.
            Err(error) => assert!(matches!(error, HealthError::NoTrust(_)), "{error}"),
        }
    }
}

#[test]
fn port_of_the_check_comes_before_that_of_the_backend() {
    let mut other_port = target(HealthKind::Tcp, SocketAddr::from(([127, 0, 0, 1], 9)));
    other_port.check.port = Some(server("127.0.0.1", drop).port());
    assert_eq!(first(other_port), up("connected"));
}

#[test]
fn backend_that_dies_goes_down_in_time_and_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut watched = target(HealthKind::Tcp, to);
    watched.check = HealthCheck { interval: 200 * MS, timeout: 100 * MS, rise: 2, fall: 3, ..watched.check };
    let (_health, changes) = start(vec![watched]);
    assert_eq!(next(&changes), up("connected"));

    let killed = Instant::now();
    drop(listener);
    assert_eq!(next(&changes), down("connection refused"));
    let took = killed.elapsed();
    // A loaded machine gets a bit more than 3 intervals and a timeout.
    assert!((400 * MS..700 * MS + Duration::from_secs(1)).contains(&took), "{took:?}");

    let _listener = TcpListener::bind(to).unwrap();
    assert_eq!(next(&changes), up("connected"));
}

#[test]
fn check_that_makes_no_sense_is_refused_at_the_start() {
    let to = SocketAddr::from(([127, 0, 0, 1], 80));
    let refused = |kind, change: &dyn Fn(&mut Target)| {
        let mut wrong = target(kind, to);
        change(&mut wrong);
        Health::start(vec![wrong], |_| {}).unwrap_err().to_string()
    };
    let error = refused(HealthKind::Http, &|target| target.check.path = "healthz".to_owned());
    assert_eq!(
        error,
        "health check of backend 127.0.0.1 of service `web`: `healthz` is not a path: it begins with a slash \
         and has no blanks"
    );
    type Wrong = (HealthKind, &'static str, fn(&mut Target));
    let wrong: [Wrong; 8] = [
        (HealthKind::Tcp, "zero", |target| target.check.interval = Duration::ZERO),
        (HealthKind::Tcp, "a day at most", |target| target.check.timeout = Duration::MAX),
        (HealthKind::Tcp, "rise", |target| target.check.rise = 0),
        (HealthKind::Tcp, "port 0", |target| target.port = 0),
        (HealthKind::Http, "status", |target| target.check.status.clear()),
        (HealthKind::Http, "Host", |target| target.check.host = Some("a\nb".to_owned())),
        (HealthKind::Tls, "host name", |target| target.check.host = Some("a b".to_owned())),
        (HealthKind::Command, "no command", |_| {}),
    ];
    for (kind, part, change) in wrong {
        let error = refused(kind, &change);
        assert!(error.contains(part), "{error}");
    }
    let twice = vec![target(HealthKind::Tcp, to), target(HealthKind::Tcp, to)];
    assert!(matches!(Health::start(twice, |_| {}), Err(HealthError::TwiceTheSameId(1))));
}
