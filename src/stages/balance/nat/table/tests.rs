use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use super::*;
use crate::packet::protocol::{TCP, UDP};

fn sessions() -> Sessions {
    let addresses = [IpAddr::from([198, 18, 0, 2]), "2001:db8::2".parse().unwrap()];
    Sessions::new(Layout::new(&addresses, 1_024..=1_151, 1).unwrap())
}

/// A session whose every field follows from one number.
fn opening(number: u32, is_ipv4: bool) -> Opening {
    let end = |salt: u32| {
        let word = number.wrapping_mul(0x9e37_79b9) ^ salt;
        let ip = if is_ipv4 {
            IpAddr::from((word | 0x0100_0000).to_be_bytes())
        } else {
            IpAddr::from((0x2001 << 112 | u128::from(word) << 64 | u128::from(!word)).to_be_bytes())
        };
        Endpoint::from(SocketAddr::new(ip, (word >> 3) as u16))
    };
    Opening {
        protocol: TCP,
        client: end(0x1111),
        service: end(0x2222),
        backend: end(0x3333),
        member: number,
        state: State::opened(true),
        now: Tick::from_number(number),
    }
}

fn assert_is(session: &Session, number: u32, is_ipv4: bool) {
    let expected = opening(number, is_ipv4);
    assert_eq!(
        (session.client, session.service, session.backend, session.seen.last),
        (expected.client, expected.service, expected.backend, expected.now)
    );
}

#[test]
fn a_session_is_read_as_it_was_written_until_it_is_closed() {
    let sessions = sessions();
    for number in 0..sessions.layout().sessions() {
        let id = SessionId(number);
        let (nat, _) = sessions.layout().end(number);
        assert_eq!((sessions.read(id), sessions.was_used(id)), (None, false));
        let protocol = if sessions.layout().number(TCP, &nat) == Some(number) { TCP } else { UDP };
        sessions.open(id, &Opening { protocol, ..opening(number, nat.is_ipv4()) });
        let session = sessions.read(id).unwrap();
        assert_is(&session, number, nat.is_ipv4());
        assert_eq!((session.nat, session.protocol, session.member, session.id), (nat, protocol, number, id));
        sessions.close(id);
        assert_eq!((sessions.read(id), sessions.was_used(id)), (None, true));
    }
    assert_eq!(sessions.read(SessionId(u32::MAX)), None, "a number that does not exist");
}

#[test]
fn news_of_a_session_that_is_over_does_not_reach_the_next_of_its_number() {
    let (sessions, id) = (sessions(), SessionId(5));
    let opening = |number| Opening { now: Tick::from_number(0), ..opening(number, true) };
    sessions.open(id, &opening(1));
    let old = sessions.read(id).unwrap();
    sessions.close(id);
    let closed = sessions.seen(id);
    sessions.mark(&old, Tick::from_number(0), |state| state.after_backend(4));
    assert_eq!(sessions.seen(id), closed, "nor is a closed one touched");
    sessions.open(id, &opening(2));
    let new = sessions.read(id).unwrap();
    sessions.mark(&old, Tick::from_number(0), |state| state.after_backend(4));
    assert_eq!(sessions.seen(id), new.seen);
    sessions.mark(&new, Tick::from_number(0), |state| state.after_backend(0));
    assert_eq!(sessions.seen(id).state, new.seen.state.after_backend(0));
}

#[test]
fn a_session_is_refreshed_four_times_a_second() {
    let (sessions, id) = (sessions(), SessionId(5));
    sessions.open(id, &Opening { now: Tick::from_number(100), ..opening(1, true) });
    let session = sessions.read(id).unwrap();
    let refreshed = |now| {
        sessions.mark(&session, Tick::from_number(now), |state| state);
        sessions.seen(id).last.number()
    };
    assert_eq!([refreshed(115), refreshed(116), refreshed(90)], [100, 116, 116]);
}

/// One worker opens and closes two sessions as fast as it can while others read them: what is read is always of one
/// opening.
#[test]
fn a_reader_never_sees_a_mixed_session() {
    const ENOUGH: u64 = if cfg!(miri) { 20 } else { 200_000 };
    let sessions = sessions();
    let ids = [true, false].map(|is_ipv4| {
        let is_this = |number: &u32| sessions.layout().end(*number).0.is_ipv4() == is_ipv4;
        (SessionId((0..sessions.layout().sessions()).find(is_this).unwrap()), is_ipv4)
    });
    let (done, seen, writes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        for (id, is_ipv4) in ids {
                            if let Some(session) = sessions.read(id) {
                                assert_is(&session, session.member, is_ipv4);
                                sessions.mark(&session, session.seen.last, |state| state.after_backend(1));
                                seen.fetch_add(1, Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        let mut number = 0u32;
        // A reader that has failed has ended.
        while (seen.load(Relaxed) < ENOUGH || writes.load(Relaxed) < ENOUGH)
            && readers.iter().all(|reader| !reader.is_finished())
        {
            for (id, is_ipv4) in ids {
                number = number.wrapping_add(1);
                sessions.open(id, &opening(number, is_ipv4));
                if number.is_multiple_of(3) {
                    sessions.close(id);
                    assert_eq!(sessions.seen(id).state, State::CLOSED);
                }
            }
            writes.fetch_add(1, Relaxed);
        }
        done.store(true, Relaxed);
    });
}
