//! `xfwd check CONFIG`: is it right, and what would it do?

use std::path::Path;
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};

use super::WRONG_INPUT;
use super::output::{print, say, say_error};
use super::services;
use crate::config::{ConfigError, Plan, Registry};
use crate::kernel::filter::{KernelPlan, Place};
use crate::runtime;
use crate::stages::balance::Services;
use crate::stages::filter::fields::{FIELDS, GENERAL};
use crate::stages::filter::{FragmentKind, Match, Prefix, Rule};

pub(super) fn check(explain_fields: bool, path: Option<&Path>, registry: &Registry) -> ExitCode {
    if explain_fields {
        print(explanation());
    }
    let Some(path) = path else { return ExitCode::SUCCESS };
    match registry.load(path) {
        Ok(plan) => {
            let kernel = match runtime::kernel_plan(&plan) {
                Ok(kernel) => kernel,
                Err(error) => {
                    say(format!("error: {}: filter: {error}", path.display()));
                    return ExitCode::from(WRONG_INPUT);
                }
            };
            for warning in &plan.warnings {
                say(warning);
            }
            unseen(&plan, &kernel).iter().for_each(say);
            let mut lines = rules(&plan, &kernel);
            lines.extend(describe(&plan, usize::MAX));
            print(lines.join("\n"))
        }
        Err(error) => refuse(&error),
    }
}

/// Says why a config cannot be used.
pub(super) fn refuse(error: &ConfigError) -> ExitCode {
    match error {
        // Each of its diagnostics begins with `error:`.
        ConfigError::Invalid(_) => say(error),
        _ => say_error(error),
    }
    ExitCode::from(WRONG_INPUT)
}

/// Every key of a filter rule.
fn explanation() -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["key", "holds", "meaning"]);
    // Wide enough for prose, also where there is no terminal to ask for its width.
    table.set_width(table.width().unwrap_or(120).clamp(80, 120));
    for field in FIELDS {
        table.add_row([field.key, field.holds, field.meaning]);
    }
    format!("{GENERAL}\n\n{table}")
}

/// Each rule, and where it runs.
fn rules(plan: &Plan, kernel: &KernelPlan) -> Vec<String> {
    let line = |(rule, place): (&Rule, &Place)| format!("filter {rule}\n    runs in {place}");
    plan.filter.iter().zip(&kernel.places).map(line).collect()
}

/// Warnings about rules that run in the worker and may match packets that never get there.
fn unseen(plan: &Plan, kernel: &KernelPlan) -> Vec<String> {
    let steering = plan.steering();
    if steering.everything {
        return Vec::new();
    }
    let services = steering.services.iter().cloned();
    let steered = Services::new(services.map(|(vip, protocol, ports)| (vip, protocol.number(), ports)));
    let rules = plan
        .filter
        .iter()
        .zip(&kernel.places)
        .filter(|(rule, place)| place.is_worker() && !only_steered(&rule.matches, &steered));
    rules
        .map(|(rule, _)| {
            let kept = if steering.all {
                "packets addressed to this host are left to it and"
            } else if steering.services.is_empty() {
                "no packet leaves the kernel: all"
            } else {
                "packets that are not of a service are left to the host and"
            };
            format!("warning: rule `{}` runs in the worker: {kept} go past it unseen", rule.name)
        })
        .collect()
}

/// Whether all that a match holds for is steered to a worker, since it is of a service.
fn only_steered(matches: &Match, services: &Services) -> bool {
    let is_service =
        |prefix: &Prefix, protocol, port| services.find(&prefix.mapped().0, protocol, port).is_some();
    let Match { dst, protocol, dst_port, fragment, .. } = matches;
    let is_some = !dst.is_empty() && !protocol.is_empty() && !dst_port.is_empty();
    // Fragments are left to the host even if they are a service's, so are malformed packets.
    is_some
        && *fragment == Some(FragmentKind::No)
        && matches.malformed == Some(false)
        && dst.iter().all(|prefix| {
            Prefix::new(prefix.address(), 128) == *prefix
                && protocol.iter().all(|&protocol| {
                    // Each port is looked for, so a range stops at the first that is none.
                    dst_port.iter().cloned().flatten().all(|port| is_service(prefix, protocol, port))
                })
        })
}

/// More services than these are also counted.
const COUNTED_SERVICES: usize = 8;

/// What the plan does, a line each. More services than `most_services` are only counted.
pub(super) fn describe(plan: &Plan, most_services: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(file) = &plan.deny_file {
        lines.push(format!("deny list: {}, followed while running", file.display()));
    }
    if plan.services.len() <= most_services {
        lines.extend(plan.services.iter().flat_map(services::describe));
    }
    if plan.services.len() > most_services.min(COUNTED_SERVICES) {
        let backends: usize = plan.services.iter().map(|service| service.backends.len()).sum();
        lines.push(format!("services: {}, with {} backends", plan.services.len(), backends));
    }
    if !plan.services.is_empty() {
        lines.extend(services::describe_settings(&plan.balance));
    }
    lines.extend(plan.nat.as_ref().map(services::describe_nat));
    if let Some(bounce) = &plan.bounce {
        lines.push(format!("bounce: {}", bounce.layer));
    }
    let stages: Vec<String> = plan.stages.iter().map(ToString::to_string).collect();
    if !stages.is_empty() {
        lines.push(format!("stages: {}", stages.join(" > ")));
    }
    let steering = plan.steering();
    lines.push(if steering.everything {
        "leaves the kernel: everything, ARP and what is addressed to this host included: it cannot be reached by these \
         interfaces"
            .to_owned()
    } else if steering.all {
        "leaves the kernel: everything but ARP, neighbour discovery and what is addressed to this host"
            .to_owned()
    } else if steering.services.is_empty() {
        "leaves the kernel: nothing; what is not dropped goes to the host's network stack".to_owned()
    } else {
        "leaves the kernel: packets of the services; everything else goes to the host's network stack"
            .to_owned()
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_everything_is_told_that_the_host_will_not_be_reached() {
        let of = |steer: &str| {
            let text = format!(
                "[dataplane]\nsteer = '{steer}'\n[bounce]\n[[filter]]\nname = 'slow'\nrate = '1 pps'\naction = 'drop'\n"
            );
            let plan = crate::config::parse("lb.toml", &text).unwrap();
            let kernel = runtime::kernel_plan(&plan).unwrap();
            (describe(&plan, 0).pop().unwrap(), unseen(&plan, &kernel).len())
        };
        let (said, unseen) = of("everything");
        assert!(
            said.starts_with("leaves the kernel: everything, ARP") && said.contains("cannot be reached"),
            "{said}"
        );
        assert_eq!(unseen, 0, "every packet gets to the worker");
        let (said, unseen) = of("all");
        assert!(said.starts_with("leaves the kernel: everything but ARP"), "{said}");
        assert_eq!(unseen, 1);
    }
}
