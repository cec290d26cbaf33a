//! `[dataplane]`: how packets are moved. Every key has a default.

use std::ops::RangeInclusive;

use serde::Serialize;

use super::reader::{Reader, Section};
use crate::port::xsk::Mode;
use crate::words::choices;
use crate::worker::Idle;

choices! {
    /// Which packets leave the kernel.
    #[derive(Default)]
    pub enum Steer {
        /// Those addressed to a service.
        #[default]
        Services = "services",
        /// All but ARP, neighbour discovery and what is addressed to the host.
        All = "all",
        /// All, without exception: ARP, broken packets and what is addressed to the host, too. The interfaces are promiscuous while the
        /// run lasts. For what has no address of its own, such as a bridge: the host cannot be reached by these
        /// interfaces, and hears nothing of them.
        Everything = "everything",
    }
}

/// How packets are moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Dataplane {
    /// How packets get from the driver to user space.
    pub mode: Mode,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// Which packets leave the kernel.
    pub steer: Steer,
    /// Whether the worker drives the NIC's queue itself (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: bool,
    /// Frames of each queue: a power of two, at least four times `ring_size`.
    pub frames_per_queue: u32,
    /// Descriptors in the rx ring, and in the tx ring, of each queue: a power of two.
    pub ring_size: u32,
    /// Whether frames lie in huge pages if there are any.
    pub huge_pages: bool,
}

/// Sizes of [`Dataplane`] that do not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSize {
    /// The rings.
    #[error("ring_size is {0}: it must be a power of two from {low} to {high}", low = RING_SIZES.start(), high = RING_SIZES.end())]
    Ring(u32),
    /// The frames.
    #[error(
        "frames_per_queue is {frames}: it must be a power of two from {low} to {high}, and at least four times ring_size, which \
         is {ring}",
        low = FRAME_COUNTS.start(),
        high = FRAME_COUNTS.end()
    )]
    Frames {
        /// Frames of each queue.
        frames: u32,
        /// Descriptors in a ring.
        ring: u32,
    },
}

impl Dataplane {
    /// Whether the sizes are such as a config file could have them.
    ///
    /// # Errors
    ///
    /// [`InvalidSize`].
    pub fn check(&self) -> Result<(), InvalidSize> {
        let (frames, ring) = (self.frames_per_queue, self.ring_size);
        if !ring.is_power_of_two() || !RING_SIZES.contains(&ring) {
            return Err(InvalidSize::Ring(ring));
        }
        if !frames.is_power_of_two()
            || !FRAME_COUNTS.contains(&frames)
            || frames < ring * FRAMES_PER_RING_ENTRY
        {
            return Err(InvalidSize::Frames { frames, ring });
        }
        Ok(())
    }
}

impl Default for Dataplane {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            idle: Idle::default(),
            steer: Steer::default(),
            busy_poll: false,
            frames_per_queue: 8192,
            ring_size: 2048,
            huge_pages: true,
        }
    }
}

/// The fill ring has twice the size of the rx ring, so that it takes every frame of the pool that is not
/// elsewhere; the tx ring has one more; the fourth is in the rx ring or in the hands of the worker.
const FRAMES_PER_RING_ENTRY: u32 = 4;

const RING_SIZES: RangeInclusive<u32> = 64..=32_768;
const FRAME_COUNTS: RangeInclusive<u32> = 1024..=1_048_576;

const KEYS: &[&str] = &["mode", "idle", "steer", "busy_poll", "frames_per_queue", "ring_size", "huge_pages"];

pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>) -> Dataplane {
    let default = Dataplane::default();
    let Some(section) = root.table(reader, "dataplane", "[dataplane]", KEYS) else {
        return default;
    };
    let frames = section.power_of_two(reader, "frames_per_queue", FRAME_COUNTS);
    let ring = section.power_of_two(reader, "ring_size", RING_SIZES);
    let frames_per_queue = frames.as_ref().map_or(default.frames_per_queue, |frames| *frames.get_ref());
    let ring_size = ring.as_ref().map_or(default.ring_size, |ring| *ring.get_ref());

    let needed = ring_size * FRAMES_PER_RING_ENTRY;
    // The one that is written is wrong; if both are, the number of frames. One that was rejected is not
    // judged again.
    let rejected = |key, value: bool| section.has(key) && !value;
    if frames_per_queue < needed
        && !rejected("frames_per_queue", frames.is_some())
        && !rejected("ring_size", ring.is_some())
        && let Some(place) = frames.map(|frames| frames.span()).or(ring.map(|ring| ring.span()))
    {
        reader
            .error(place, format!("{frames_per_queue} frames are too few for a ring of {ring_size}"))
            .label(format!("`frames_per_queue` must be at least {needed}"))
            .help(format!(
                "the fill ring holds twice `ring_size`, the tx ring once, and some are in work; \
                 the defaults are {} and {}",
                default.frames_per_queue, default.ring_size
            ));
    }
    Dataplane {
        mode: section.choice(reader, "mode").unwrap_or_default(),
        idle: section.choice(reader, "idle").unwrap_or_default(),
        steer: section.choice(reader, "steer").unwrap_or_default(),
        busy_poll: section.boolean(reader, "busy_poll").unwrap_or(default.busy_poll),
        frames_per_queue,
        ring_size,
        huge_pages: section.boolean(reader, "huge_pages").unwrap_or(default.huge_pages),
    }
}
