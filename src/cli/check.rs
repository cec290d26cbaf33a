//! `xfwd check CONFIG`: is it right, and what would it do?

use std::path::Path;
use std::process::ExitCode;

use super::WRONG_INPUT;
use super::output::{print, say, say_error};
use crate::config::{self, ConfigError, Plan};

pub(super) fn check(path: &Path) -> ExitCode {
    match config::load(path) {
        Ok(plan) => {
            for warning in &plan.warnings {
                say(warning);
            }
            print(describe(&plan).join("\n"))
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

/// What the plan does, a line each.
pub(super) fn describe(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
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
