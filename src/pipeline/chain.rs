//! Stages one behind the other: as a tuple, or as a list of boxes.

use super::{Batch, Stage};

macro_rules! tuple_of_stages {
    ($($stage:ident $index:tt),*) => {
        /// Stages chained at compile time, run in order.
        impl<$($stage: Stage),*> Stage for ($($stage,)*) {
            fn name(&self) -> &str {
                "chain"
            }
            #[inline]
            fn process(&mut self, batch: &mut Batch<'_>) {
                $(self.$index.process(batch);)*
            }
            fn reads_headers(&self) -> bool {
                $(self.$index.reads_headers() ||)* false
            }
            fn reads_packets(&self) -> bool {
                $(self.$index.reads_packets() ||)* false
            }
            fn originates(&self) -> usize {
                [$(self.$index.originates()),*].into_iter().fold(0, usize::saturating_add)
            }
            #[inline]
            fn housekeeping(&mut self) {
                $(self.$index.housekeeping();)*
            }
        }
    };
}

tuple_of_stages!(A 0);
tuple_of_stages!(A 0, B 1);
tuple_of_stages!(A 0, B 1, C 2);
tuple_of_stages!(A 0, B 1, C 2, D 3);
tuple_of_stages!(A 0, B 1, C 2, D 3, E 4);
tuple_of_stages!(A 0, B 1, C 2, D 3, E 4, F 5);

/// Stages chained at run time, run in order: what a config file makes.
#[derive(Default)]
pub struct Pipeline {
    stages: Vec<Box<dyn Stage>>,
}

impl Pipeline {
    /// A pipeline without stages: every packet stays undecided.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stage behind the others.
    pub fn push(&mut self, stage: Box<dyn Stage>) {
        self.stages.push(stage);
    }

    /// The names of the stages, in order.
    pub fn stage_names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|stage| stage.name())
    }
}

impl Stage for Pipeline {
    fn name(&self) -> &str {
        "pipeline"
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        for stage in &mut self.stages {
            if batch.undecided().len() == 0 {
                break;
            }
            stage.process(batch);
        }
    }
    fn reads_headers(&self) -> bool {
        self.stages.iter().any(|stage| stage.reads_headers())
    }
    fn reads_packets(&self) -> bool {
        self.stages.iter().any(|stage| stage.reads_packets())
    }
    fn originates(&self) -> usize {
        self.stages.iter().map(Stage::originates).fold(0, usize::saturating_add)
    }
    fn housekeeping(&mut self) {
        for stage in &mut self.stages {
            stage.housekeeping();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DropReason, Verdict};
    use super::*;

    /// Decides about packets whose first byte is `mine`.
    struct ByFirstByte {
        mine: u8,
        verdict: Verdict,
        seen: usize,
    }

    impl Stage for ByFirstByte {
        fn name(&self) -> &str {
            "by-first-byte"
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            batch.each_undecided(|packet| {
                self.seen += 1;
                if packet.bytes()[0] == self.mine { self.verdict } else { Verdict::Continue }
            });
        }
        fn reads_headers(&self) -> bool {
            false
        }
    }

    fn stages() -> (ByFirstByte, ByFirstByte) {
        (
            ByFirstByte { mine: 1, verdict: Verdict::Drop(DropReason::Rule), seen: 0 },
            ByFirstByte { mine: 2, verdict: Verdict::Bounce, seen: 0 },
        )
    }

    fn run(stage: &mut impl Stage) -> Vec<Verdict> {
        let mut frames = [[1u8; 60], [2; 60], [3; 60]];
        let mut batch = Batch::new(0);
        for frame in &mut frames {
            batch.push(frame, 60);
        }
        stage.process(&mut batch);
        batch.finish()[..3].to_vec()
    }

    #[test]
    fn static_and_boxed_chains_mean_the_same() {
        let mut fixed = stages();
        let (first, second) = stages();
        let mut boxed = Pipeline::new();
        boxed.push(Box::new(first));
        boxed.push(Box::new(second));
        let expected = [Verdict::Drop(DropReason::Rule), Verdict::Bounce, Verdict::Continue];
        assert_eq!(run(&mut fixed), expected);
        assert_eq!(run(&mut boxed), expected);
        assert_eq!((fixed.0.seen, fixed.1.seen), (3, 2), "the second stage sees what the first left");
        assert!(!fixed.reads_headers() && !boxed.reads_headers());
    }

    /// Drops what it has not looked at.
    struct Unseen;

    impl Stage for Unseen {
        fn name(&self) -> &str {
            "unseen"
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            batch.each_undecided(|_| Verdict::Drop(DropReason::Rule));
        }
        fn reads_headers(&self) -> bool {
            false
        }
        fn reads_packets(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_chain_reads_packets_if_one_of_its_stages_does() {
        assert!(!(Unseen, Unseen).reads_packets() && (Unseen, stages().0).reads_packets());
        let mut boxed = Pipeline::new();
        assert!(!boxed.reads_packets(), "nobody is there to read");
        boxed.push(Box::new(Unseen));
        assert!(!boxed.reads_packets());
        boxed.push(Box::new(stages().0));
        assert!(boxed.reads_packets());
    }
}
