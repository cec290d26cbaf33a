//! The way of a packet: XDP program, stages, verdict.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::capture::{Capture, CaptureError};
use super::clock::{Clock, WINDOW};
use super::explain::{Explainer, Explanation};
use super::fate::{Fate, Place, Sent, Verdict};
use super::frame::Frame;
use super::next_hops::Options;
use super::summary::Summary;
use crate::config::{Plan, StageKind};
use crate::kernel::deny::{StartDenyError, file};
use crate::kernel::offline::OfflineProgram;
use crate::kernel::xdp::XdpAction;
use crate::packet::{Headers, parse};
use crate::pipeline::{BATCH_SIZE, Batch, DropReason, Span, Stage, Verdict as Decision};
use crate::runtime::{self, StartError};
use crate::stages::balance::BalanceControl;
use crate::stages::bounce::Bounce;
use crate::stages::filter::{Facts, FilterControl};
use crate::worker::{Counters, Interface, WorkerContext};

/// What registered stages see as the name of the one interface.
const INTERFACE: &str = "capture";

/// A config, ready to be run over packets.
pub struct Offline {
    program: OfflineProgram,
    stages: Stages,
    /// Of registered stages.
    counters: Counters,
    explainer: Option<Explainer>,
    clock: Clock,
    totals: Summary,
    /// By [`DropReason`].
    dropped: [u64; DropReason::ALL.len()],
    rules: Vec<String>,
}

/// The stages of the one worker, and what they count by.
pub(super) struct Stages {
    pub list: Vec<(StageKind, Box<dyn Stage>)>,
    pub filter: Option<FilterControl>,
    pub balance: Option<Arc<BalanceControl>>,
    reads_headers: bool,
}

/// Why a run over a capture ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The capture cannot be read further. All packets before have been dealt with.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Who was told of the packets wants no more.
    #[error("cannot write: {0}")]
    Output(io::Error),
}

/// A packet on its way.
struct Way {
    headers: Headers,
    facts: Facts,
    captured: u32,
    len: u32,
    place: Place,
    verdict: Verdict,
    reason: Option<&'static str>,
    /// Where in its buffer it lies when it is sent.
    span: Span,
    sent_len: u32,
    explanation: Explanation,
}

impl Offline {
    /// Prepares a config.
    ///
    /// # Errors
    ///
    /// [`StartError`] where a start would fail as well: rules that do not fit, a deny list that cannot be read.
    pub fn new(plan: &Plan, options: &Options) -> Result<Self, StartError> {
        let kernel = runtime::kernel_plan(plan)?;
        let denied = plan.deny_file.as_deref().map(read_deny_file).transpose()?.unwrap_or_default();
        let steering = runtime::steering(
            plan,
            runtime::Besides { steer: plan.dataplane.steer, room: 0 },
            &options.host_addresses,
        );
        let program = OfflineProgram::new(&steering, &kernel, &denied)?;
        let balance = if plan.stages.contains(&StageKind::Balance) {
            let shared = runtime::balance_options(plan, 1, vec![options.mac])?;
            let control = BalanceControl::new(shared, runtime::balanced_services(plan))?;
            control.set_egress(options.egress(plan));
            Some(Arc::new(control))
        } else {
            None
        };
        let filter = runtime::filter_control(plan, &kernel);
        let interface = Interface::new(INTERFACE, options.mac, options.mtu);
        let counters = Counters::default();
        let context = WorkerContext::new(0, 1, [interface]).with_counters(counters.clone());
        let stages = Stages::new(plan, filter, kernel.needs_worker(), balance, &context);
        Ok(Self {
            program,
            stages,
            counters,
            explainer: None,
            clock: Clock::new(),
            totals: Summary::default(),
            dropped: [0; DropReason::ALL.len()],
            rules: plan.filter.iter().map(|rule| rule.name.clone()).collect(),
        })
    }

    /// Lets [`Fate`]s say which rule or service decided. The verdicts are the same; it takes longer. To be called before the
    /// first packet, with what [`new`](Self::new) was given.
    pub fn explain(&mut self, plan: &Plan, options: &Options) {
        self.explainer = Some(Explainer::new(plan, options));
    }

    /// Names of the rules, in the order of the list.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// Runs the rest of a capture. `each` is told the fate of every packet, in their order.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn run(
        &mut self,
        capture: &mut Capture<'_>,
        mut each: impl FnMut(&Fate<'_>) -> io::Result<()>,
    ) -> Result<(), RunError> {
        let mut group = vec![Frame::default(); BATCH_SIZE + 1];
        // Packets at the front of the group that were read already.
        let mut count = 0;
        loop {
            let mut end = None;
            let mut next_begins = false;
            while count < BATCH_SIZE && !next_begins && end.is_none() {
                match capture.read(&mut group[count]) {
                    Ok(true) => {
                        let window_ends = group[0].time().saturating_add(WINDOW);
                        next_begins = group[count].time() > window_ends;
                        count += usize::from(!next_begins);
                    }
                    Ok(false) => end = Some(Ok(())),
                    Err(error) => end = Some(Err(error.into())),
                }
            }
            self.process(&mut group[..count], &mut each).map_err(RunError::Output)?;
            if let Some(end) = end {
                return end;
            }
            group.swap(0, count);
            count = usize::from(next_begins);
        }
    }

