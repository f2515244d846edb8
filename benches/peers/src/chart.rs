//! The pictures, as SVG on a background of its own, light or dark as the reader's theme is.

use std::fmt::Display;

use svg::{
    Document,
    node::element::{Circle, Element, Group, Line, Polyline, Rectangle, Style, Text, Title},
};

use crate::{
    compare::Comparison,
    peers::Kind,
    report::{percent, seconds},
    scaling::{Point, Scaling, bytes},
};

/// Class by class, for a light theme and for a dark one.
const COLOURS: [(&str, &str, &str, &str); 8] = [
    ("paper", "fill", "#ffffff", "#0d1117"),
    ("ink", "fill", "#1f2328", "#f0f6fc"),
    ("faint", "fill", "#59636e", "#9198a1"),
    ("ours", "fill", "#0969da", "#4493f8"),
    ("other", "fill", "#b6bec7", "#5b6570"),
    ("line", "stroke", "#d1d9e0", "#3d444d"),
    ("ours-line", "stroke", "#0969da", "#4493f8"),
    ("other-line", "stroke", "#818b98", "#818b98"),
];

fn document(width: f64, height: f64, title: &str) -> Document {
    let theme = |dark: bool| {
        let rule = |&(class, property, light, night): &(&str, &str, &str, &str)| {
            format!(".{class}{{{property}:{}}}", if dark { night } else { light })
        };
        COLOURS.iter().map(rule).collect::<String>()
    };
    let style = format!(
        "text{{font:12px -apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif}}\
         .title{{font-size:16px;font-weight:600}}.group{{font-weight:600}}.small{{font-size:11px}}\
         polyline{{fill:none;stroke-width:2}}{}@media(prefers-color-scheme:dark){{{}}}",
        theme(false),
        theme(true),
    );
    Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("role", "img")
        .add(Title::new(title))
        .add(Style::new(style))
        .add(
            Rectangle::new()
                .set("width", width)
                .set("height", height)
                .set("rx", 8)
                .set("class", "paper"),
        )
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

fn text(at: (f64, f64), class: &str, anchor: Anchor, words: impl Display) -> Text {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    Text::new(words.to_string())
        .set("x", round(at.0))
        .set("y", round(at.1))
        .set("class", class)
        .set("text-anchor", anchor)
}

fn line(from: (f64, f64), to: (f64, f64), class: &str) -> Line {
    Line::new()
        .set("x1", round(from.0))
        .set("y1", round(from.1))
        .set("x2", round(to.0))
        .set("y2", round(to.1))
        .set("class", class)
}

fn bar(at: (f64, f64), width: f64, height: f64, class: &str) -> Rectangle {
    Rectangle::new()
        .set("x", round(at.0))
        .set("y", round(at.1))
        .set("width", round(width))
        .set("height", round(height))
        .set("rx", 1.5)
        .set("class", class)
}

/// Tenths of a pixel, so that files differ in what can be seen.
fn round(x: f64) -> f64 {
    (10.0 * x).round() / 10.0
}

/// The jobs in two columns: for each a bar of this library and one of the best other, as shares of the limit.
pub(crate) fn shares(comparisons: &[Comparison]) -> String {
    let groups: Vec<&[Comparison]> =
        comparisons.chunk_by(|a, b| a.job.group() == b.job.group()).collect();
    // Where the columns are most alike in height.
    let total: f64 = groups.iter().copied().map(height_of).sum();
    let mut left = 0.0;
    let split = groups
        .iter()
        .take_while(|group| {
            left += height_of(group);
            left <= total / 2.0 + height_of(group) / 2.0
        })
        .count();
    let columns = [&groups[..split], &groups[split..]];
    let heights = columns.map(|groups| groups.iter().copied().map(height_of).sum::<f64>());
    let height = TOP + heights[0].max(heights[1]) + 30.0;
    let title = "Share of what the core allows: sdpa, and the best of the other libraries";
    let mut document = document(WIDTH, height, title)
        .add(text((MARGIN, 32.0), "title ink", Anchor::Start, title))
        .add(bar((MARGIN, 49.0), 22.0, 9.0, "ours"))
        .add(text((MARGIN + 30.0, 58.0), "ink", Anchor::Start, "sdpa, best back end"))
        .add(bar((MARGIN + 170.0, 49.0), 22.0, 9.0, "other"))
        .add(text(
            (MARGIN + 200.0, 58.0),
            "ink",
            Anchor::Start,
            "the best other; * composed: its product, a softmax, its product",
        ))
        .add(text(
            (WIDTH - MARGIN, 58.0),
            "faint",
            Anchor::End,
            "right: sdpa's time, and its ratio to the other's",
        ));
    for (groups, x) in columns.into_iter().zip([MARGIN, MARGIN + COLUMN + GAP]) {
        let mut y = TOP;
        for group in groups {
            document = document.add(group_of(group, (x, y)));
            y += height_of(group);
        }
    }
    document.to_string()
}

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 24.0;
const GAP: f64 = 40.0;
const COLUMN: f64 = (WIDTH - 2.0 * MARGIN - GAP) / 2.0;
const TOP: f64 = 84.0;
/// What a job takes: two bars, and what parts it from the next.
const ROW: f64 = 27.0;
const HEADING: f64 = 44.0;
/// The widths of the shape and of the numbers; the bars have what is between.
const LABEL: f64 = 128.0;
const NUMBERS: f64 = 92.0;

fn height_of(group: &[Comparison]) -> f64 {
    HEADING + ROW * group.len() as f64
}

fn group_of(group: &[Comparison], (x, y): (f64, f64)) -> Group {
    let full = COLUMN - LABEL - NUMBERS;
    let (first, bottom) = (x + LABEL, y + height_of(group) - 14.0);
    let mut drawn =
        Group::new().add(text((x, y + 14.0), "group ink", Anchor::Start, group[0].job.group()));
    for share in [0.0, 0.5, 1.0] {
        let at = first + share * full;
        drawn = drawn.add(line((at, y + 20.0), (at, bottom), "line"));
        // At 0 it would meet the group's name.
        if share > 0.0 {
            let label = text((at, y + 14.0), "small faint", Anchor::Middle, percent(share));
            drawn = drawn.add(label);
        }
    }
    for (i, comparison) in group.iter().enumerate() {
        let y = y + 25.0 + ROW * i as f64;
        let label = comparison.job.to_string().replace("heads of ", "× ").replace("stride", "by");
        drawn = drawn.add(text((x, y + 13.0), "ink", Anchor::Start, label));
        let limit = comparison.limit.map_or(0.0, |limit| limit.seconds);
        let ours = comparison.ours(Kind::Ours);
        let best = comparison.best_other();
        if let Some(ours) = ours {
            drawn = drawn.add(bar((first, y), full * limit / ours, 10.0, "ours"));
        }
        if let Some((peer, time, composed)) = best {
            let width = full * limit / time;
            let name = peer.split(' ').next().unwrap_or(peer).replace("plain", "plain loops");
            let name = if composed { format!("{name} *") } else { name };
            drawn = drawn.add(bar((first, y + 11.0), width, 10.0, "other"));
            // Beside a short bar, and inside a long one.
            drawn = drawn.add(match width < 0.6 * full {
                true => text((first + width + 4.0, y + 19.5), "small faint", Anchor::Start, name),
                false => text((first + width - 4.0, y + 19.5), "small ink", Anchor::End, name),
            });
        }
        if let Some(ours) = ours {
            let right = x + COLUMN;
            drawn = drawn.add(text((right - 40.0, y + 13.0), "faint", Anchor::End, seconds(ours)));
            if let Some((_, time, _)) = best {
                let ratio = format!("{:.2}", ours / time);
                drawn = drawn.add(text((right, y + 13.0), "group ink", Anchor::End, ratio));
            }
        }
    }
    drawn
}

/// Time and memory against tokens, on logarithmic axes.
pub(crate) fn scaling(scaling: &Scaling) -> String {
    let points = &scaling.points;
    let title = "Attention against tokens: time follows queries × keys, memory follows nothing";
    let time = Plot {
        x: MARGIN + 60.0,
        name: "time of one head of 64 columns",
        range: (1e-6, 10.0),
        label: |value| seconds(value).replace(".00", "").replace(".0", ""),
    };
    let memory = Plot {
        x: WIDTH / 2.0 + 70.0,
        name: "memory of a call",
        range: (1024.0, 8.0 * 1024.0 * 1024.0 * 1024.0),
        label: bytes,
    };
    let pairs = |point: &Point| (point.tokens * point.tokens) as f64;
    let first = &points[0];
    let last = &points[points.len() - 1];
    let square = |point: &Point| first.seconds * pairs(point) / pairs(first);
    let workspace = |point: &Point| 4.0 * point.workspace as f64 + point.allocated as f64;
    let grid = |point: &Point| 4.0 * pairs(point);
    let mut document =
        document(WIDTH, 400.0, title).add(text((MARGIN, 32.0), "title ink", Anchor::Start, title));
    for (plot, step) in [(&time, 10.0), (&memory, 32.0)] {
        document = document.add(plot.axes(points, step));
    }
    for part in [
        time.curve(points, square, false),
        time.curve(points, |point| point.seconds, true),
        memory.curve(points, grid, false),
        memory.curve(points, workspace, true),
    ] {
        document = document.add(part);
    }
    let notes = [
        (&time, 0.87, "ink", "● measured".into()),
        (&time, 0.80, "faint", "- - in proportion to tokens²".into()),
        (&memory, 0.92, "faint", "- - a grid of scores, which is never stored".into()),
        (
            &memory,
            0.12,
            "ink",
            format!("● the workspace, {} floats; nothing is allocated", last.workspace),
        ),
    ];
    for (plot, up, class, words) in notes {
        let y = PLOT_TOP + PLOT_HEIGHT * (1.0 - up);
        document = document.add(text((plot.x + 14.0, y), class, Anchor::Start, words));
    }
    document.to_string()
}

/// A diagram whose axes are logarithmic, that of the tokens at its bottom.
struct Plot {
    x: f64,
    name: &'static str,
    range: (f64, f64),
    label: fn(f64) -> String,
}

const PLOT_TOP: f64 = 84.0;
const PLOT_HEIGHT: f64 = 262.0;
const PLOT_WIDTH: f64 = 390.0;

impl Plot {
    /// Where the `i`th of the points stands.
    fn at(&self, points: &[Point], i: usize, value: f64) -> (f64, f64) {
        let (low, high) = self.range;
        let across = i as f64 / (points.len() - 1) as f64;
        let up = (value / low).ln() / (high / low).ln();
        (self.x + PLOT_WIDTH * across, PLOT_TOP + PLOT_HEIGHT * (1.0 - up))
    }

    fn axes(&self, points: &[Point], step: f64) -> Group {
        let (low, high) = self.range;
        let name = text((self.x, PLOT_TOP - 16.0), "group ink", Anchor::Start, self.name);
        let mut drawn = Group::new().add(name);
        let mut value = low;
        while value <= 1.001 * high {
            let (x, y) = self.at(points, 0, value);
            drawn = drawn.add(line((x, y), (x + PLOT_WIDTH, y), "line")).add(text(
                (x - 8.0, y + 4.0),
                "small faint",
                Anchor::End,
                (self.label)(value),
            ));
            value *= step;
        }
        for (i, point) in points.iter().enumerate() {
            let (x, y) = self.at(points, i, low);
            let label = text((x, y + 18.0), "small faint", Anchor::Middle, point.tokens);
            drawn = drawn.add(label);
        }
        let middle = self.x + PLOT_WIDTH / 2.0;
        drawn.add(text((middle, PLOT_TOP + PLOT_HEIGHT + 38.0), "faint", Anchor::Middle, "tokens"))
    }

    /// Ours has points, and another is dashed.
    fn curve(&self, points: &[Point], value: impl Fn(&Point) -> f64, ours: bool) -> Group {
        let at: Vec<(f64, f64)> =
            points.iter().enumerate().map(|(i, point)| self.at(points, i, value(point))).collect();
        let list: Vec<String> =
            at.iter().map(|(x, y)| format!("{},{}", round(*x), round(*y))).collect();
        let curve = Polyline::new().set("points", list.join(" "));
        if !ours {
            let curve = curve.set("class", "other-line").set("stroke-dasharray", "5 5");
            return Group::new().add(curve);
        }
        let mark = |&(x, y): &(f64, f64)| {
            Circle::new().set("cx", round(x)).set("cy", round(y)).set("r", 4).set("class", "ours")
        };
        at.iter()
            .map(mark)
            .fold(Group::new().add(curve.set("class", "ours-line")), |group, mark| {
                group.add(Element::from(mark))
            })
    }
}
