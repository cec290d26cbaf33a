//! Who embeds the data path alone builds no crate of the command, of HTTP, of an async runtime or of a terminal: asked of cargo, for
//! the features as they are. The lock file and what cargo has fetched are enough, so there is no reason to skip it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Command;

/// Names, and beginnings of names where a `*` ends them.
const COMMAND: &[&str] = &[
    "clap*",
    "argh",
    "lexopt",
    "signal-hook",
    "tracing-subscriber",
    "env_logger",
    "serde_json",
    "indicatif",
];
const TERMINAL: &[&str] = &[
    "console",
    "crossterm*",
    "comfy-table",
    "ratatui*",
    "termion",
    "termcolor",
    "terminal_size",
    "nu-ansi-term",
    "anstream",
    "colorchoice",
    "is-terminal",
    "dialoguer",
    "rustyline",
];
const NETWORK: &[&str] = &[
    "http*",
    "hyper*",
    "h2",
    "h3",
    "axum*",
    "tower*",
    "reqwest",
    "ureq*",
    "tiny_http",
    "tokio*",
    "async-std",
    "smol",
    "mio",
    "futures*",
    "rustls*",
    "native-tls",
    "openssl*",
    "ring",
    "aws-lc*",
    "socket2",
    "webpki*",
];

fn crates(features: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--package", "xfwd", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .args(["--target", "all", "--locked", "--offline", "--no-default-features"])
        .args(features);
    let output = cargo.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{cargo:?}: {stderr}");
    stdout.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn unwanted<'c>(crates: &'c BTreeSet<String>, lists: &[&[&str]]) -> Vec<&'c str> {
    let is_meant = |pattern: &&str, name: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => *pattern == name,
    };
    let is_unwanted = |name: &&String| lists.iter().copied().flatten().any(|pattern| is_meant(pattern, name));
    crates.iter().filter(is_unwanted).map(String::as_str).collect()
}

#[test]
fn the_data_path_alone_has_no_crate_of_the_command_of_http_or_of_a_terminal() {
    let crates = crates(&[]);
    // It was the right question.
    for needed in ["xfwd", "aya", "xsk-rs", "toml"] {
        assert!(crates.contains(needed), "{crates:?}");
    }
    assert_eq!(unwanted(&crates, &[COMMAND, TERMINAL, NETWORK]), [""; 0]);
}

#[test]
fn health_checks_bring_no_crate_of_the_command_and_the_command_none_of_http() {
    assert_eq!(unwanted(&crates(&["--features", "health"]), &[COMMAND, TERMINAL]), [""; 0]);
    assert_eq!(unwanted(&crates(&["--features", "cli"]), &[NETWORK]), [""; 0]);
    // The lists find what is there.
    let health = crates(&["--features", "health"]);
    assert!(unwanted(&health, &[NETWORK]).len() > 5, "{health:?}");
    let command = crates(&["--features", "cli"]);
    assert!(unwanted(&command, &[COMMAND, TERMINAL]).len() > 5, "{command:?}");
}
