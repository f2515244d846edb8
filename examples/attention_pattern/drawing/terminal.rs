//! Prints the scores, the pattern and the output as text.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
};

use super::{Array, Shown, labels::shortened};

/// The largest table that is readable in a terminal.
const MAX_ROWS: usize = 40;
const MAX_WIDTH: usize = 120;
const MAX_LABEL: usize = 12;

/// The part of a long output that is shown.
const OUTPUT_ROWS: usize = 8;
const OUTPUT_COLS: usize = 6;

/// The fraction of the largest value from which a dot is drawn.
const DOTS: [(f32, &str); 4] = [(0.75, "⬤"), (0.35, "●"), (0.1, "•"), (0.02, "·")];

const OF_PATTERN: &str =
    "Pattern, the softmax of every column: how much each key matters to the query";

/// Above the labels.
const CORNER: &str = "key\\query";

/// The characters for the shades of a large grid, two per square.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];
/// The most squares on a side: 80 columns with labels.
const MAX_SQUARES: usize = 32;
/// The number of squares per label.
const LABELLED: usize = 8;

pub(crate) fn draw(shown: &Shown) -> String {
    let Shown { title, subtitle, key_labels, query_labels, scores, pattern, output } = shown;
    let grid = |draw: Draw, cell: &dyn Fn(usize, usize) -> String| {
        table(CORNER, key_labels.texts(), query_labels.texts(), draw, cell)
    };
    let mut text = format!("{title}\n{subtitle}\n");
    let mut section = |heading: &str, body: String| {
        // Writing to a String does not fail.
        let _ = write!(text, "\n{heading}\n\n{body}");
    };

    let of_scores = "Scores, scale · key · query: a row per key, a column per query";
    let share = shares(scores);
    if let Some(numbers) = grid(Draw::Numbers, &numbers(scores)) {
        section(of_scores, numbers);
    }
    match grid(Draw::Dots, &|key, query| dot(share(scores.get(key, query)))) {
        Some(dots) => section("Scores as dots that grow from the lowest to the highest", dots),
        None => {
            let (about, squares) = shades(shown, scores, score_steps);
            section(&format!("{of_scores}\n{about}"), squares);
        }
    }
    if let Some(numbers) = grid(Draw::Numbers, &numbers(pattern)) {
        section(OF_PATTERN, numbers);
    }
    let (about, body) = drawn_pattern(shown);
    section(&about, body);

    let (rows, cols) = (output.rows, output.cols);
    let mut about = "Output, the weighted sum of the values: a row per query".to_string();
    let shown_rows = if rows > MAX_ROWS { OUTPUT_ROWS } else { rows };
    if shown_rows < rows {
        about += &format!(", the first {shown_rows} of {rows}");
    }
    let shown_cols = cols.min(OUTPUT_COLS);
    if shown_cols < cols {
        about += &format!(", the first {shown_cols} of {cols} numbers");
    }
    let positions: Vec<_> = (0..shown_cols).map(|col| col.to_string()).collect();
    let labels = &query_labels.texts()[..shown_rows];
    if let Some(table) = table("query", labels, &positions, Draw::Numbers, &numbers(output)) {
        section(&about, table);
    }
    text
}

/// Draws the patterns of many heads over the same tokens, each under its title.
pub(crate) fn draw_heads(title: &str, heads: &[Shown]) -> String {
    let Some(first) = heads.first() else { return String::new() };
    let (about, _) = drawn_pattern(first);
    let mut text = format!("{title}\n{}\n\n{about}\n", first.subtitle);
    for head in heads {
        text += &format!("\n{}\n\n{}", head.title, drawn_pattern(head).1);
    }
    text
}

/// Returns the pattern as dots, or as shades if it is too large for a table, after their legend.
fn drawn_pattern(shown: &Shown) -> (String, String) {
    let Shown { key_labels, query_labels, pattern, .. } = shown;
    let cell = |key, query| dot(pattern.get(key, query));
    match table(CORNER, key_labels.texts(), query_labels.texts(), Draw::Dots, &cell) {
        Some(dots) => {
            let legend = DOTS.map(|(from, dot)| format!("{dot} from {from}")).join("   ");
            (format!("Pattern as dots: {legend}"), dots)
        }
        None => {
            let (about, squares) = shades(shown, pattern, |_| weight_steps(key_labels.len()));
            (format!("{OF_PATTERN}\n{about}"), squares)
        }
    }
}

