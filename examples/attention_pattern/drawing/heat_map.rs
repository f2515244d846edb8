//! Draws the scores and the pattern as two heat maps, for grids so large that a cell is about a pixel.
//!
//! Each grid is one image with indexed colours, with ticks on its axes and a bar for its colour scale. The
//! scale of the scores is linear and symmetric around 0. It excludes the few largest scores, as often all
//! queries attend to one key, and the other scores would look alike. The scale of the pattern is logarithmic,
//! as over many keys almost all weights are small: it begins at a tenth of 1 / keys, or less.

use std::iter;

use base64::{Engine, engine::general_purpose::STANDARD};
use svg::node::element::{Group, Image, LinearGradient, Rectangle, Stop};

use super::{
    Array, Shown,
    labels::{Labels, shortened},
    paper::{
        ABOUT, FAINT, GRID, HEADER, HIDDEN, HIDDEN_COLOUR, KEY, LEGEND_HEIGHT, LEGEND_WIDTH,
        MARGIN, MAX_LABEL, QUERY, document, heading, line, longest, number, rising, round,
        strongest, text,
    },
};

/// The most pixels on a side: more would be megabytes that no screen shows. In a larger grid a pixel is the
/// maximum of a block of cells.
const MAX_PIXELS: usize = 2048;
/// The longer side takes from half of this to all of it on the sheet, the shorter at least that.
const LONG: f64 = 1024.0;
const SHORT: f64 = 160.0;

/// Of many heads: [`LONG`], the grids in a row and their distance, [`TICKS_APART`] and [`LABEL_ANGLE`].
const LONG_OF_MANY: f64 = 480.0;
const GRIDS: usize = 4;
const APART: f64 = 20.0;
const TICKS_OF_MANY: f64 = 18.0;
const ANGLE_OF_MANY: f64 = 60.0;

/// The minimum distance of ticks.
const TICKS_APART: f64 = 28.0;
const TICK: f64 = 5.0;
const LABEL_SIZE: f64 = 11.0;
/// The line height.
const LINE: f64 = 16.0;
const LABEL_ANGLE: f64 = 35.0;

const BAR_WIDTH: f64 = 280.0;
const BAR_HEIGHT: f64 = 12.0;

/// The number of colours of an image without that of masked cells; odd, so that 0 has a colour. More
/// colours would enlarge the file without a visible difference.
const LEVELS: u8 = 63;
const MASKED: u8 = LEVELS;

type Colour = [u8; 3];

/// The colours from the lowest score through 0 to the highest.
const SCORES: [Colour; 7] = [
    [0x7a, 0x30, 0x06],
    [0xd9, 0x77, 0x2b],
    [0xf3, 0xcd, 0xa8],
    [0xfd, 0xfc, 0xf8],
    [0xb4, 0xcd, 0xe6],
    [0x25, 0x63, 0xa8],
    [0x0b, 0x24, 0x47],
];
/// The colours from the smallest weight to 1.
const WEIGHTS: [Colour; 5] = [
    [0xfd, 0xfc, 0xf8],
    [0xc6, 0xd9, 0xec],
    [0x7d, 0xa7, 0xd3],
    [0x25, 0x63, 0xa8],
    [0x0b, 0x24, 0x47],
];

pub(crate) fn draw(shown: &Shown) -> Result<String, png::EncodingError> {
    let Shown { key_labels, query_labels, .. } = shown;
    let cell = cell(key_labels.len().max(query_labels.len()), LONG);
    let [keys, queries] =
        [key_labels, query_labels].map(|labels| Axis::new(labels, cell, TICKS_APART));
    let [height, width] = [key_labels, query_labels].map(|side| side.len().div_ceil(MAX_PIXELS));
    let blocks = match (height, width) {
        (1, 1) => None,
        _ => Some(format!("a pixel is the largest of {height} × {width} cells")),
    };

    let (names, rise, overhang) = around(&keys, &queries, LABEL_ANGLE);
    let panel = names + (queries.length + overhang).max(LEGEND_WIDTH);
    let first = Panel {
        keys: &keys,
        queries: &queries,
        left: MARGIN + names,
        top: HEADER + rise,
        angle: LABEL_ANGLE,
        blocks,
    };
    let legend = LEGEND_HEIGHT + if first.blocks.is_some() { LINE } else { 0.0 };
    let total = (2.0 * panel + 3.0 * MARGIN, first.top + keys.length + legend);
    let second = Panel { left: first.left + panel + MARGIN, blocks: first.blocks.clone(), ..first };

    let scores = shown.scores.block_maxima(height, width);
    let weights = shown.pattern.block_maxima(height, width);
    let document = document(&shown.title, &shown.subtitle, ABOUT, total)
        .add(first.draw(&Map::of_scores(&scores))?)
        .add(second.draw(&Map::of_weights(&weights, &scores, key_labels.len()))?);
    Ok(format!("{document}\n"))
}

