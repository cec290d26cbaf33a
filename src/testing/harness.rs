//! A stage on the bench: packets in, what became of them out.

use std::time::{Duration, Instant};

use crate::packet::{Headers, parse};
use crate::pipeline::{BATCH_SIZE, Batch, MAX_ORIGINATED, PortIndex, Span, Stage, Verdict};

/// Bytes of a frame unless said otherwise: those of a worker.
const FRAME_BYTES: usize = 4096;

/// Runs a stage as a worker does, without ports: housekeeping, a batch, verdicts. Its clock stands still until it is
/// [advanced](Harness::advance).
///
/// ```
/// use std::time::Duration;
/// use xfwd::pipeline::{Batch, DropReason, Stage, Verdict};
/// use xfwd::testing::Harness;
///
/// /// Lets one packet a second through.
/// #[derive(Default)]
/// struct OneASecond { last: Option<std::time::Instant> }
///
/// impl Stage for OneASecond {
///     fn name(&self) -> &str { "one-a-second" }
///     fn process(&mut self, batch: &mut Batch<'_>) {
///         let now = batch.now();
///         batch.each_undecided(|_| match self.last {
///             Some(last) if now - last < Duration::from_secs(1) => Verdict::Drop(DropReason::Rule),
///             _ => { self.last = Some(now); Verdict::Bounce }
///         });
///     }
/// }
///
/// let mut harness = Harness::new(OneASecond::default());
/// let packet = [0; 60];
/// assert_eq!(harness.one(&packet).verdict, Verdict::Bounce);
/// assert_eq!(harness.one(&packet).verdict, Verdict::Drop(DropReason::Rule));
/// harness.advance(Duration::from_secs(1));
/// assert_eq!(harness.one(&packet).verdict, Verdict::Bounce);
/// ```
pub struct Harness<S> {
    stage: S,
    port: PortIndex,
    room: usize,
    frame_bytes: usize,
    spares: usize,
    mark: u64,
    now: Instant,
}

/// What became of the packets of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Those that were fed, in order.
    pub packets: Vec<Processed>,
    /// Those that the stage has made, in order.
    pub originated: Vec<Processed>,
}

/// A packet behind a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Processed {
    /// What the stage has decided; [`Verdict::Continue`] if nothing.
    pub verdict: Verdict,
    /// The packet as the stage has left it.
    pub bytes: Vec<u8>,
    /// Its mark.
    pub mark: u64,
    /// [`Packet::headers`](crate::pipeline::Packet::headers) as a later stage would see them.
    pub headers: Headers,
}

impl Processed {
    /// What the parser finds in the packet now.
    pub fn parsed(&self) -> Headers {
        parse(&self.bytes, self.bytes.len())
    }

    /// What is behind the transport header and within the IP packet. `None` when there is no such header.
    pub fn payload(&self) -> Option<&[u8]> {
        let headers = self.parsed();
        let range = headers.payload_offset.into()..headers.end as usize;
        if headers.payload_offset == 0 { None } else { self.bytes.get(range) }
    }
}

impl<S: Stage> Harness<S> {
    /// A harness for a stage or a chain of them: packets come in by port 0, in frames of 4,096 bytes without room in front. The clock
    /// begins now.
    pub fn new(stage: S) -> Self {
        let spares = stage.originates().min(MAX_ORIGINATED);
        Self { stage, port: 0, room: 0, frame_bytes: FRAME_BYTES, spares, mark: 0, now: Instant::now() }
    }

    /// Lets packets come in by this port.
    #[must_use]
    pub fn with_port(mut self, port: PortIndex) -> Self {
        self.port = port;
        self
    }

