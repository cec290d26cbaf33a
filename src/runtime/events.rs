//! What happens while running, on its way to whoever watches the run.
//!
//! News may be lost when nobody reads them; the end of the run may not. So they travel apart: news through a bounded
//! channel, ends (one a worker and one an interface at most) through one that takes them all.
//!
//! A reader is a thread that waits, or a future. Futures leave their waker behind, and look once more after that: an event that was sent in
//! between has not found it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select_biased, unbounded};

use super::running::Event;

/// Room for news that nobody has read yet; a reader that is late misses the newer ones.
const NEWS: usize = 256;

#[derive(Clone)]
pub(super) struct EventSender {
    news: Sender<Event>,
    ends: Sender<Event>,
    /// Of the futures that wait for an event.
    wakers: Arc<Mutex<Vec<Waker>>>,
}

pub(super) struct EventReceiver {
    news: Receiver<Event>,
    ends: Receiver<Event>,
    /// Keeps both channels open: a closed one would always be ready.
    sender: EventSender,
}

pub(super) fn channel() -> (EventSender, EventReceiver) {
    let ((news_sender, news), (ends_sender, ends)) = (bounded(NEWS), unbounded());
    let sender = EventSender { news: news_sender, ends: ends_sender, wakers: Arc::default() };
    (sender.clone(), EventReceiver { news, ends, sender })
}

impl EventSender {
    /// Never waits.
    pub(super) fn send(&self, event: Event) {
        let channel = if event.is_end() { &self.ends } else { &self.news };
        let _ = channel.try_send(event);
        // Woken without the lock: a waker may run the future at once.
        let wakers = std::mem::take(&mut *self.wakers());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventReceiver {
    /// The next event within `timeout`; an end comes before all news.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Event> {
        select_biased! {
            recv(self.ends) -> event => event.ok(),
            recv(self.news) -> event => event.ok(),
            default(timeout) => None,
        }
    }

    /// The next event, an end before all news. A future that is dropped has taken none.
    pub(super) async fn next(&self) -> Event {
        poll_fn(|context| {
            if let Some(event) = self.take() {
                return Poll::Ready(event);
            }
            let mut wakers = self.sender.wakers();
            if !wakers.iter().any(|known| known.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            drop(wakers);
            self.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn take(&self) -> Option<Event> {
        self.ends.try_recv().or_else(|_| self.news.try_recv()).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn an_end_is_told_however_much_news_waits() {
        let (sender, receiver) = channel();
        let news = || Event::Carrier { interface: "va".to_owned(), up: true };
        for _ in 0..10 * NEWS {
            sender.send(news());
        }
        sender.send(Event::WorkerEnded(0));
        sender.send(Event::InterfaceRemoved("va".to_owned()));
        let wait = || receiver.wait(Duration::ZERO);
        assert_eq!(wait(), Some(Event::WorkerEnded(0)));
        assert_eq!(wait(), Some(Event::InterfaceRemoved("va".to_owned())));
        assert_eq!((0..NEWS).filter(|_| wait() == Some(news())).count(), NEWS);
        assert_eq!(wait(), None);
    }

    #[test]
    fn a_future_is_woken_by_the_next_event_and_gets_an_end_first() {
        let (sender, receiver) = channel();
        let woken = Arc::new(Woken::default());
        let (waker, news) =
            (Waker::from(Arc::clone(&woken)), Event::Carrier { interface: "va".to_owned(), up: true });
        let mut context = Context::from_waker(&waker);
        let mut next = pin!(receiver.next());
        for _ in 0..3 {
            assert_eq!(next.as_mut().poll(&mut context), Poll::Pending);
        }
        sender.send(news.clone());
        sender.send(Event::WorkerEnded(0));
        assert_eq!(woken.0.load(Relaxed), 1, "once, however often it was asked, and not again before it is");
        assert_eq!(next.as_mut().poll(&mut context), Poll::Ready(Event::WorkerEnded(0)));
        assert_eq!(pin!(receiver.next()).poll(&mut context), Poll::Ready(news.clone()));

        assert_eq!(pin!(receiver.next()).poll(&mut context), Poll::Pending);
        sender.send(news.clone());
        assert_eq!(receiver.wait(Duration::ZERO), Some(news), "the future is gone, the event is not");
    }

    #[test]
    fn futures_on_several_threads_miss_no_event() {
        const EVENTS: usize = if cfg!(miri) { 20 } else { 5_000 };
        let (sender, receiver) = channel();
        let seen = Mutex::new(HashSet::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        while let Event::WorkerEnded(number) = receiver.next().await {
                            assert!(seen.lock().unwrap().insert(number));
                        }
                    });
                });
            }
            (0..EVENTS).for_each(|number| sender.send(Event::WorkerEnded(number)));
            while seen.lock().unwrap().len() < EVENTS {
                std::thread::yield_now();
            }
            (0..2).for_each(|_| sender.send(Event::InterfaceRemoved("va".to_owned())));
        });
        assert_eq!(receiver.wait(Duration::ZERO), None);
    }

    #[test]
    fn who_waits_for_ever_is_told() {
        let (sender, receiver) = channel();
        sender.send(Event::WorkerEnded(0));
        assert_eq!(receiver.wait(Duration::MAX), Some(Event::WorkerEnded(0)));
    }

    #[test]
    fn nothing_is_waited_for_when_all_senders_are_gone() {
        let (_, receiver) = channel();
        assert_eq!(receiver.wait(Duration::from_millis(1)), None);
    }
}
