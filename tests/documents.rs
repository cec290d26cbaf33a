//! What the pages say of the repository is so: links lead somewhere, what is included is there, every page is in the guide, and messages that
//! are explained are still said. Nothing of the network is asked.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` with this extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The pages of the guide.
fn guide() -> Vec<PathBuf> {
    let folder = root().join("docs");
    // The tools of `scripts/guide` lie in a folder of their own.
    files(&folder, "md").into_iter().filter(|page| page.parent() == Some(&folder)).collect()
}

fn pages() -> Vec<PathBuf> {
    let others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name));
    others.into_iter().chain(guide()).collect()
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!fence && !in_code).then_some((number + 1, line))
    })
}

/// A line without its code spans.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Targets of the links in a line.
fn links(line: &str) -> Vec<String> {
    let line = without_code(line);
    line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The names by which GitHub and mdbook know the headings of a page.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
    });
    let name = |title: &str| {
        let kept = title.trim().chars().filter(|one| one.is_alphanumeric() || " -_".contains(*one));
        kept.map(|one| if one == ' ' { '-' } else { one }).collect::<String>().to_lowercase()
    };
    let names = headings.map(|title| {
        let name = name(title);
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name } else { format!("{name}-{}", *count - 1) }
    });
    names.collect()
}

fn show(page: &Path) -> String {
    page.strip_prefix(root()).unwrap_or(page).display().to_string()
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in prose(&text) {
            for link in links(line).into_iter().filter(|link| !link.contains("://")) {
                count += 1;
                let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
                let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
                let is_there = target.exists()
                    && (anchor.is_empty()
                        || anchors(&fs::read_to_string(&target).unwrap()).iter().any(|name| name == anchor));
                if !is_there {
                    wrong.push(format!("{}:{number}: {link}", show(&page)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these lead nowhere:\n{}", wrong.join("\n"));
    assert!(count > 50, "{count}");
}

#[test]
fn every_page_is_in_the_guide() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let named: Vec<String> = summary.lines().flat_map(links).collect();
    for page in guide() {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            name == "SUMMARY.md" || named.iter().any(|link| link == name),
            "docs/SUMMARY.md lacks {name}"
        );
    }
}

#[test]
fn what_pages_include_is_there() {
    let mut count = 0;
    for page in guide() {
        let text = fs::read_to_string(&page).unwrap();
        for include in text.split("{{#include ").skip(1).map(|rest| rest.split_once("}}").unwrap().0) {
            count += 1;
            let (path, anchor) = include.split_once(':').unwrap_or((include, ""));
            let included = fs::read_to_string(page.parent().unwrap().join(path));
            let included = included.unwrap_or_else(|error| panic!("{}: {path}: {error}", show(&page)));
            for mark in ["ANCHOR", "ANCHOR_END"] {
                let has = |line: &str| {
                    let words = line.trim_end_matches("-->").trim_end();
                    words.ends_with(&format!(" {mark}: {anchor}"))
                };
                assert!(
                    anchor.is_empty() || included.lines().any(has),
                    "{}: {path} has no {mark}: {anchor}",
                    show(&page)
                );
            }
        }
    }
    assert!(count > 5, "{count}");
}

/// The sources as one text in which messages stand as they are said, but for what is filled in.
fn said() -> String {
    let folders = ["src", "ebpf/types/src"].map(|folder| root().join(folder));
    let sources = folders.iter().flat_map(|folder| files(folder, "rs"));
    let text: String = sources.map(|file| fs::read_to_string(file).unwrap()).collect();
    // A `\` at the end of a line joins it with the next one.
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start()).replace(['`'], "")
}

#[test]
fn messages_and_counters_that_are_explained_are_still_said() {
    let (page, said) = (fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap(), said());
    let (mut gone, mut count) = (Vec::new(), 0);
    for (number, line) in prose(&page) {
        let first_cell =
            line.strip_prefix("| ").and_then(|row| row.split_once(" |")).map_or("", |(cell, _)| cell);
        let with_gaps = code_spans(line).filter(|span| span.contains('…'));
        for message in code_spans(first_cell).chain(with_gaps) {
            count += 1;
            let parts = message.split('…').map(str::trim);
            gone.extend(parts.filter(|part| !said.contains(part)).map(|part| format!("{number}: {part}")));
        }
    }
    assert!(gone.is_empty(), "docs/troubleshooting.md explains what is not said:\n{}", gone.join("\n"));
    assert!(count > 50, "{count}");
}

#[test]
fn files_that_pages_name_are_there() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in guide() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in prose(&text) {
            for span in code_spans(line) {
                let path = Path::new(span);
                let is_ours = ["src", "tests", "docs", "examples", "scripts", "ebpf", "netns", "benches"]
                    .iter()
                    .any(|folder| path.components().next() == Some(Component::Normal(folder.as_ref())))
                    && span.contains('/')
                    && !span.contains([' ', '*', '{', '…']);
                if is_ours {
                    count += 1;
                    if !root().join(path).exists() {
                        wrong.push(format!("{}:{number}: {span}", show(&page)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these are not there:\n{}", wrong.join("\n"));
    assert!(count > 30, "{count}");
}