    /// What was counted so far.
    pub fn summary(&self) -> Summary {
        let mut summary = self.totals.clone();
        summary.milliseconds = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let in_worker = |rule| self.stages.filter.as_ref().map_or(0, |filter| filter.packets(rule));
        let in_kernel = |rule: usize| self.program.rule_counts().get(rule).map_or(0, |count| count.packets);
        let rules = self.rules.iter().enumerate();
        summary.rules = rules.map(|(rule, name)| (name.clone(), in_kernel(rule) + in_worker(rule))).collect();
        for row in self.stages.balance.iter().flat_map(|balance| balance.counters()) {
            let backend = (row.address, row.packets);
            match summary.backends.last_mut() {
                Some((service, backends)) if *service == row.service => backends.push(backend),
                _ => summary.backends.push((row.service, vec![backend])),
            }
        }
        let causes = self.program.counters().iter();
        summary.causes =
            causes.filter(|(_, _, packets)| *packets > 0).map(|(_, name, packets)| (name, packets)).collect();
        let dropped = DropReason::ALL.iter().map(|reason| (reason.name(), self.dropped[*reason as usize]));
        summary.dropped = dropped.filter(|(_, packets)| *packets > 0).collect();
        summary.counters = self.counters.sums();
        summary
    }

    /// Runs packets that came at nearly the same time.
    fn process(
        &mut self,
        frames: &mut [Frame],
        each: &mut impl FnMut(&Fate<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        let mut ways = Vec::with_capacity(BATCH_SIZE);
        for frame in frames.iter() {
            let at = self.clock.advance(frame.time());
            ways.push(self.enter(frame, at));
        }
        self.stages.list.iter_mut().for_each(|(_, stage)| stage.housekeeping());
        match &mut self.explainer {
            None => self.stages.run(frames, &mut ways, self.clock.now()),
            Some(explainer) => {
                for (frame, way) in frames.iter_mut().zip(&mut ways) {
                    if way.place == Place::Worker {
                        let frame = std::slice::from_mut(frame);
                        let mut asked = explainer.ask(frame[0].bytes(), &way.headers, &way.facts);
                        let now = self.clock.now();
                        self.stages.run_watched(frame, std::slice::from_mut(way), now, &mut asked);
                        let sent = matches!(way.verdict, Verdict::Bounce | Verdict::Forward)
                            .then(|| &frame[0].buffer()[way.span.start..way.span.end]);
                        explainer.explain(&self.stages, &asked, sent, &mut way.explanation);
                    } else {
                        explainer.explain_kernel(&mut way.explanation);
                    }
                }
            }
        }
        for (frame, way) in frames.iter().zip(&ways) {
            self.count(way);
            let sent = matches!(way.verdict, Verdict::Bounce | Verdict::Forward)
                .then(|| Sent { bytes: &frame.buffer()[way.span.start..way.span.end], len: way.sent_len });
            let explainer = self.explainer.as_ref();
            each(&Fate {
                number: self.totals.packets,
                time: frame.time(),
                len: way.len,
                captured: way.captured,
                headers: &way.headers,
                facts: &way.facts,
                place: way.place,
                verdict: way.verdict,
                reason: way.reason,
                sent,
                rules: &way.explanation.rules,
                by: explainer.and_then(|explainer| explainer.name(&way.explanation)),
                backend: way.explanation.backend,
            })?;
        }
        Ok(())
    }

    /// What the XDP program does.
    fn enter(&mut self, frame: &Frame, at: Duration) -> Way {
        let bytes = frame.bytes();
        let headers = parse(bytes, frame.len() as usize);
        let ruling = self.program.run(bytes, frame.len() as usize, &headers, at);
        let (place, verdict) = match ruling.action {
            XdpAction::Redirect => (Place::Worker, Verdict::Drop),
            XdpAction::Drop => (Place::Kernel, Verdict::Drop),
            _ => (Place::Kernel, Verdict::Pass),
        };
        let rules = match &self.explainer {
            Some(_) => self.program.acted().iter().map(|rule| *rule as usize).collect(),
            None => Vec::new(),
        };
        Way {
            facts: Facts::of(bytes, &headers),
            headers,
            captured: bytes.len() as u32,
            len: frame.len(),
            place,
            verdict,
            reason: Some(ruling.cause),
            span: frame.span(),
            sent_len: frame.len(),
            explanation: Explanation { rules, ..Explanation::default() },
        }
    }

    fn count(&mut self, way: &Way) {
        let totals = &mut self.totals;
        totals.packets += 1;
        totals.bytes += u64::from(way.len);
        totals.malformed += u64::from(way.headers.outcome().is_malformed());
        totals.snapped += u64::from(way.captured < way.len);
        let verdicts = &mut totals.verdicts;
        *match way.verdict {
            Verdict::Pass => &mut verdicts.pass,
            Verdict::Drop => &mut verdicts.drop,
            Verdict::Bounce => &mut verdicts.bounce,
            Verdict::Forward => &mut verdicts.forward,
        } += 1;
        if way.place == Place::Worker
            && let Some(reason) = DropReason::ALL.iter().find(|reason| Some(reason.name()) == way.reason)
        {
            self.dropped[*reason as usize] += 1;
        }
    }
}

/// Where a stage that decides is noted.
pub(super) trait Watch {
    /// A packet was decided by this stage, or by none.
    fn decided(&mut self, stage: Option<StageKind>);
}

impl Stages {
    /// As the runtime chains them.
    fn new(
        plan: &Plan,
        mut filter: Option<FilterControl>,
        filter_in_worker: bool,
        balance: Option<Arc<BalanceControl>>,
        context: &WorkerContext,
    ) -> Self {
        let mut list: Vec<(StageKind, Box<dyn Stage>)> = Vec::new();
        for kind in &plan.stages {
            let stage: Option<Box<dyn Stage>> = match kind {
                StageKind::Balance => balance.as_ref().map(|control| Box::new(control.stage(0)) as _),
                // When all rules run in the kernel there is nothing left to do.
                StageKind::Filter => {
                    filter.as_mut().filter(|_| filter_in_worker).map(|control| Box::new(control.stage()) as _)
                }
                StageKind::Bounce => {
                    let layer = plan.bounce.as_ref().map(|bounce| bounce.layer).unwrap_or_default();
                    Some(Box::new(Bounce::new(layer)))
                }
                StageKind::Custom(name) => {
                    let custom = plan.custom.iter().find(|custom| custom.name() == *name);
                    custom.map(|custom| custom.make(context))
                }
            };
            list.extend(stage.map(|stage| (*kind, stage)));
        }
        let reads_headers = list.iter().any(|(_, stage)| stage.reads_headers());
        Self { list, filter, balance, reads_headers }
    }

