//! The table of `README.md` and the picture beside it, from a report: `scripts/bench --readme`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{CaseReport, ContestantReport, Report, markdown};

/// Around what is written here; the text beyond is people's.
const BEGIN: &str = "<!-- Written by `scripts/bench --readme` -->\n";
const END: &str = "<!-- Until here -->\n";
/// The picture, and where it goes.
const PICTURE: &str = "throughput.svg";
const PICTURES: &str = "docs/images";

/// A row of the table: a case, and who stands in which column.
struct Row {
    label: &'static str,
    case: &'static str,
    xfwd: &'static str,
    bare: Option<&'static str>,
    testpmd: Option<&'static str>,
    /// Subject, and what the table calls it.
    kernel: &'static [(&'static str, &'static str)],
}

const BARE: Option<&str> = Some("bare xsk-rs loop");
const TWO_LINES: (&str, &str) = ("XDP_DROP", "two-line XDP_DROP");

const ROWS: [Row; 6] = [
    Row {
        label: "receive and drop in user space",
        case: "receive",
        xfwd: "xfwd",
        bare: BARE,
        testpmd: Some("testpmd rxonly"),
        kernel: &[],
    },
    Row {
        label: "bounce",
        case: "bounce",
        xfwd: "xfwd",
        bare: BARE,
        testpmd: Some("testpmd macswap"),
        kernel: &[("XDP_TX", "two-line XDP_TX")],
    },
    Row {
        label: "bounce without loss (< 0.01 %)",
        case: "loss-free",
        xfwd: "xfwd",
        bare: BARE,
        testpmd: Some("testpmd macswap"),
        kernel: &[("XDP_TX", "two-line XDP_TX")],
    },
    Row {
        label: "from one port to another (xfwd: balanced)",
        case: "forward",
        xfwd: "xfwd",
        bare: None,
        testpmd: Some("testpmd io"),
        kernel: &[("Linux routing", "routing"), ("Linux bridge", "bridge")],
    },
    Row {
        label: "dropped in the kernel by a rule",
        case: "drop-empty",
        xfwd: "xfwd",
        bare: None,
        testpmd: None,
        kernel: &[TWO_LINES, ("xdp-filter", "xdp-filter"), ("nftables", "nftables")],
    },
    Row {
        label: "… by a deny list of 100,000 addresses",
        case: "drop-100000",
        xfwd: "xfwd [deny]",
        bare: None,
        testpmd: None,
        kernel: &[TWO_LINES, ("nftables", "nftables")],
    },
];

/// Writes the report's table into `README.md` of the repository at `root`, and copies the picture there from the report's folder.
///
/// # Errors
///
/// If the report lacks one of the table's cases or contestants, or a file cannot be read or written. Nothing is written then.
pub fn write(report: &Report, folder: &Path, root: &Path) -> Result<()> {
    let path = root.join("README.md");
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replace(&page, &block(report)?)?;
    let (picture, copy) = (folder.join(PICTURE), root.join(PICTURES).join(PICTURE));
    fs::copy(&picture, &copy)
        .with_context(|| format!("cannot copy {} to {}", picture.display(), copy.display()))?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// The page with `block` between the marks.
fn replace(page: &str, block: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("README.md has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("README.md has no line {END}"))?;
    Ok(format!("{before}{BEGIN}{block}{END}{after}"))
}

/// What stands between the marks.
fn block(report: &Report) -> Result<String> {
    ensure!(report.complete, "the run was interrupted: README.md wants a whole one");
    let mut rounds = Vec::new();
    for row in &ROWS {
        rounds.push(contestant(find(report, row.case)?, row.xfwd)?.spread.runs.len());
    }
    let (fewest, most) = (rounds.iter().min().unwrap_or(&0), rounds.iter().max().unwrap_or(&0));
    let rounds = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
    let mut text = format!(
        "`scripts/bench` runs xfwd and its peers in turn, in the same network of namespaces on your machine. These are the medians of {rounds} \
         rounds of {} on {}: 64 byte UDP frames (with FCS) on one queue of a veth pair, AF_XDP in {} mode, the generator on a core of its own. \
         Rates are that machine's; ratios, each the median of those of the rounds, are what to compare.\n\n",
        markdown::command(report),
        markdown::origin(report),
        report.machine.mode,
    );
    text.push_str("| million packets a second | xfwd | bare xsk-rs loop | DPDK testpmd (af_xdp) | in the kernel |\n|---|--:|--:|--:|--:|\n");
    for row in &ROWS {
        let case = find(report, row.case)?;
        let peer = |subject: Option<&str>| {
            subject.map_or(Ok(String::new()), |subject| {
                let (result, ratio) = (contestant(case, subject)?, ratio(case, row.xfwd, subject)?);
                Ok::<_, anyhow::Error>(format!("{} (xfwd {ratio:.2} times)", millions(result)))
            })
        };
        let kernel: Result<Vec<String>> = row
            .kernel
            .iter()
            .map(|(subject, name)| Ok(format!("{name} {}", millions(contestant(case, subject)?))))
            .collect();
        let _ = writeln!(
            text,
            "| {} | **{}** | {} | {} | {} |",
            row.label,
            millions(contestant(case, row.xfwd)?),
            peer(row.bare)?,
            peer(row.testpmd)?,
            kernel?.join(", ")
        );
    }
    Ok(text)
}

fn find<'a>(report: &'a Report, name: &str) -> Result<&'a CaseReport> {
    let found = report.cases.iter().find(|case| case.name == name);
    found.with_context(|| format!("the report has no case {name}: README.md wants a whole run"))
}

