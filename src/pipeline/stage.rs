//! What one step of a pipeline can do.

use super::Batch;

/// One step of a pipeline: looks at the undecided packets of a batch, may change their bytes, and decides about
/// some of them.
///
/// A stage runs on the hot path of one worker and belongs to it alone: it must not block, lock, allocate or
/// call the kernel in [`process`](Stage::process). What it needs to hear from other threads it reads from a
/// lock-free queue in [`housekeeping`](Stage::housekeeping).
pub trait Stage: Send {
    /// Short name, as counters and messages show it.
    fn name(&self) -> &str;

    /// Decides about the packets of a batch.
    ///
    /// A panic here takes down the worker, and with it the whole run, with a message that names the stage's worker.
    fn process(&mut self, batch: &mut Batch<'_>);

    /// Whether this stage looks at [`Packet::headers`](super::Packet::headers). The batch is parsed, once, only if
    /// some stage of the pipeline says so.
    fn reads_headers(&self) -> bool {
        true
    }

    /// Whether this stage reads or writes the bytes of packets at all. If no stage of the pipeline does, a worker does not have them brought
    /// near. Who only counts and drops, or sends on unseen, says `false`: for the core that writes the next packet into that memory, it is worth
    /// much if no other core has looked. Wrong is nothing but slow, and a stage that reads headers reads packets.
    fn reads_packets(&self) -> bool {
        true
    }

    /// How many packets of its own this stage makes for one batch at most ([`Batch::allocate`]). A worker keeps so many frames at hand,
    /// up to [`MAX_ORIGINATED`](super::MAX_ORIGINATED) for all of its stages, and receives that many packets less at a time.
    /// It asks once, when it is made.
    fn originates(&self) -> usize {
        0
    }

    /// Called between batches, also when there was no packet: at least ten times a second. The place to take in
    /// what other threads have to say.
    fn housekeeping(&mut self) {}
}

impl<S: Stage + ?Sized> Stage for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        (**self).process(batch);
    }
    fn reads_headers(&self) -> bool {
        (**self).reads_headers()
    }
    fn reads_packets(&self) -> bool {
        (**self).reads_packets()
    }
    fn originates(&self) -> usize {
        (**self).originates()
    }
    fn housekeeping(&mut self) {
        (**self).housekeeping();
    }
}
