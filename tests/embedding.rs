//! What who embeds the library relies on: a stage of one's own from the config file to packets, handles that go to other
//! threads, and a data path without the crates of the command. Needs neither root nor a lab.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use serde::Deserialize;
use xfwd::config::{ConfigError, Registry, SectionError, StageFactory};
use xfwd::port::memory::MemoryPort;
use xfwd::prelude::*;
use xfwd::stages::bounce::{Bounce, Layer};
use xfwd::worker::{Counters, Worker};

// ---------------------------------------------------------------------------------------------------------------------
// A registered stage.

/// Drops packets whose length is a multiple of `every`.
struct Sieve {
    every: usize,
    caught: StageCounter,
}

impl Stage for Sieve {
    fn name(&self) -> &str {
        "sieve"
    }
    fn reads_headers(&self) -> bool {
        false
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            if !packet.len().is_multiple_of(self.every) {
                return Verdict::Continue;
            }
            self.caught.add(1);
            Verdict::Drop(DropReason::Rule)
        });
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    every: usize,
    address: Option<std::net::SocketAddr>,
}

fn registry() -> Registry {
    Registry::new().stage("sieve", |Settings { every, address }: Settings| {
        if every == 0 {
            let error = SectionError::new("no length is a multiple of 0").key("every");
            return Err(error.label("must be 1 or more").help("leave the section out to drop nothing"));
        }
        let factory = StageFactory::new(move |worker| Sieve { every, caught: worker.counter("caught") });
        Ok(match address {
            Some(address) => factory.steer(SteeredService::udp(address)),
            None => factory,
        })
    })
}

fn parse(text: &str) -> Result<xfwd::Plan, ConfigError> {
    registry().parse("lb.toml", text)
}

fn stages(plan: &xfwd::Plan) -> Vec<&'static str> {
    plan.stages.iter().map(|stage| stage.name()).collect()
}

const ALL: &str = "[dataplane]\nsteer = \"all\"\n";

#[test]
fn a_registered_stage_goes_from_the_file_to_packets() {
    let plan = parse(&format!("{ALL}[bounce]\n[sieve]\nevery = 10\n")).unwrap();
    assert_eq!((stages(&plan), &plan.warnings[..]), (vec!["sieve", "bounce"], &[][..]));

    let counters = Counters::default();
    let worker_of = |worker| {
        let context = WorkerContext::new(worker, 2, []).with_counters(counters.clone());
        let stage = (plan.custom[0].make(&context), Bounce::new(Layer::L2));
        let pool = MemoryPort::frames(64, 2_048);
        Worker::new(vec![MemoryPort::new(32)], pool, stage, Idle::Busy, Arc::default())
    };
    for mut worker in [worker_of(0), worker_of(1)] {
        worker.turn().unwrap();
        (60..80).for_each(|length| worker.ports_mut()[0].inject(&vec![2; length]));
        worker.turn().unwrap();
        worker.ports_mut()[0].drain_tx(usize::MAX);
        let lengths: Vec<usize> = worker.ports_mut()[0].take_sent().iter().map(Vec::len).collect();
        assert_eq!(lengths, (61..70).chain(71..80).collect::<Vec<_>>());
        worker.check_frames().unwrap();
    }
    assert_eq!(counters.sums()["caught"], 4, "two in each of two workers");
}

#[test]
fn pipeline_says_where_it_stands() {
    let text = format!("{ALL}[bounce]\n[sieve]\nevery = 10\n[[filter]]\nname = 'all'\naction = 'count'\n");
    assert_eq!(stages(&parse(&text).unwrap()), ["filter", "sieve", "bounce"]);
    let order = "[pipeline]\nstages = ['sieve', 'filter', 'bounce']\n";
    assert_eq!(stages(&parse(&format!("{text}{order}")).unwrap()), ["sieve", "filter", "bounce"]);
}

#[test]
fn what_it_is_for_leaves_the_kernel_if_it_is_in_the_pipeline() {
    let section = "[sieve]\nevery = 10\naddress = \"198.18.0.2:7\"\n";
    let plan = parse(section).unwrap();
    assert_eq!(plan.steered, [SteeredService::udp("198.18.0.2:7".parse().unwrap())]);
    assert_eq!(plan.warnings, []);
    assert!(!plan.steering().all && plan.steering().services.len() == 1);

    let unused = parse(&format!("{ALL}{section}[bounce]\n[pipeline]\nstages = ['bounce']\n")).unwrap();
    assert_eq!(unused.steered, []);
    assert!(unused.warnings[0].message.contains("`[sieve]` is not used"), "{:?}", unused.warnings);

    let nothing = parse("[sieve]\nevery = 10\n").unwrap();
    assert!(nothing.warnings[0].message.contains("no packet reaches `sieve`"), "{:?}", nothing.warnings);
}

