//! `xfwd check CONFIG`: is it right, and what would it do?

use std::path::Path;
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};

use super::WRONG_INPUT;
use super::output::{print, say};
use crate::config::{self, Plan};
use crate::stages::filter::fields::{FIELDS, GENERAL};

pub(super) fn check(explain_fields: bool, path: Option<&Path>) -> ExitCode {
    if explain_fields {
        print(explanation());
    }
    let Some(path) = path else { return ExitCode::SUCCESS };
    match config::load(path) {
        Ok(plan) => {
            for warning in &plan.warnings {
                say(warning);
            }
            describe(&plan).iter().for_each(print);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(error);
            ExitCode::from(WRONG_INPUT)
        }
    }
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

/// What the plan does, a line each.
pub(super) fn describe(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan.filter.iter().map(|rule| format!("filter {rule}")).collect();
    for service in &plan.services {
        let total: u64 = service.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        let backends: Vec<String> = service
            .backends
            .iter()
            .map(|backend| {
                let share = 100.0 * f64::from(backend.weight) / total as f64;
                format!("{} {share:.1} %", backend.address)
            })
            .collect();
        lines.push(format!(
            "service {}: {} {} port {} by {} to {}",
            service.name,
            service.protocol,
            service.vip,
            service.port,
            service.forward,
            backends.join(", ")
        ));
    }
    if let Some(bounce) = &plan.bounce {
        lines.push(format!("bounce: {}", bounce.layer));
    }
    let stages: Vec<String> = plan.stages.iter().map(ToString::to_string).collect();
    lines.push(format!("stages: {}", stages.join(" > ")));
    let steering = plan.steering();
    lines.push(if steering.all {
        "leaves the kernel: everything but ARP, neighbour discovery and what is addressed to this host"
            .to_owned()
    } else {
        "leaves the kernel: packets of the services; everything else goes to the host's network stack"
            .to_owned()
    });
    lines
}
