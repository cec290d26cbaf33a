//! The tables at the end of a run.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use console::Term;

use super::output::count;
use super::services::percent;
use crate::runtime::Snapshot;
use crate::stages::balance::BackendCounters;
use crate::stages::filter::RuleCounters;

/// Everything that was counted, as tables.
pub(super) fn tables(snapshot: &Snapshot) -> String {
    let totals = &snapshot.totals;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:.1} s: {} packets, {} bytes received\n{} bounced, {} forwarded, {} dropped; {} sent; {} lost before the workers",
        snapshot.seconds,
        count(totals.packets),
        count(totals.bytes),
        count(totals.verdicts.bounce),
        count(totals.verdicts.forward),
        count(totals.verdicts.drop),
        count(totals.sent),
        count(totals.lost),
    );
    let tables = [
        queues(snapshot),
        causes(snapshot),
        rules(snapshot),
        balance(snapshot),
        backends(snapshot),
        counters(snapshot),
    ];
    for table in tables.into_iter().flatten() {
        let _ = write!(text, "\n{table}");
        text.push('\n');
    }
    text.trim_end().to_owned()
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    // On a terminal a table is as wide as that; in a file it is as wide as it needs to be.
    if let Some((_, columns)) = Term::stdout().size_checked() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    }
    table.set_header(header.iter().copied());
    table
}

/// Numbers stand to the right, from column `first` on.
fn numbers_from(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn queues(snapshot: &Snapshot) -> Option<Table> {
    let mut table = table(&[
        "queue",
        "mode",
        "core",
        "received",
        "bounced",
        "forwarded",
        "dropped",
        "sent",
        "kicks",
        "lost: ring full",
        "other",
        "fill ring empty",
    ]);
    for queue in &snapshot.queues {
        let row = &snapshot.workers[queue.worker];
        let counters = &row.counters;
        table.add_row([
            format!("{}:{}", queue.report.interface, queue.report.queue),
            queue.report.mode.to_string(),
            row.core.map_or("any".to_owned(), |core| core.to_string()),
            count(counters.rx_packets),
            count(counters.bounced),
            count(counters.forwarded),
            count(counters.dropped_total()),
            count(counters.tx_completed),
            count(counters.tx_kicks),
            count(queue.shed + queue.statistics.rx_ring_full),
            count(queue.statistics.rx_dropped),
            count(queue.statistics.rx_fill_ring_empty_descs),
        ]);
    }
    numbers_from(&mut table, 2);
    Some(table)
}

/// Where packets went, by reason: in the XDP program and in the workers.
fn causes(snapshot: &Snapshot) -> Option<Table> {
    let mut table = table(&["where", "what", "packets"]);
    for interface in &snapshot.interfaces {
        for (cause, packets) in &interface.causes {
            table.add_row([format!("XDP on {}", interface.name), (*cause).to_owned(), count(*packets)]);
        }
    }
    for row in &snapshot.workers {
        for (reason, packets) in &row.counters.dropped {
            table.add_row([format!("worker {}", row.worker), format!("dropped-{reason}"), count(*packets)]);
        }
    }
    numbers_from(&mut table, 2);
    (table.row_count() > 0).then_some(table)
}

/// Of longer lists only rules that acted on a packet are shown.
const ALL_RULES: usize = 50;

fn rules(snapshot: &Snapshot) -> Option<Table> {
    let mut table = table(&["rule", "action", "packets", "bytes"]);
    let is_shown = |rule: &&RuleCounters| snapshot.rules.len() <= ALL_RULES || rule.packets > 0;
    for rule in snapshot.rules.iter().filter(is_shown) {
        table.add_row([rule.name.clone(), rule.action.to_string(), count(rule.packets), count(rule.bytes)]);
    }
    numbers_from(&mut table, 2);
    (table.row_count() > 0).then_some(table)
}

/// What was counted of balancing besides backends; what never happened is left out.
fn balance(snapshot: &Snapshot) -> Option<Table> {
    let balance = snapshot.balance.as_ref()?;
    let (connections, fragments) = (&balance.connections, &balance.fragments);
    let (nat, answers) = (&balance.nat, &balance.answers);
    let mut table = table(&["balance", "count"]);
    for (what, number) in [
        ("connection table: entries now", connections.entries),
        ("connection table: flows stored", connections.inserted),
        ("connection table: expired", connections.expired),
        ("connection table: made way, in probation", connections.evicted),
        ("connection table: no room, went by hash alone", connections.refused),
        ("fragments: datagrams stored", fragments.inserted),
        ("fragments: pushed out before their time", fragments.evicted),
        ("fragments: later ones found", fragments.found),
        ("fragments: later ones not found, dropped", fragments.missed),
        ("nat: sessions now", nat.open),
        ("nat: sessions opened", nat.opened),
        ("nat: sessions expired", nat.expired),
        ("nat: sessions closed for others", nat.evicted),
        ("nat: no port free, dropped", nat.exhausted),
        ("nat: replies", nat.replies),
        ("answers: echo replies", answers.echo_replies),
        ("answers: too big", answers.too_big),
        ("answers: time exceeded", answers.time_exceeded),
        ("answers: reset or port unreachable", answers.refused),
        ("answers: not given, too many", answers.suppressed),
    ] {
        if number > 0 {
            table.add_row([what.to_owned(), count(number)]);
        }
    }
    numbers_from(&mut table, 1);
    (table.row_count() > 0).then_some(table)
}

fn backends(snapshot: &Snapshot) -> Option<Table> {
    if snapshot.backends.is_empty() {
        return None;
    }
    let mut table = table(&[
        "service",
        "backend",
        "weight",
        "state",
        "packets",
        "bytes",
        "connections",
        "share of connections",
        "by weight",
    ]);
    // Those of a service stand together.
    for of_service in snapshot.backends.chunk_by(|one, other| one.service == other.service) {
        let connections: u64 = of_service.iter().map(|backend| backend.connections).sum();
        let weights: u64 = of_service.iter().map(share).sum();
        for backend in of_service {
            table.add_row([
                backend.service.clone(),
                backend.address.to_string(),
                backend.weight.to_string(),
                backend.state.to_owned(),
                count(backend.packets),
                count(backend.bytes),
                count(backend.connections),
                percent(backend.connections, connections),
                percent(share(backend), weights),
            ]);
        }
    }
    numbers_from(&mut table, 2);
    Some(table)
}

/// The weight that a backend has for new flows. One without a next hop has its slots of the table.
fn share(backend: &BackendCounters) -> u64 {
    if matches!(backend.state, "up" | "unreachable") { backend.weight.into() } else { 0 }
}

/// What registered stages count.
fn counters(snapshot: &Snapshot) -> Option<Table> {
    let mut table = table(&["counter", "number"]);
    for (name, number) in &snapshot.counters {
        table.add_row([name.clone(), count(*number)]);
    }
    numbers_from(&mut table, 1);
    (table.row_count() > 0).then_some(table)
}