#[test]
fn what_is_wrong_with_its_section_is_told_with_the_place() {
    let shown = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(
        shown("[bounce]\n[sieve]\nevery = 0\n"),
        "\
error: `[sieve]`: no length is a multiple of 0
 --> lb.toml:3:9
  |
3 | every = 0
  |         ^ must be 1 or more
  |
  = help: leave the section out to drop nothing"
    );
    for (text, place, message) in [
        ("[sieve]\nevery = 'x'\n", (2, 9), "`[sieve]`: invalid type: string \"x\", expected usize"),
        (
            "[sieve]\nevery = 1\nevry = 2\n",
            (3, 1),
            "`[sieve]`: unknown field `evry`, expected `every` or `address`",
        ),
        ("[bounce]\n[sieve]\n", (2, 1), "`[sieve]`: missing field `every`"),
        ("[sieve]\nevery = 1\naddress = '198.18.0.2'\n", (3, 11), "`[sieve]`: invalid socket address syntax"),
        ("[[sieve]]\nevery = 1\n", (1, 1), "`sieve` must be a table"),
        ("[bounce]\n[pipeline]\nstages = ['bounce', 'sieve']\n", (3, 21), "the stage `sieve` has no section"),
        ("[bounce]\n[pipeline]\nstages = ['seive']\n", (3, 11), "unknown value `seive` for `stages`"),
        ("[bounce]\n[seive]\n", (2, 2), "unknown section `seive`"),
    ] {
        let error = parse(text).unwrap_err();
        let found: Vec<_> =
            error.diagnostics().iter().map(|d| ((d.line, d.column), &d.message[..])).collect();
        assert_eq!(found, [(place, message)], "{text}");
    }
}

#[test]
fn without_registration_its_section_is_unknown() {
    let error = xfwd::config::parse("lb.toml", "[bounce]\n[sieve]\nevery = 1\n").unwrap_err();
    assert!(error.to_string().contains("unknown section `sieve`"), "{error}");
}

#[test]
#[should_panic(expected = "the name `service` is taken")]
fn a_section_that_ships_cannot_be_taken() {
    let _ = Registry::new().stage("service", |_: Settings| Err(SectionError::new("")));
}

#[test]
fn plans_with_different_sections_differ() {
    let plan = |every| parse(&format!("{ALL}[bounce]\n[sieve]\nevery = {every}\n")).unwrap();
    assert_eq!(plan(3), plan(3));
    assert_ne!(plan(3), plan(4));
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles.

#[test]
fn handles_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Runner>();
    is_send::<Running>();
    is_send::<xfwd::kernel::xdp::XdpProgram>();
    is_send::<StageCounter>();
    is_send::<xfwd::Pipeline>();
    is_shared::<Running>();
    is_shared::<Registry>();
    is_shared::<StageFactory>();
    is_shared::<Counters>();
    is_shared::<WorkerContext>();
    is_shared::<xfwd::DenyList>();
    is_shared::<xfwd::Plan>();
    is_shared::<xfwd::Snapshot>();
    is_shared::<xfwd::Event>();
    is_shared::<xfwd::Rule>();
    is_shared::<SteeredService>();
    // As `Box<dyn Error + Send + Sync>` and `anyhow` need them.
    is_shared::<xfwd::StartError>();
    is_shared::<xfwd::RunError>();
    is_shared::<xfwd::runtime::ReloadError>();
    is_shared::<ConfigError>();
    is_shared::<xfwd::kernel::xdp::XdpError>();
    is_shared::<xfwd::kernel::deny::DenyError>();
}

#[test]
fn what_cannot_run_is_refused_before_anything_is_touched() {
    let error = |runner: Runner| runner.start().err().unwrap().to_string();
    assert_eq!(error(Runner::new()), "no interface was named");
    assert_eq!(
        error(Runner::new().interface("eth0").queues(0)),
        "0 queues were asked for; at least 1 is needed"
    );
    let mut dataplane = xfwd::Dataplane::default();
    dataplane.ring_size = 1_000;
    assert_eq!(
        error(Runner::new().dataplane(dataplane.clone())),
        "ring_size is 1000: it must be a power of two from 64 to 32768"
    );
    (dataplane.ring_size, dataplane.frames_per_queue) = (4_096, 8_192);
    assert_eq!(
        error(Runner::new().dataplane(dataplane)),
        "frames_per_queue is 8192: it must be a power of two from 1024 to 1048576, and at least four times ring_size, \
         which is 4096"
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// What is said about it.

#[test]
fn the_oldest_rust_is_said_to_be_the_one_that_cargo_asks_for() {
    let said =
        format!("The oldest Rust that builds it is {} (`rust-version`)", env!("CARGO_PKG_RUST_VERSION"));
    assert!(include_str!("../src/lib.rs").contains(&said), "{said}");
}