    /// Runs those of the packets that have come to the worker as one batch.
    fn run(&mut self, frames: &mut [Frame], ways: &mut [Way], now: std::time::Instant) {
        let mut batch = self.batch(frames, ways, now);
        for (_, stage) in &mut self.list {
            if batch.undecided().len() == 0 {
                break;
            }
            stage.process(&mut batch);
        }
        end(batch, ways);
    }

    /// As [`run`](Self::run), for one packet; tells which stage decides.
    fn run_watched(
        &mut self,
        frame: &mut [Frame],
        way: &mut [Way],
        now: std::time::Instant,
        watch: &mut impl Watch,
    ) {
        let mut batch = self.batch(frame, way, now);
        let mut decided = None;
        for (kind, stage) in &mut self.list {
            stage.process(&mut batch);
            if batch.undecided().len() == 0 {
                decided = Some(*kind);
                break;
            }
        }
        watch.decided(decided);
        end(batch, way);
    }

    fn batch<'f>(&self, frames: &'f mut [Frame], ways: &[Way], now: std::time::Instant) -> Batch<'f> {
        let mut batch = Batch::new(0);
        batch.set_now(now);
        for (frame, _) in frames.iter_mut().zip(ways).filter(|(_, way)| way.place == Place::Worker) {
            let (span, len) = (frame.span(), frame.len());
            batch.push_at(frame.buffer_mut(), span, len);
        }
        if self.reads_headers {
            batch.parse();
        }
        batch
    }
}

/// Notes what has become of a batch, as a worker with one port does.
fn end(batch: Batch<'_>, ways: &mut [Way]) {
    let decided = batch.finish();
    let mut moved = decided.moved().peekable();
    let in_worker = ways.iter_mut().filter(|way| way.place == Place::Worker);
    for (index, way) in in_worker.enumerate() {
        let (verdict, reason) = match decided[index] {
            Decision::Bounce | Decision::Forward(0) => (Verdict::Bounce, None),
            Decision::Forward(_) => (Verdict::Drop, Some(DropReason::NoPort)),
            Decision::Drop(reason) => (Verdict::Drop, Some(reason)),
            Decision::Continue => (Verdict::Drop, Some(DropReason::Undecided)),
        };
        (way.verdict, way.reason) = (verdict, reason.map(DropReason::name));
        if let Some((_, span)) = moved.next_if(|(packet, _)| *packet == index) {
            // Of a packet that was cut, only the front can have moved.
            let whole = way.captured == way.len;
            let grown = (way.len as usize + way.span.start).saturating_sub(span.start);
            way.sent_len = if whole { (span.end - span.start) as u32 } else { grown as u32 };
            way.span = span;
        }
    }
}

fn read_deny_file(path: &Path) -> Result<Vec<file::Line>, StartDenyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| StartDenyError::Unreadable { path: path.to_owned(), source })?;
    file::parse(&text).map_err(|source| StartDenyError::Wrong { path: path.to_owned(), source })
}