/// Draws the patterns of many heads over the same tokens, each under its title, with the labels of the first row and
/// column.
pub(crate) fn draw_heads(title: &str, heads: &[Shown]) -> Result<String, png::EncodingError> {
    let Some(Shown { subtitle, key_labels, query_labels, .. }) = heads.first() else {
        return Ok(String::new());
    };
    let cell = cell(key_labels.len().max(query_labels.len()), LONG_OF_MANY);
    let [keys, queries] =
        [key_labels, query_labels].map(|labels| Axis::new(labels, cell, TICKS_OF_MANY));
    let (names, rise, overhang) = around(&keys, &queries, ANGLE_OF_MANY);
    let (across, down) = (queries.length + APART, keys.length + APART + LINE);
    let rows = heads.len().div_ceil(GRIDS);
    let (left, top) = (MARGIN + names, HEADER + rise);
    let width = left + GRIDS as f64 * across + overhang + MARGIN - APART;
    let bottom = top + rows as f64 * down - APART - LINE;
    let about = "A grid per head with a row per key and a column per query: the pattern, which is the softmax of \
                 every column.";
    let mut document = document(title, subtitle, about, (width, bottom + LEGEND_HEIGHT));

    let (unlabelled_keys, unlabelled_queries) = (keys.unlabelled(), queries.unlabelled());
    for (i, head) in heads.iter().enumerate() {
        let (row, col) = (i / GRIDS, i % GRIDS);
        let panel = Panel {
            keys: if col == 0 { &keys } else { &unlabelled_keys },
            queries: if row == 0 { &queries } else { &unlabelled_queries },
            left: left + col as f64 * across,
            top: top + row as f64 * down,
            angle: ANGLE_OF_MANY,
            blocks: None,
        };
        let map = Map::of_weights(&head.pattern, &head.scores, key_labels.len());
        let above = if row == 0 { HEADER - 4.0 } else { panel.top - 8.0 };
        let heading = heading(&head.title, panel.left, above);
        document = document.add(heading).add(panel.axes()).add(panel.image(&map)?);
        if row + 1 == rows && col == 0 {
            document = document.add(panel.scale(&map));
        }
    }
    Ok(format!("{document}\n"))
}

/// Returns the widths of the key labels, the height of the query labels, and what these need to the right.
fn around(keys: &Axis, queries: &Axis, angle: f64) -> (f64, f64, f64) {
    let (sine, cosine) = angle.to_radians().sin_cos();
    let names = longest(keys.labels(), LABEL_SIZE) + TICK + 11.0;
    let rising = longest(queries.labels(), LABEL_SIZE);
    (names, rising * sine + TICK + 21.0, rising * cosine)
}

/// The content of a panel.
struct Map {
    title: &'static str,
    /// The id of the colours in the document.
    id: &'static str,
    about: &'static str,
    colours: &'static [Colour],
    rows: usize,
    cols: usize,
    /// Row-major: a level of the colours, or `MASKED`.
    pixels: Vec<u8>,
    /// Numbers, and their fractions of the colour scale.
    marks: Vec<(f64, String)>,
}

impl Map {
    fn of_scores(scores: &Array) -> Self {
        let end = end_of_scale(scores);
        let pixel = |score: f32| match score {
            f32::NEG_INFINITY => MASKED,
            _ if end == 0.0 => level(0.5),
            _ => level(0.5 + 0.5 * f64::from(score) / end),
        };
        let mark = |part: f64| (0.5 + 0.5 * part, number(part * end, end));
        Self {
            title: "Scores",
            id: "scores",
            about: "scale · key · query; at most 1 in 100 lie beyond the ends",
            colours: &SCORES,
            rows: scores.rows,
            cols: scores.cols,
            pixels: scores.iter().map(pixel).collect(),
            marks: [-1.0, -0.5, 0.0, 0.5, 1.0].map(mark).into(),
        }
    }