    /// Gives packets so many bytes of room in front, as an XDP program can.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Self {
        self.room = bytes;
        self
    }

    /// Makes frames so large, room included.
    #[must_use]
    pub fn with_frame_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes;
        self
    }

    /// Gives packets this mark, as a stage in front could.
    #[must_use]
    pub fn with_mark(mut self, mark: u64) -> Self {
        self.mark = mark;
        self
    }

    /// Gives the stage only so many frames for packets of its own, fewer than it asks for: as when all others are in use.
    #[must_use]
    pub fn with_spare_frames(mut self, count: usize) -> Self {
        self.spares = self.spares.min(count);
        self
    }

    /// The time that stages see.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// The stage, to look at or to change.
    pub fn stage(&mut self) -> &mut S {
        &mut self.stage
    }

    /// Runs one batch of packets.
    ///
    /// # Panics
    ///
    /// When there are more packets than a worker would put into one batch ([`BATCH_SIZE`], less what the stage
    /// [originates](Stage::originates)), one does not fit its frame, or the stage panics.
    pub fn step<I>(&mut self, packets: I) -> Step
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut frames: Vec<(Vec<u8>, Span)> =
            packets.into_iter().map(|packet| self.frame(packet.as_ref())).collect();
        assert!(
            frames.len() + self.spares <= BATCH_SIZE,
            "{} packets, and place for {} of the stage's own: a batch has {BATCH_SIZE}",
            frames.len(),
            self.spares
        );
        let mut spares = vec![vec![0xa5; self.frame_bytes]; self.spares];
        let fed = frames.len();

        self.stage.housekeeping();
        let mut batch = Batch::new(self.port);
        batch.set_now(self.now);
        for (frame, span) in &mut frames {
            batch.push_at(frame, *span, (span.end - span.start) as u32);
        }
        spares.iter_mut().for_each(|spare| batch.lend(spare));
        for index in 0..fed {
            batch.packet_mut(index).set_mark(self.mark);
        }
        if self.stage.reads_headers() {
            batch.parse();
        }
        self.stage.process(&mut batch);
        let seen = (0..batch.len()).map(|index| {
            let packet = batch.packet(index);
            (packet.bytes().to_vec(), packet.mark(), *packet.headers())
        });
        let seen: Vec<_> = seen.collect();
        let decided = batch.finish();
        let mut packets: Vec<_> = seen
            .into_iter()
            .zip(decided.iter())
            .map(|((bytes, mark, headers), verdict)| Processed { verdict: *verdict, bytes, mark, headers })
            .collect();
        let originated = packets.split_off(fed);
        Step { packets, originated }
    }

    /// Runs packets in as many batches as it takes.
    ///
    /// # Panics
    ///
    /// As [`step`](Harness::step), however many there are.
    pub fn run<I>(&mut self, packets: I) -> Step
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let (mut all, mut packets) = (Step::default(), packets.into_iter().peekable());
        while packets.peek().is_some() {
            let step = self.step(packets.by_ref().take(BATCH_SIZE - self.spares));
            all.packets.extend(step.packets);
            all.originated.extend(step.originated);
        }
        all
    }

    /// Runs a batch of one packet.
    ///
    /// # Panics
    ///
    /// As [`step`](Harness::step).
    pub fn one(&mut self, packet: &[u8]) -> Processed {
        self.step([packet]).packets.remove(0)
    }

    fn frame(&self, packet: &[u8]) -> (Vec<u8>, Span) {
        let span = Span { start: self.room, end: self.room + packet.len() };
        assert!(span.end <= self.frame_bytes, "a packet of {} bytes does not fit its frame", packet.len());
        let mut frame = vec![0xa5; self.frame_bytes];
        frame[span.start..span.end].copy_from_slice(packet);
        (frame, span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::DropReason;
    use crate::testing::packets;

    /// Marks, tags, and reports every packet to the second port.
    struct Tagger {
        told: u32,
    }

    impl Stage for Tagger {
        fn name(&self) -> &str {
            "tagger"
        }
        fn originates(&self) -> usize {
            4
        }
        fn housekeeping(&mut self) {
            self.told += 1;
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            for index in batch.undecided() {
                let packet = batch.packet_mut(index);
                packet.set_mark(packet.mark() + 1);
                let verdict = match packet.push_vlan(100) {
                    Ok(()) => Verdict::Bounce,
                    Err(_) => Verdict::Drop(DropReason::NoRoom),
                };
                batch.decide(index, verdict);
                if let Some(report) = batch.allocate(20, Verdict::Forward(1)) {
                    report.bytes_mut()[0] = index as u8;
                }
            }
        }
    }

    #[test]
    fn what_became_of_each_packet_is_shown() {
        let mut harness = Harness::new(Tagger { told: 0 }).with_mark(6).with_room(8).with_port(3);
        let packet = packets::well_formed(1);
        let step = harness.step([&packet, &packet]);
        for processed in &step.packets {
            assert_eq!((processed.verdict, processed.mark), (Verdict::Bounce, 7));
            assert_eq!(processed.bytes.len(), packet.len() + 4);
            assert_eq!((processed.headers.vlan_tci[0], processed.headers), (100, processed.parsed()));
        }
        let reports: Vec<_> =
            step.originated.iter().map(|new| (new.verdict, new.bytes.len(), new.bytes[0])).collect();
        assert_eq!(reports, [(Verdict::Forward(1), 20, 0), (Verdict::Forward(1), 20, 1)]);
        assert_eq!(harness.stage().told, 1);
    }

    #[test]
    fn want_of_frames_and_of_room_is_as_in_a_worker() {
        let packet = packets::well_formed(1);
        let mut harness =
            Harness::new(Tagger { told: 0 }).with_spare_frames(1).with_frame_bytes(packet.len());
        let step = harness.run(vec![packet; 3]);
        assert!(step.packets.iter().all(|processed| processed.verdict == Verdict::Drop(DropReason::NoRoom)));
        assert_eq!(step.originated.len(), 1);
    }

    #[test]
    fn many_packets_run_in_batches() {
        let mut harness = Harness::new(Tagger { told: 0 });
        let step = harness.run((0..150).map(packets::well_formed));
        assert_eq!((step.packets.len(), step.originated.len(), harness.stage().told), (150, 12, 3));
    }
}
