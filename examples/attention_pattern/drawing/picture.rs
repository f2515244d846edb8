//! Draws the scores and the pattern as an SVG picture.

use svg::node::element::{Circle, Group, Rectangle, Title};

use super::{
    Array, Shown, heat_map,
    labels::shortened,
    paper::{
        ABOUT, ADVANCE, FAINT, GRID, HEADER, HIDDEN, INK, KEY, LEGEND_HEIGHT, LEGEND_WIDTH, MARGIN,
        MAX_LABEL, QUERY, document, heading, line, longest, number, rising, round, strongest, text,
    },
};

/// With more keys or queries than this, one circle per cell would be megabytes: a heat map is drawn instead.
const MAX_SIDE: usize = 64;

const POSITIVE: &str = "#2563a8";
const NEGATIVE: &str = "#d9772b";

/// The minimum size of a cell with a number in it.
const NUMBERED: f64 = 40.0;

/// The position of a grid on the sheet, and the size of its cells.
#[derive(Clone, Copy)]
struct Panel<'a> {
    shown: &'a Shown,
    left: f64,
    top: f64,
    cell: f64,
}

pub(crate) fn draw(shown: &Shown) -> Result<String, png::EncodingError> {
    let (keys, queries) = (shown.key_labels.len(), shown.query_labels.len());
    if keys > MAX_SIDE || queries > MAX_SIDE {
        return heat_map::draw(shown);
    }
    let cell = (400.0 / keys.max(queries) as f64).clamp(12.0, 50.0);
    let size = label_size(cell);
    let names = longest(shown.key_labels.texts(), size) + 10.0;
    let (sine, cosine) = label_angle(cell).to_radians().sin_cos();
    let rise = longest(shown.query_labels.texts(), size) * sine + 22.0;
    let overhang = longest(shown.query_labels.texts(), size) * cosine - cell / 2.0;
    let panel = names + (queries as f64 * cell + overhang.max(0.0)).max(LEGEND_WIDTH);

    let top = HEADER + rise;
    let bottom = top + keys as f64 * cell;
    let scores = Panel { shown, left: MARGIN + names, top, cell };
    let pattern = Panel { left: scores.left + panel + MARGIN, ..scores };
    let total = (2.0 * panel + 3.0 * MARGIN, bottom + LEGEND_HEIGHT);
    let document = document(&shown.title, &shown.subtitle, ABOUT, total)
        .add(scores.frame("Scores"))
        .add(scores.scores())
        .add(scores.scores_legend(bottom))
        .add(pattern.frame("Pattern: softmax of every column"))
        .add(pattern.pattern())
        .add(pattern.pattern_legend(bottom));
    Ok(format!("{document}\n"))
}

