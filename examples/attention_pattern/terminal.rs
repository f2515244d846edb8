//! The scores, the pattern and the output as text.

use std::fmt::Write;

use crate::{Shown, data::Array, labels::shortened};

/// What still reads well in a terminal.
const MAX_ROWS: usize = 40;
const MAX_WIDTH: usize = 120;
const MAX_LABEL: usize = 12;

/// How many numbers of each output are shown.
const OUTPUT_COLS: usize = 6;

/// The share of the largest value from which a dot is drawn.
const DOTS: [(f32, &str); 4] = [(0.75, "⬤"), (0.35, "●"), (0.1, "•"), (0.02, "·")];

pub(crate) fn draw(shown: &Shown) -> String {
    let Shown { title, subtitle, key_labels, query_labels, scores, pattern, output } = shown;
    let grid = |draw: Draw, cell: &dyn Fn(usize, usize) -> String| {
        table("key\\query", key_labels.texts(), query_labels.texts(), draw, cell)
    };
    let legend: Vec<_> = DOTS.iter().map(|(from, dot)| format!("{dot} from {from}")).collect();

    let visible = scores.iter().filter(|score| score.is_finite());
    let (low, high) =
        visible.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let share = |score: f32| match score {
        f32::NEG_INFINITY => 0.0,
        _ if low == high => 1.0,
        _ => (score - low) / (high - low),
    };

    let mut text = format!("{title}\n{subtitle}\n");
    let mut section = |heading: &str, body: String| {
        // Writing to a String does not fail.
        let _ = write!(text, "\n{heading}\n\n{body}");
    };
    section(
        "Scores, scale · key · query: a row per key, a column per query",
        grid(Draw::Numbers, &numbers(scores)),
    );
    section(
        "Scores as dots that grow from the lowest to the highest",
        grid(Draw::Dots, &|key, query| dot(share(scores.get(key, query)))),
    );
    section(
        "Pattern, the softmax of every column: how much each key matters to the query",
        grid(Draw::Numbers, &numbers(pattern)),
    );
    section(
        &format!("Pattern as dots: {}", legend.join("   ")),
        grid(Draw::Dots, &|key, query| dot(pattern.get(key, query))),
    );
    let (first, cols) = match output.cols > OUTPUT_COLS {
        true => (format!(", the first {OUTPUT_COLS} of {} numbers", output.cols), OUTPUT_COLS),
        false => (String::new(), output.cols),
    };
    let positions: Vec<_> = (0..cols).map(|col| col.to_string()).collect();
    section(
        &format!("Output, the weighted sum of the values: a row per query{first}"),
        table("query", query_labels.texts(), &positions, Draw::Numbers, &numbers(output)),
    );
    text
}

/// What the cells of a table hold.
#[derive(Clone, Copy)]
enum Draw {
    Numbers,
    Dots,
}

fn table(
    corner: &str,
    rows: &[String],
    cols: &[String],
    draw: Draw,
    cell: &dyn Fn(usize, usize) -> String,
) -> String {
    let too_large = format!("({} × {} is too large to print)\n", rows.len(), cols.len());
    if rows.len() > MAX_ROWS || cols.len() > MAX_WIDTH / 2 {
        return too_large;
    }
    let length = |text: &str| text.chars().count();
    let column = |label: &str, cells: Vec<String>| {
        let mut column = vec![shortened(label, MAX_LABEL)];
        column.extend(cells);
        let width = column.iter().map(|text| length(text)).max().unwrap_or(0);
        (width, column)
    };
    let names: Vec<_> = rows.iter().map(|label| shortened(label, MAX_LABEL)).collect();
    let (name_width, names) = column(corner, names);
    let columns: Vec<_> = cols
        .iter()
        .enumerate()
        .map(|(col, label)| column(label, (0..rows.len()).map(|row| cell(row, col)).collect()))
        .collect();
    if columns.iter().fold(name_width, |sum, (width, _)| sum + 2 + width) > MAX_WIDTH {
        return too_large;
    }

    let mut text = String::new();
    for (row, name) in names.iter().enumerate() {
        let mut line = format!("{name:<name_width$}");
        for (width, column) in &columns {
            line += "  ";
            line += &match draw {
                Draw::Numbers => format!("{:>width$}", column[row]),
                Draw::Dots => format!("{:^width$}", column[row]),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// One format for a whole array, so that its columns compare at a glance.
fn numbers(array: &Array) -> impl Fn(usize, usize) -> String + '_ {
    let largest = array.iter().filter(|x| x.is_finite()).fold(0.0, |m: f32, x| m.max(x.abs()));
    let plain = largest == 0.0 || (0.01..1e4).contains(&largest);
    move |row, col| match array.get(row, col) {
        f32::NEG_INFINITY => "-∞".to_string(),
        0.0 => "0".to_string(),
        x if plain => format!("{x:.3}"),
        x => format!("{x:.2e}"),
    }
}

fn dot(share: f32) -> String {
    DOTS.iter().find(|(from, _)| share >= *from).map_or("", |(_, dot)| dot).to_string()
}
