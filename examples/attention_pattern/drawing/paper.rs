//! Drawing helpers for both kinds of picture.

use svg::{
    Document,
    node::element::{Description, Line, Rectangle, TSpan, Text, Title},
};

use super::Array;

pub(crate) const MAX_LABEL: usize = 14;

pub(crate) const PAPER: &str = "#fdfcf8";
const BORDER: &str = "#d9d4c7";
pub(crate) const INK: &str = "#1f2933";
pub(crate) const FAINT: &str = "#5f6b76";
pub(crate) const GRID: &str = "#e4e0d6";
pub(crate) const HIDDEN: &str = "#efece4";
pub(crate) const HIDDEN_COLOUR: [u8; 3] = [0xef, 0xec, 0xe4];
pub(crate) const KEY: &str = "#0f6b62";
pub(crate) const QUERY: &str = "#9a3412";

/// The margin around the sheet, and between the two grids.
pub(crate) const MARGIN: f64 = 28.0;
/// The width of a character relative to the font size, rounded up.
pub(crate) const ADVANCE: f64 = 0.6;
pub(crate) const HEADER: f64 = 92.0;
pub(crate) const LEGEND_HEIGHT: f64 = 86.0;
pub(crate) const LEGEND_WIDTH: f64 = 360.0;

/// Describes the grids of a head.
pub(crate) const ABOUT: &str = "Two grids with a row per key and a column per query: the scores, and the pattern, \
                                which is the softmax of every column.";

/// The sheet with its titles and a description of its grids.
pub(crate) fn document(
    title: &str,
    subtitle: &str,
    about: &str,
    (width, height): (f64, f64),
) -> Document {
    let under_title = Text::new("")
        .set("x", MARGIN)
        .set("y", 58)
        .set("font-size", 13)
        .add(TSpan::new("Rows are keys,").set("fill", KEY))
        .add(TSpan::new("columns are queries:").set("fill", QUERY).set("dx", 5))
        .add(TSpan::new(subtitle).set("fill", FAINT).set("dx", 5));
    Document::new()
        .set("viewBox", (0, 0, round(width), round(height)))
        .set("width", round(width))
        .set("height", round(height))
        .set("role", "img")
        .set("font-family", "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif")
        .add(Title::new(title))
        .add(Description::new().add(svg::node::Text::new(about)))
        .add(
            Rectangle::new()
                .set("x", 0.5)
                .set("y", 0.5)
                .set("width", round(width - 1.0))
                .set("height", round(height - 1.0))
                .set("rx", 10)
                .set("fill", PAPER)
                .set("stroke", BORDER),
        )
        .add(text(title, MARGIN, 36.0, 17.0, INK).set("font-weight", 600))
        .add(under_title)
}

/// The heading of a grid.
pub(crate) fn heading(content: &str, left: f64, y: f64) -> Text {
    text(content, left, y, 14.0, INK).set("font-weight", 600)
}

pub(crate) fn line(from: (f64, f64), to: (f64, f64), colour: &str) -> Line {
    let line = Line::new().set("x1", round(from.0)).set("y1", round(from.1));
    line.set("x2", round(to.0)).set("y2", round(to.1)).set("stroke", colour)
}

pub(crate) fn text(content: &str, x: f64, y: f64, size: f64, colour: &str) -> Text {
    let text = Text::new(content).set("x", round(x)).set("y", round(y));
    text.set("font-size", round(size)).set("fill", colour)
}

/// A text that rises by this angle in degrees.
pub(crate) fn rising(
    content: &str,
    (x, y): (f64, f64),
    size: f64,
    colour: &str,
    angle: f64,
) -> Text {
    let turn = format!("rotate(-{angle} {} {})", round(x), round(y));
    text(content, x, y, size, colour).set("transform", turn)
}

/// Returns the width of the longest label.
pub(crate) fn longest<'a>(labels: impl IntoIterator<Item = &'a String>, size: f64) -> f64 {
    let length = labels.into_iter().map(|label| label.chars().count().min(MAX_LABEL)).max();
    length.unwrap_or(0) as f64 * ADVANCE * size
}

/// Returns the largest magnitude of the visible scores.
pub(crate) fn strongest(scores: &Array) -> f64 {
    let visible = scores.iter().filter(|score| score.is_finite());
    visible.fold(0.0, |most: f64, score| most.max(f64::from(score).abs()))
}

/// Formats a score; the digits depend on the strongest score, and are the same for all.
pub(crate) fn number(score: f64, strongest: f64) -> String {
    let score = score + 0.0; // −0 is 0
    let text = match score {
        f64::NEG_INFINITY => "-∞".to_string(),
        _ if strongest == 0.0 || (0.01..1e3).contains(&strongest) => format!("{score:.2}"),
        _ => format!("{score:.1e}"),
    };
    text.replace('-', "−")
}

/// Rounds to hundredths: enough for a picture. The last bits of a weight, which differ between families,
/// do not show.
pub(crate) fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}
