//! The whole file: its sections together, and what follows from them.

use std::net::IpAddr;

use serde::Serialize;
use toml::Spanned;
use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::pipeline::NOT_BUILT;
use super::reader::{Reader, Section};
use super::{Bounce, Dataplane, Protocol, Service, StageKind, Steer, bounce, dataplane, pipeline, service};

/// A config that has been found valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// How packets are moved.
    pub dataplane: Dataplane,
    /// What is balanced, in the order of the file.
    pub services: Vec<Service>,
    /// How packets are bounced, if that has a section.
    pub bounce: Option<Bounce>,
    /// The stages a packet passes, in this order; one at least, each once.
    pub stages: Vec<StageKind>,
    /// What can be used but was probably not meant, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Which packets leave the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SteeringPlan {
    /// All but ARP, neighbour discovery and what is addressed to the host.
    pub all: bool,
    /// Address, protocol and port of each service that packets leave the kernel for.
    pub services: Vec<(IpAddr, Protocol, u16)>,
}

impl Plan {
    /// Which packets leave the kernel: those of the services, or all. Everything else is left to the host, so
    /// that the machine stays reachable. Services whose stage is not in the pipeline are left to the host,
    /// too.
    pub fn steering(&self) -> SteeringPlan {
        let balanced = self.stages.contains(&StageKind::Balance);
        let services = self.services.iter().filter(|_| balanced);
        SteeringPlan {
            all: self.dataplane.steer == Steer::All,
            services: services.map(|service| (service.vip, service.protocol, service.port)).collect(),
        }
    }
}

const SECTIONS: &[&str] = &["dataplane", "service", "bounce", "pipeline"];
const SECTIONS_AND_PLANNED: &[&str] = &["dataplane", "service", "bounce", "pipeline", NOT_BUILT];

/// Reads a whole file; what is wrong with it in the order of the file.
pub(super) fn read(file: &str, text: &str) -> Result<Plan, Vec<Diagnostic>> {
    let mut reader = Reader::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What could be read of a broken file would give errors that are none.
        for error in errors {
            let message = error.message().trim_end_matches(", expected nothing").to_owned();
            reader.error(error.span().unwrap_or_default(), message);
        }
        return Err(reader.finish().unwrap_or_else(|diagnostics| diagnostics));
    }
    // A table that is planned is known for now only to be told apart from a misspelling.
    let table = document.get_ref();
    let known = if table.contains_key(NOT_BUILT) { SECTIONS_AND_PLANNED } else { SECTIONS };
    let root = Section::open(&mut reader, "", table, 0..0, known);
    if let Some(planned) = root.value(NOT_BUILT) {
        reader.error(planned.span(), "`[filter]` is not built yet").label("remove it");
    }
    let dataplane = dataplane::read(&root, &mut reader);
    let services = service::read(&root, &mut reader);
    let bounce = bounce::read(&root, &mut reader);
    let stages = pipeline::read(&root, &mut reader);
    if let Some(section) =
        bounce.as_ref().filter(|_| dataplane.steer == Steer::Services && !root.has("service"))
    {
        reader
            .warning(section.span(), "no packet reaches `bounce`")
            .label("all packets are left to the host")
            .help("set `steer = \"all\"` in `[dataplane]`, or add `[[service]]`");
    }
    let bounce = bounce.map(Spanned::into_inner);
    let warnings = reader.finish()?;
    Ok(Plan { dataplane, services, bounce, stages, warnings })
}