impl Panel<'_> {
    /// Draws the heading, the labels and the lines.
    fn frame(&self, title: &str) -> Group {
        let Self { shown, left, top, cell } = *self;
        let (rows, cols) = (shown.key_labels.len() as f64, shown.query_labels.len() as f64);
        let size = label_size(cell);
        let mut group = Group::new().add(heading(title, left, HEADER - 4.0));
        for i in 0..=shown.key_labels.len() {
            let y = top + i as f64 * cell;
            group = group.add(line((left, y), (left + cols * cell, y), GRID));
        }
        for i in 0..=shown.query_labels.len() {
            let x = left + i as f64 * cell;
            group = group.add(line((x, top), (x, top + rows * cell), GRID));
        }
        for (i, label) in shown.key_labels.texts().iter().enumerate() {
            let y = top + (i as f64 + 0.5) * cell + size * 0.35;
            let label = text(&shortened(label, MAX_LABEL), left - 8.0, y, size, KEY);
            group = group.add(label.set("text-anchor", "end"));
        }
        for (i, label) in shown.query_labels.texts().iter().enumerate() {
            // Vertical text is written beside its baseline.
            let aside = if label_angle(cell) == 90.0 { size * 0.35 } else { 0.0 };
            let start = (left + (i as f64 + 0.5) * cell + aside, top - 7.0);
            let label = shortened(label, MAX_LABEL);
            group = group.add(rising(&label, start, size, QUERY, label_angle(cell)));
        }
        group
    }

    /// Returns the centre of every cell, with its row, column and value.
    fn cells<'a>(&'a self, grid: &'a Array) -> impl Iterator<Item = (f64, f64, f64, String)> + 'a {
        grid.iter().enumerate().map(move |(i, value)| {
            let (key, query) = (i / grid.cols, i % grid.cols);
            let x = self.left + (query as f64 + 0.5) * self.cell;
            let y = self.top + (key as f64 + 0.5) * self.cell;
            let key = shortened(&self.shown.key_labels.texts()[key], MAX_LABEL);
            let query = shortened(&self.shown.query_labels.texts()[query], MAX_LABEL);
            (x, y, f64::from(value), format!("key {key}, query {query}"))
        })
    }

    fn scores(&self) -> Group {
        let strongest = strongest(&self.shown.scores);
        let mut group = Group::new().set("text-anchor", "middle");
        for (x, y, score, name) in self.cells(&self.shown.scores) {
            let hidden = score == f64::NEG_INFINITY;
            let number = number(score, strongest);
            group = group.add(
                tint(score, strongest)
                    .set("x", round(x - self.cell / 2.0 + 0.5))
                    .set("y", round(y - self.cell / 2.0 + 0.5))
                    .set("width", round(self.cell - 1.0))
                    .set("height", round(self.cell - 1.0))
                    .add(Title::new(format!("{name}: {number}"))),
            );
            let fits = number.chars().count() as f64 * ADVANCE * 11.0 <= self.cell;
            if self.cell >= NUMBERED && fits {
                let colour = if hidden { FAINT } else { INK };
                group = group.add(text(&number, x, y + 4.0, 11.0, colour));
            }
        }
        group
    }

    fn pattern(&self) -> Group {
        let mut group = Group::new().set("text-anchor", "middle");
        for (x, y, weight, name) in self.cells(&self.shown.pattern) {
            if weight == 0.0 {
                continue;
            }
            let radius = self.radius(weight);
            group = group.add(
                disc(x, y, radius)
                    .set("class", "weight")
                    .add(Title::new(format!("{name}: {weight:.3}"))),
            );
            if self.cell < NUMBERED || weight < 0.0005 {
                continue;
            }
            let number = format!("{weight:.3}");
            // Inside the circle if it is wide enough, otherwise at the bottom of the cell.
            group = group.add(if radius > 14.0 {
                text(&number, x, y + 3.5, 9.5, "#ffffff")
            } else {
                text(&number, x, y + self.cell / 2.0 - 2.5, 9.0, FAINT)
            });
        }
        group
    }

    fn scores_legend(&self, bottom: f64) -> Group {
        let strongest = strongest(&self.shown.scores);
        let mut group = Group::new();
        for (i, share) in [-1.0, -0.5, 0.0, 0.5, 1.0].into_iter().enumerate() {
            let (x, y) = (self.left + i as f64 * 72.0, bottom + 32.0);
            let swatch = tint(share * strongest, strongest)
                .set("x", round(x))
                .set("y", round(y - 9.0))
                .set("width", 18)
                .set("height", 18)
                .set("stroke", GRID);
            let label = text(&number(share * strongest, strongest), x + 23.0, y + 4.0, 11.0, FAINT);
            group = group.add(swatch).add(label);
        }
        group.add(text("scale · key · query", self.left, bottom + 66.0, 11.0, FAINT))
    }

    fn pattern_legend(&self, bottom: f64) -> Group {
        let mut group = Group::new();
        let mut x = self.left;
        for weight in [1.0, 0.5, 0.25, 0.1, 0.01] {
            let radius = self.radius(weight);
            group = group.add(disc(x + radius, bottom + 32.0, radius));
            x += 2.0 * radius + 5.0;
            group = group.add(text(&weight.to_string(), x, bottom + 36.0, 11.0, FAINT));
            x += 36.0;
        }
        let about = "the area of a circle is the weight; every column sums to 1";
        group.add(text(about, self.left, bottom + 66.0, 11.0, FAINT))
    }

    /// A weight of 1 fills the cell.
    fn radius(&self, weight: f64) -> f64 {
        (self.cell / 2.0 - 1.5) * weight.sqrt()
    }
}

fn label_size(cell: f64) -> f64 {
    (cell - 2.0).min(13.0)
}

/// Returns the angle of the query labels; in small cells only vertical ones do not overlap.
fn label_angle(cell: f64) -> f64 {
    if cell < 30.0 { 90.0 } else { 35.0 }
}

/// A rectangle in the colour of a score.
fn tint(score: f64, strongest: f64) -> Rectangle {
    if score == f64::NEG_INFINITY {
        return Rectangle::new().set("fill", HIDDEN);
    }
    // 0.6 keeps dark numbers readable on the strongest tint.
    let share = if strongest > 0.0 { score.abs() / strongest * 0.6 } else { 0.0 };
    let colour = if score < 0.0 { NEGATIVE } else { POSITIVE };
    Rectangle::new().set("fill", colour).set("fill-opacity", round(share))
}

fn disc(x: f64, y: f64, radius: f64) -> Circle {
    let circle = Circle::new().set("cx", round(x)).set("cy", round(y));
    circle.set("r", round(radius)).set("fill", POSITIVE)
}
