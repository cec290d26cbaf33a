//! What happens while running, on its way to whoever watches the run.
//!
//! News may be lost when nobody reads them; the end of the run may not. So they travel apart: news through a bounded
//! channel, ends (one a worker and one an interface at most) through one that takes them all.

use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select_biased, unbounded};

use super::running::Event;

/// Room for news that nobody has read yet; a reader that is late misses the newer ones.
const NEWS: usize = 256;

#[derive(Clone)]
pub(super) struct EventSender {
    news: Sender<Event>,
    ends: Sender<Event>,
}

pub(super) struct EventReceiver {
    news: Receiver<Event>,
    ends: Receiver<Event>,
    /// Keeps both channels open: a closed one would always be ready.
    _sender: EventSender,
}

pub(super) fn channel() -> (EventSender, EventReceiver) {
    let ((news_sender, news), (ends_sender, ends)) = (bounded(NEWS), unbounded());
    let sender = EventSender { news: news_sender, ends: ends_sender };
    (sender.clone(), EventReceiver { news, ends, _sender: sender })
}

impl EventSender {
    /// Never waits.
    pub(super) fn send(&self, event: Event) {
        let channel = if event.is_end() { &self.ends } else { &self.news };
        let _ = channel.try_send(event);
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
