//! What is public stands in `docs/public-api.txt`, so that a change of it is seen when it is read. After a change that is meant:
//!
//! ```text
//! XFWD_UPDATE_PUBLIC_API=1 cargo test --test public_api
//! ```
//!
//! Compilers write the same API in different ways, so only that of `rust-version` is asked; under another one the test is
//! skipped and says so.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const HEAD: &str = "\
# The public API of the library with its default features, but for what is derived and what every type has.
# Written by `XFWD_UPDATE_PUBLIC_API=1 cargo test --test public_api`.
";

/// Whether this compiler is the oldest that is promised.
fn is_oldest_compiler() -> bool {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    version.starts_with(&format!("rustc {}.", env!("CARGO_PKG_RUST_VERSION")))
}

fn public_api() -> String {
    let (root, target) = (Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let target = target.parent().unwrap();
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .env("RUSTDOC", root.join("scripts/rustdoc-json"))
        .args(["rustdoc", "--quiet", "--package", "xfwd", "--lib", "--locked", "--offline", "--target-dir"])
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .status()
        .unwrap();
    assert!(status.success(), "rustdoc failed");
    let api = public_api::Builder::from_rustdoc_json(target.join("doc/xfwd.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap();
    let mut text = HEAD.to_owned();
    for item in api.items() {
        writeln!(text, "{item}").unwrap();
    }
    text
}

#[test]
fn the_public_api_is_the_one_that_was_agreed_to() {
    if !is_oldest_compiler() {
        xfwd_netns::skip(
            "the_public_api_is_the_one_that_was_agreed_to",
            &"rustc is not the one of `rust-version`",
        );
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/public-api.txt");
    let now = public_api();
    if std::env::var_os("XFWD_UPDATE_PUBLIC_API").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let agreed = std::fs::read_to_string(&file).unwrap_or_default();
    let lines = |text: &'static str| text.lines().collect::<BTreeSet<_>>();
    let (before, after) = (lines(agreed.leak()), lines(now.leak()));
    let gone: Vec<_> = before.difference(&after).map(|line| format!("- {line}")).collect();
    let new: Vec<_> = after.difference(&before).map(|line| format!("+ {line}")).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "docs/public-api.txt differs:\n{}\n{}\nIf that is meant: XFWD_UPDATE_PUBLIC_API=1 cargo test --test public_api",
        gone.join("\n"),
        new.join("\n")
    );
}
