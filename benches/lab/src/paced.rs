//! A subject at work, to which packets are offered at several rates one after the other.

use std::time::{Duration, Instant};

use anyhow::Result;
use xfwd_netns::Histogram;
use xfwd_netns::topology::INTERFACE;
use xfwd_netns::trafficgen::{Amount, Counter, CounterOptions, Generator};

use crate::bench::Bench;
use crate::offer::Traffic;
use crate::site::Site;
use crate::subject::{Outcome, Running, Subject};

/// So long after the last packet that came back nothing more is waited for.
const SILENCE: Duration = Duration::from_millis(30);
/// Percentiles of the curves: what the plots show, as far as there are packets for it.
const PERCENTILES: [f64; 16] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 100.0];

/// A subject that was started and warmed up.
pub struct Session<'a> {
    bench: &'a Bench,
    site: Site,
    traffic: Traffic,
    stamped: bool,
    running: Box<dyn Running>,
    to: xfwd_netns::MacAddress,
    back: Counter,
}

/// What came of an offer.
pub struct Answer {
    /// Packets a second that were offered.
    pub offered: f64,
    /// Packets sent, those included that the interface refused: a full queue in front of the subject is a loss.
    pub sent: u64,
    /// Packets that came back.
    pub returned: u64,
    /// Packets that came back in a second.
    pub returned_pps: f64,
    /// From when a packet was due until it came back, in ns; of paced packets.
    pub latency: Histogram<u64>,
    /// From when a packet was due until it left the generator, in ns.
    pub lateness: Histogram<u64>,
}

impl Answer {
    /// Share of what was sent that did not come back, 0 to 1.
    pub fn lost(&self) -> f64 {
        self.sent.saturating_sub(self.returned) as f64 / self.sent.max(1) as f64
    }
}

impl<'a> Session<'a> {
    /// Starts the subject and sends it packets for a while, so that nothing is cold. Packets that are `stamped` have a latency;
    /// others can be sent at higher rates.
    ///
    /// # Errors
    ///
    /// If it is missing or fails.
    pub fn start(bench: &'a Bench, subject: &dyn Subject, traffic: &Traffic, stamped: bool) -> Outcome<Self> {
        let site = Site::new(traffic.shape)?;
        let running = subject.start(bench, &site)?;
        let to = subject.destination(&site)?;
        let options = CounterOptions { latency: stamped, ..CounterOptions::default() };
        let back = site.generator.run(|| Counter::attach(INTERFACE, &options))?;
        let mut session = Self { bench, site, traffic: traffic.clone(), stamped, running, to, back };
        session.offer(None, Amount::For(bench.settings.warm_up()))?;
        Ok(session)
    }

    /// Sends packets, at this many a second or as many as go, and waits for the last of them.
    ///
    /// # Errors
    ///
    /// If the generator fails.
    pub fn offer(&mut self, rate_pps: Option<f64>, amount: Amount) -> Result<Answer> {
        let mut sending = self.traffic.sending(self.bench, self.to);
        sending.stamped = self.stamped;
        sending.rate_pps = rate_pps.map(|rate| (rate as u64).max(1));
        self.back.clear_latency()?;
        let before = self.back.read()?.total().ours;
        let (sent, lateness) = self.site.generator.run(|| -> xfwd_netns::Result<_> {
            let mut generator = Generator::new(INTERFACE, &sending)?;
            Ok((generator.run(amount)?, generator.lateness()?))
        })?;
        let returned = self.settle()? - before;
        Ok(Answer {
            offered: sent.pps(),
            sent: sent.packets,
            returned,
            returned_pps: returned as f64 / sent.elapsed.as_secs_f64(),
            latency: self.back.latency()?,
            lateness,
        })
    }

    /// Packets that have come back, once no more do.
    fn settle(&self) -> Result<u64> {
        let mut last = (self.back.read()?.total().ours, Instant::now());
        while last.1.elapsed() < SILENCE {
            std::thread::sleep(Duration::from_millis(2));
            let count = self.back.read()?.total().ours;
            if count != last.0 {
                last = (count, Instant::now());
            }
        }
        Ok(last.0)
    }

    /// The subject's process, if it is one.
    pub fn pid(&self) -> Option<u32> {
        self.running.pid()
    }

    /// Ends the subject in good order.
    ///
    /// # Errors
    ///
    /// If it did not end well.
    pub fn stop(self) -> Result<()> {
        self.running.stop().map(drop)
    }
}

/// Percentiles of a histogram of ns, in µs; as far up as ten packets are beyond.
pub fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let beyond = |percentile: f64| histogram.len() as f64 * (100.0 - percentile) / 100.0;
    PERCENTILES
        .into_iter()
        .filter(|percentile| *percentile <= 50.0 || beyond(*percentile) >= 10.0)
        .map(|percentile| (percentile, histogram.value_at_percentile(percentile) as f64 / 1e3))
        .collect()
}