    fn of_weights(weights: &Array, scores: &Array, keys: usize) -> Self {
        // Powers of ten, down to a tenth of 1 / keys or below.
        let decades = (10.0 * keys as f64).log10().ceil();
        let pixel = |(weight, score): (f32, f32)| match score {
            f32::NEG_INFINITY => MASKED,
            _ => level(1.0 + f64::from(weight).log10() / decades),
        };
        let mark = |power: i32| {
            let weight = 10f64.powi(-power);
            (1.0 - f64::from(power) / decades, format!("{weight:.*}", power as usize))
        };
        Self {
            title: "Pattern: softmax of every column",
            id: "weights",
            about: "weights on a logarithmic scale; every column sums to 1",
            colours: &WEIGHTS,
            rows: weights.rows,
            cols: weights.cols,
            pixels: weights.iter().zip(scores.iter()).map(pixel).collect(),
            marks: (0..=decades as i32).map(mark).collect(),
        }
    }

    /// Encodes a file in which each pixel is repeated `height` × `width` times.
    fn png(&self, height: usize, width: usize) -> Result<Vec<u8>, png::EncodingError> {
        let rows = self.pixels.chunks(self.cols).flat_map(|row| iter::repeat_n(row, height));
        let pixels: Vec<u8> =
            rows.flatten().flat_map(|&pixel| iter::repeat_n(pixel, width)).collect();
        let share = |level| f64::from(level) / f64::from(LEVELS - 1);
        let mut palette: Vec<u8> =
            (0..LEVELS).flat_map(|level| colour(self.colours, share(level))).collect();
        palette.extend(HIDDEN_COLOUR);

        let mut file = Vec::new();
        let mut encoder =
            png::Encoder::new(&mut file, (self.cols * width) as u32, (self.rows * height) as u32);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(palette);
        // Other compression settings take five times as long for 10 % less.
        encoder.set_compression(png::Compression::Fastest);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish()?;
        Ok(file)
    }
}

/// Returns the level at this fraction of the scale, clamped to its ends.
fn level(share: f64) -> u8 {
    let last = f64::from(LEVELS - 1);
    (share * last).round().clamp(0.0, last) as u8
}

/// Returns the end of the colour scale of the scores: at most 1 in 100 is stronger.
fn end_of_scale(scores: &Array) -> f64 {
    let visible = scores.iter().filter(|score| score.is_finite());
    let mut sizes: Vec<f32> = visible.map(f32::abs).collect();
    let place = sizes.len() * 99 / 100;
    match sizes.select_nth_unstable_by(place, f32::total_cmp).1 {
        0.0 => strongest(scores),
        end => f64::from(*end),
    }
}

/// Returns the size of a cell on the sheet: an integer, so that all cells are equal, or less than 1.
fn cell(cells: usize, long: f64) -> f64 {
    let whole = (long / 2.0 / cells as f64).ceil();
    whole.min(long / cells as f64)
}

/// The axis of the keys or of the queries.
struct Axis {
    /// The size of a cell on the sheet.
    cell: f64,
    length: f64,
    /// The positions and labels of the ticks.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn new(labels: &Labels, cell: f64, apart: f64) -> Self {
        let count = labels.len() as f64;
        let cell = if count * cell < SHORT { (SHORT / count).ceil() } else { cell };
        let mut steps = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10usize.pow(power)));
        let step = steps.find(|&step| step as f64 * cell >= apart).unwrap_or(1);
        let label = |i: usize| match step {
            1 => labels.texts()[i].clone(),
            _ => labels.with_position(i),
        };
        let tick = |i| ((i as f64 + 0.5) * cell, shortened(&label(i), MAX_LABEL));
        Self {
            cell,
            length: count * cell,
            ticks: (0..labels.len()).step_by(step).map(tick).collect(),
        }
    }

    fn unlabelled(&self) -> Self {
        Self { ticks: Vec::new(), ..*self }
    }

    /// Returns the pixels of the sheet per cell, at least 1.
    fn pixels(&self) -> usize {
        (self.cell as usize).max(1)
    }

    fn labels(&self) -> impl Iterator<Item = &String> {
        self.ticks.iter().map(|(_, label)| label)
    }
}

/// The position of a heat map on the sheet.
struct Panel<'a> {
    keys: &'a Axis,
    queries: &'a Axis,
    left: f64,
    top: f64,
    /// Of the query labels.
    angle: f64,
    /// Describes the block of cells of a pixel, if it has more than one.
    blocks: Option<String>,
}