/// Writes to stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader, such as `| head`, has closed the pipe.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The content of the cells of a table.
#[derive(Clone, Copy)]
enum Draw {
    Numbers,
    Dots,
}

/// Formats a table; `None` if it is too large for a terminal.
fn table(
    corner: &str,
    rows: &[String],
    cols: &[String],
    draw: Draw,
    cell: &dyn Fn(usize, usize) -> String,
) -> Option<String> {
    if rows.len() > MAX_ROWS || cols.len() > MAX_WIDTH / 2 {
        return None;
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
        return None;
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
    Some(text)
}

/// Scales a grid down to squares; returns a legend and the squares.
///
/// `steps` are the thresholds of all shades except the first.
fn shades(shown: &Shown, grid: &Array, steps: impl Fn(&Array) -> [f32; 4]) -> (String, String) {
    let [height, width] = [grid.rows, grid.cols].map(|cells| cells.div_ceil(MAX_SQUARES));
    let squares = grid.block_maxima(height, width);
    let scores = shown.scores.block_maxima(height, width);
    let steps = steps(&squares);

    let mut about = match (height, width) {
        (1, 1) => String::new(),
        _ => format!("A square is the largest of {height} × {width} cells:\n"),
    };
    about += &format!("{} below {:?}", SHADES[0], steps[0]);
    for (i, (shade, from)) in SHADES[1..].iter().zip(steps).enumerate() {
        // If steps are equal only the last shade is drawn.
        if steps.get(i + 1) == Some(&from) {
            continue;
        }
        about += &format!("   {shade} from {from:?}");
    }
    let masked = |score| score == f32::NEG_INFINITY;
    if scores.iter().any(masked) {
        about += "   blank: masked";
    }

    let names: Vec<_> = (0..squares.rows)
        .map(|row| shortened(&shown.key_labels.with_position(row * height), MAX_LABEL))
        .collect();
    let names_width = names.iter().map(|name| name.chars().count()).fold(CORNER.len(), usize::max);
    let mut text = format!("{CORNER:<names_width$}  ");
    for col in (0..squares.cols).step_by(LABELLED) {
        let label = shown.query_labels.with_position(col * width);
        // At least two spaces before the next label.
        let label = shortened(&label, 2 * LABELLED - 2);
        text += &format!("{label:<0$}", 2 * LABELLED);
    }
    text.truncate(text.trim_end().len());
    for (row, name) in names.iter().enumerate() {
        let mut line = format!("\n{name:<names_width$}  ");
        for col in 0..squares.cols {
            let shade = match masked(scores.get(row, col)) {
                true => ' ',
                false => {
                    SHADES[steps.iter().filter(|&&step| squares.get(row, col) >= step).count()]
                }
            };
            line.extend([shade, shade]);
        }
        text += line.trim_end();
    }
    text.push('\n');
    (about, text)
}

/// Returns steps that divide the range of the squares into five equal parts.
fn score_steps(squares: &Array) -> [f32; 4] {
    let (low, high) = range(squares);
    let (low, high) = (f64::from(low), f64::from(high));
    let span = high - low;
    // More digits if the range is small relative to the scores, up to their precision.
    let more = (low.abs().max(high.abs()) / span).log10().clamp(0.0, 6.0) as usize;
    [0.2, 0.4, 0.6, 0.8].map(|part| rounded(low + part * span, 2 + more))
}

/// Returns steps from 1 / keys towards 1 in geometric progression, as over many keys almost all weights are
/// small.
fn weight_steps(keys: usize) -> [f32; 4] {
    [1.0, 0.75, 0.5, 0.25].map(|part| rounded((keys as f64).powf(-part), 2))
}

/// Rounds to the printed digits, so that the printed steps are the thresholds used.
fn rounded(x: f64, digits: usize) -> f32 {
    format!("{x:.*e}", digits - 1).parse().unwrap_or(x as f32)
}

/// Returns the lowest and the highest visible score.
fn range(scores: &Array) -> (f32, f32) {
    let visible = scores.iter().filter(|score| score.is_finite());
    visible.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)))
}

/// Returns the function from a score to its position between the lowest (0) and the highest (1).
fn shares(scores: &Array) -> impl Fn(f32) -> f32 {
    let (low, high) = range(scores);
    move |score| match score {
        f32::NEG_INFINITY => 0.0,
        _ if low == high => 1.0,
        _ => (score - low) / (high - low),
    }
}

/// Returns the formatter of an array: one format for all elements, so that they compare at a glance.
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