fn contestant<'a>(case: &'a CaseReport, subject: &str) -> Result<&'a ContestantReport> {
    let found = case.results.iter().find(|result| result.subject == subject);
    found.with_context(|| {
        let absent = case.missing.iter().find(|absent| absent.subject == subject);
        let reason = absent.map_or("it takes no part", |absent| absent.reason.as_str());
        format!("{}: {subject} has no figure ({reason}); README.md wants all of them", case.name)
    })
}

/// By how much `xfwd`, the first of its case here, is faster.
fn ratio(case: &CaseReport, xfwd: &str, subject: &str) -> Result<f64> {
    let first = case.results.first().is_some_and(|first| first.subject == xfwd);
    let ratio = case.ratios.iter().find(|ratio| first && ratio.to == subject);
    Ok(ratio.with_context(|| format!("{}: no ratio of {xfwd} to {subject}", case.name))?.spread.median)
}

fn millions(result: &ContestantReport) -> String {
    let millions = result.spread.median / 1e6;
    if millions < 3.0 { format!("{millions:.2}") } else { format!("{millions:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{case, report};

    const README: &str = include_str!("../../../../README.md");

    fn whole() -> Report {
        let of = |row: &Row| {
            let peers =
                row.bare.iter().chain(&row.testpmd).copied().chain(row.kernel.iter().map(|peer| peer.0));
            let subjects: Vec<&str> = std::iter::once(row.xfwd).chain(peers).collect();
            case(row.case, &subjects)
        };
        report(ROWS.iter().map(of).collect())
    }

    /// A line with `#` for each number.
    fn shape(line: &str) -> String {
        let mut shape = String::new();
        for letter in line.chars() {
            match letter {
                '0'..='9' | '.' if shape.ends_with('#') => {}
                '0'..='9' => shape.push('#'),
                other => shape.push(other),
            }
        }
        shape
    }

    #[test]
    fn the_table_of_the_readme_is_one_that_is_written_here() {
        let (_, rest) = README.split_once(BEGIN).unwrap();
        let (block_there, _) = rest.split_once(END).unwrap();
        let table = |block: &str| -> Vec<String> {
            block.lines().filter(|line| line.starts_with('|')).map(shape).collect()
        };
        assert_eq!(table(block_there), table(&block(&whole()).unwrap()));
        let said = block_there.lines().next().unwrap();
        for part in ["`scripts/bench", " cores", "Linux ", "commit `", "20"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
    }

    #[test]
    fn a_new_block_takes_the_place_of_the_old_one_and_of_nothing_else() {
        let page = format!("before\n{BEGIN}old\n{END}\nafter\n");
        let expected = format!("before\n{BEGIN}new\n{END}\nafter\n");
        assert_eq!(replace(&page, "new\n").unwrap(), expected);
        assert!(replace("nothing", "new\n").is_err());
    }

    #[test]
    fn a_report_that_lacks_a_contestant_is_refused_with_its_name() {
        let mut lacking = whole();
        lacking.cases[0].results.retain(|result| result.subject != "testpmd rxonly");
        let error = block(&lacking).unwrap_err().to_string();
        assert!(error.contains("receive: testpmd rxonly has no figure"), "{error}");
        lacking.cases.remove(0);
        assert!(block(&lacking).unwrap_err().to_string().contains("no case receive"));
        let interrupted = Report { complete: false, ..whole() };
        assert!(block(&interrupted).is_err());
    }
}
