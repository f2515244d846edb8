//! Tables and CSV.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, TableStyle, presets};

use crate::{
    compare::{Comparison, Entry, Limit, Outcome, Resource},
    peers::Kind,
};

/// Every peer at one job, the fastest first.
pub(crate) fn entries(comparison: &Comparison) -> String {
    let mut entries: Vec<&Entry> = comparison.entries.iter().collect();
    let rank = |entry: &Entry| entry.least().unwrap_or(f64::INFINITY);
    entries.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let mut table = table(presets::NOTHING);
    for entry in entries {
        let peer = match entry.composed {
            true => format!("{}, composed", entry.peer),
            false => entry.peer.clone(),
        };
        match entry.outcome {
            Outcome::Wrong(error) => {
                table.add_row([peer, format!("WRONG: {error:.1} times the tolerance")])
            }
            Outcome::Right => table.add_row([peer, "right".into()]),
            Outcome::Timed(times) => {
                let limit = comparison.limit.expect("it was timed");
                let share = percent(limit.seconds / times.least);
                table.add_row([peer, seconds(times.least), format!("{share} of the limit")])
            }
        };
    }
    table.to_string()
}

/// What the columns of [`summary`] are.
const COLUMNS: [&str; 11] = [
    "job",
    "shape",
    "sdpa",
    "AVX2",
    "C",
    "best function of another",
    "best composed",
    "ratio",
    "limit",
    "sdpa's share",
    "best other's",
];

/// A line a job.
pub(crate) fn summary(comparisons: &[Comparison]) -> String {
    summary_in(presets::UTF8_FULL_CONDENSED, comparisons)
}

pub(crate) fn summary_in(preset: TableStyle, comparisons: &[Comparison]) -> String {
    let mut table = table(preset);
    table.set_header(COLUMNS);
    for comparison in comparisons {
        let Some(limit) = comparison.limit else { continue };
        let time = |of: Option<f64>| of.map_or_else(String::new, seconds);
        let other = |of: Option<(&str, f64)>| {
            of.map_or_else(String::new, |(peer, time)| format!("{} ({peer})", seconds(time)))
        };
        let ours = comparison.ours(Kind::Ours);
        let best = comparison.best_other().map(|(_, time, _)| time);
        let ratio = ours.zip(best).map(|(ours, best)| ratio(ours / best));
        let share =
            |of: Option<f64>| of.map_or_else(String::new, |time| percent(limit.seconds / time));
        table.add_row([
            comparison.job.group().into(),
            comparison.job.to_string(),
            time(ours),
            time(comparison.ours(Kind::OursOnAvx2)),
            time(comparison.ours(Kind::OursFromC)),
            other(comparison.best(false)),
            other(comparison.best(true)),
            ratio.unwrap_or_default(),
            of_limit(limit),
            share(ours),
            share(best),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Every peer's least time, a line a job, the fastest first.
pub(crate) fn every(preset: TableStyle, comparisons: &[Comparison]) -> String {
    let mut table = table(preset);
    table.set_header(["job", "shape", "the fastest first; * composed"]);
    for Comparison { job, entries, .. } in comparisons {
        let mut times: Vec<(&Entry, f64)> =
            entries.iter().filter_map(|entry| Some((entry, entry.least()?))).collect();
        times.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let times = times.into_iter().map(|(entry, time)| {
            let mark = if entry.composed { "*" } else { "" };
            format!("{}{mark} {}", entry.peer, seconds(time))
        });
        let times: Vec<String> = times.collect();
        table.add_row([job.group(), &job.to_string(), &times.join("; ")]);
    }
    table.to_string()
}

fn of_limit(limit: Limit) -> String {
    let of = match limit.of {
        Resource::MultiplyAdds => "multiply-adds",
        Resource::Loads => "loads",
    };
    format!("{} ({of})", seconds(limit.seconds))
}

pub(crate) fn table(preset: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(preset);
    table
}

/// Every time, a line each.
pub(crate) fn csv(comparisons: &[Comparison]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "job",
        "shape",
        "peer",
        "composed",
        "least_ns",
        "median_ns",
        "limit_ns",
        "limit_of",
        "peak_gflops",
        "loads_gbytes_per_s",
        "wrong_by",
    ])?;
    for comparison in comparisons {
        for entry in &comparison.entries {
            let (times, wrong_by) = match entry.outcome {
                Outcome::Wrong(error) => (None, Some(error)),
                Outcome::Right => (None, None),
                Outcome::Timed(times) => (Some(times), None),
            };
            let limit = comparison.limit;
            let number = |of: Option<f64>, factor: f64| {
                of.map_or_else(String::new, |of| format!("{:.2}", factor * of))
            };
            writer.write_record([
                comparison.job.group(),
                &comparison.job.to_string(),
                &entry.peer,
                &entry.composed.to_string(),
                &number(times.map(|times| times.least), 1e9),
                &number(times.map(|times| times.median), 1e9),
                &number(limit.map(|limit| limit.seconds), 1e9),
                limit.map_or("", |limit| match limit.of {
                    Resource::MultiplyAdds => "multiply-adds",
                    Resource::Loads => "loads",
                }),
                &number(limit.map(|limit| limit.peak), 1e-9),
                &number(limit.map(|limit| limit.loads), 1e-9),
                &number(wrong_by, 1.0),
            ])?;
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// With three digits: "9.87 µs".
pub(crate) fn seconds(seconds: f64) -> String {
    let (factor, unit) = match seconds {
        _ if seconds < 0.9995e-6 => (1e9, "ns"),
        _ if seconds < 0.9995e-3 => (1e6, "µs"),
        _ if seconds < 0.9995 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    let number = seconds * factor;
    let decimals = match number {
        _ if number < 9.995 => 2,
        _ if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

pub(crate) fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}