impl Panel<'_> {
    fn draw(&self, map: &Map) -> Result<Group, png::EncodingError> {
        Ok(Group::new()
            .add(heading(map.title, self.left, HEADER - 4.0))
            .add(self.axes())
            .add(self.image(map)?)
            .add(self.scale(map)))
    }

    fn image(&self, map: &Map) -> Result<Image, png::EncodingError> {
        // Some programs blur enlarged pixels, so that they are enlarged here.
        let file = map.png(self.keys.pixels(), self.queries.pixels())?;
        let crisp = self.keys.cell >= 1.0 && self.queries.cell >= 1.0;
        Ok(Image::new()
            .set("x", round(self.left))
            .set("y", round(self.top))
            .set("width", round(self.queries.length))
            .set("height", round(self.keys.length))
            .set("preserveAspectRatio", "none")
            .set("image-rendering", if crisp { "pixelated" } else { "auto" })
            .set("href", format!("data:image/png;base64,{}", STANDARD.encode(file))))
    }

    fn axes(&self) -> Group {
        // At a distance from the cells, as the outermost may be thinner than this line.
        let (left, top) = (self.left - 2.5, self.top - 2.5);
        let frame = outlined(left, top, self.queries.length + 5.0, self.keys.length + 5.0);
        let mut group = Group::new().add(frame.set("fill", "none"));
        for (at, label) in &self.keys.ticks {
            let y = self.top + at;
            let label = text(label, left - TICK - 4.0, y + LABEL_SIZE * 0.35, LABEL_SIZE, KEY);
            group = group
                .add(line((left - TICK, y), (left, y), FAINT))
                .add(label.set("text-anchor", "end"));
        }
        for (at, label) in &self.queries.ticks {
            let x = self.left + at;
            group = group.add(line((x, top - TICK), (x, top), FAINT)).add(rising(
                label,
                (x, top - TICK - 4.0),
                LABEL_SIZE,
                QUERY,
                self.angle,
            ));
        }
        group
    }

    /// Draws the colour bar, with numbers below.
    fn scale(&self, map: &Map) -> Group {
        let Map { id, about, colours, ref marks, ref pixels, .. } = *map;
        let (left, bottom) = (self.left, self.top + self.keys.length);
        let mut gradient = LinearGradient::new().set("id", id);
        for (i, [red, green, blue]) in colours.iter().enumerate() {
            let stop = Stop::new()
                .set("offset", format!("{:.2}%", 100.0 * i as f64 / (colours.len() - 1) as f64))
                .set("stop-color", format!("#{red:02x}{green:02x}{blue:02x}"));
            gradient = gradient.add(stop);
        }
        let (top, foot) = (bottom + 18.0, bottom + 18.0 + BAR_HEIGHT);
        let bar = outlined(left, top, BAR_WIDTH, BAR_HEIGHT).set("fill", format!("url(#{id})"));
        let mut group = Group::new().add(gradient).add(bar);
        for (share, mark) in marks {
            let x = left + share * BAR_WIDTH;
            let mark = text(mark, x, foot + 15.0, LABEL_SIZE, FAINT).set("text-anchor", "middle");
            group = group.add(line((x, foot), (x, foot + 3.0), FAINT)).add(mark);
        }
        if pixels.contains(&MASKED) {
            let x = left + BAR_WIDTH + 24.0;
            group = group
                .add(outlined(x, top, BAR_HEIGHT, BAR_HEIGHT).set("fill", HIDDEN))
                .add(text("masked", x + BAR_HEIGHT + 5.0, foot - 2.0, LABEL_SIZE, FAINT));
        }
        let lines = [Some(about), self.blocks.as_deref()];
        for (i, about) in lines.into_iter().flatten().enumerate() {
            group =
                group.add(text(about, left, bottom + 66.0 + i as f64 * LINE, LABEL_SIZE, FAINT));
        }
        group
    }
}

/// Returns the colour at this fraction of the scale.
fn colour(colours: &[Colour], share: f64) -> Colour {
    let place = share * (colours.len() - 1) as f64;
    let first = (place as usize).min(colours.len() - 2);
    let part = place - first as f64;
    let mix = |i: usize| {
        let [from, to] = [colours[first][i], colours[first + 1][i]].map(f64::from);
        (from + (to - from) * part).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

fn outlined(x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new()
        .set("x", round(x))
        .set("y", round(y))
        .set("width", round(width))
        .set("height", round(height))
        .set("stroke", GRID)
}
