//! The options of an attention call for tests: drawn at random, with the visible keys by definition.

use std::ops::Range;

use sdpa::{Attention, Backend};

use super::{
    cases::{Kind, Rng},
    grid::Grid,
    mask::Mask,
};

/// The options from which [`Attention`] is built.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) scale: Option<f32>,
    /// 0: no capping.
    pub(crate) softcap: f32,
    pub(crate) bias: Option<Mask>,
    /// None, or one per head.
    pub(crate) slopes: Vec<f32>,
    pub(crate) keep: Option<Mask<u8>>,
    pub(crate) causal: bool,
    pub(crate) offset: isize,
    pub(crate) window: [usize; 2],
    pub(crate) keep_first: usize,
    /// None, one for all heads, or one per head.
    pub(crate) sinks: Vec<f32>,
}

impl Options {
    pub(crate) fn new() -> Self {
        Self {
            scale: None,
            softcap: 0.0,
            bias: None,
            slopes: Vec::new(),
            keep: None,
            causal: false,
            offset: 0,
            window: [usize::MAX; 2],
            keep_first: 0,
            sinks: Vec::new(),
        }
    }

    pub(crate) fn attention(&self, backend: Backend) -> Attention<'_> {
        let mut attention = Attention::new().on(backend).query_offset(self.offset);
        let [left, right] = self.window;
        attention = attention.window(left, right).keep_first(self.keep_first);
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if self.softcap != 0.0 {
            attention = attention.softcap(self.softcap);
        }
        if let Some(bias) = &self.bias {
            attention = attention.bias(bias.view());
        }
        if !self.slopes.is_empty() {
            attention = attention.slopes(&self.slopes);
        }
        if let Some(keep) = &self.keep {
            attention = attention.keep(keep.view());
        }
        if self.causal {
            attention = attention.causal();
        }
        match self.sinks[..] {
            [] => attention,
            [sink] => attention.sink(sink),
            _ => attention.sinks(&self.sinks),
        }
    }

    /// The sink of a head; −∞: none.
    pub(crate) fn sink(&self, head: usize) -> f32 {
        match self.sinks[..] {
            [] => f32::NEG_INFINITY,
            [sink] => sink,
            _ => self.sinks[head],
        }
    }

    /// The options of one head.
    pub(crate) fn of_head(&self, head: usize) -> Self {
        self.of_heads(head..head + 1)
    }

    /// The options of a range of heads.
    pub(crate) fn of_heads(&self, heads: Range<usize>) -> Self {
        let each = |of: &[f32]| of.get(heads.clone()).unwrap_or(of).to_vec();
        let sinks = if self.sinks.len() > 1 { each(&self.sinks) } else { self.sinks.clone() };
        Self {
            bias: self.bias.as_ref().map(|bias| bias.heads(heads.clone())),
            slopes: each(&self.slopes),
            keep: self.keep.as_ref().map(|keep| keep.heads(heads.clone())),
            sinks,
            ..self.clone()
        }
    }

    /// The distance of a key from the query's position, as a float.
    pub(crate) fn distance(&self, key: usize, token: usize) -> f32 {
        let position = self.offset as i128 + token as i128;
        position.abs_diff(key as i128).min(1 << 30) as f32
    }

    /// Whether a query of head 0 sees a key.
    pub(crate) fn sees(&self, key: usize, token: usize) -> bool {
        self.reaches(key, token)
            && self.keep.as_ref().is_none_or(|keep| keep.at(key, token) != 0)
            && self.bias.as_ref().is_none_or(|bias| bias.at(key, token) != f32::NEG_INFINITY)
    }

    /// Whether causal and window allow it. Positions and limits are integers that do not overflow.
    fn reaches(&self, key: usize, token: usize) -> bool {
        let position = self.offset as i128 + token as i128;
        let [left, right] = self.window.map(|n| (n != usize::MAX).then_some(n as i128));
        let key = key as i128;
        (!self.causal || key <= position)
            && (key < self.keep_first as i128 || left.is_none_or(|left| key >= position - left))
            && (self.causal || right.is_none_or(|right| key <= position + right))
    }

    /// The options for a range of keys and of queries, which keep their positions.
    pub(crate) fn part(&self, keys: [usize; 2], tokens: [usize; 2]) -> Self {
        let [first, end] = keys;
        let [from, to] = tokens;
        Self {
            bias: self.bias.as_ref().map(|bias| bias.map(|of| part(&of, [first, end], [from, to]))),
            keep: self.keep.as_ref().map(|keep| keep.map(|of| part(&of, [first, end], [from, to]))),
            offset: self.offset + from as isize,
            ..self.clone()
        }
    }

    /// Any options, for a grid of these sizes.
    pub(crate) fn random(rng: &mut Rng, heads: usize, keys: usize, queries: usize) -> Self {
        let (scale, cap) = (rng.between(-2.0, 2.0), rng.between(0.1, 50.0));
        let bias_kind = rng.pick(&[
            Kind::Ordinary,
            Kind::Masked,
            Kind::Masked,
            Kind::Wide,
            Kind::Infinite,
            Kind::OneNan,
        ]);
        let mut limit = || {
            let any = rng.below(keys + 5);
            rng.pick(&[0, 1, 3, any, any, usize::MAX])
        };
        let window = [limit(), limit()];
        let keep_first = [rng.below(6), rng.below(keys + 70)];
        let near = rng.below(200) as isize - 100;
        let aligned = keys as isize - queries as isize;
        // The largest offset with which `part` does not overflow for any range of queries.
        let largest = isize::MAX - queries as isize;
        let mask_heads = if rng.one_in(2) { heads } else { 1 };
        let sinks = match rng.below(4) {
            0 => (0..heads).map(|_| Self::random_sink(rng)).collect(),
            1 => vec![Self::random_sink(rng)],
            _ => Vec::new(),
        };
        Self {
            scale: rng.pick(&[None, None, None, Some(1.0), Some(0.0), Some(1e-30), Some(scale)]),
            softcap: if rng.one_in(4) { rng.pick(&[cap, cap, 1e-3, 1e30]) } else { 0.0 },
            bias: rng.one_in(3).then(|| {
                Mask::from_fn(mask_heads, |_| Grid::random(rng, bias_kind, keys, queries))
            }),
            slopes: match rng.below(4) {
                0 => (0..heads).map(|_| Self::random_slope(rng)).collect(),
                _ => Vec::new(),
            },
            keep: rng
                .one_in(3)
                .then(|| Mask::from_fn(mask_heads, |_| random_keep(rng, keys, queries))),
            causal: rng.one_in(3),
            offset: rng.pick(&[0, 0, 0, aligned, aligned, near, near, isize::MIN, largest]),
            window: if rng.one_in(3) { window } else { [usize::MAX; 2] },
            keep_first: rng.pick(&[0, keep_first[0], keep_first[1]]),
            sinks,
        }
    }

    fn random_slope(rng: &mut Rng) -> f32 {
        let any = rng.between(-0.5, 0.5);
        let largest = 97_f32.exp2();
        rng.pick(&[any, any, any, 0.0, 0.125, 1e-30, f32::from_bits(1), largest, -largest])
    }

    fn random_sink(rng: &mut Rng) -> f32 {
        let any = rng.between(-20.0, 20.0);
        rng.pick(&[any, any, f32::NEG_INFINITY, 0.0, 300.0, -3000.0, 1e30, f32::MIN])
    }
}

/// A boolean mask of single keys, of whole blocks, or of all keys of a query.
fn random_keep(rng: &mut Rng, keys: usize, queries: usize) -> Grid<u8> {
    let part = 1 + rng.below(4);
    match rng.below(4) {
        0 => Grid::from_fn(keys, queries, |_, _| u8::from(!rng.one_in(part))),
        1 => {
            let blocks: Vec<u8> = (0..keys / 64 + 1).map(|_| rng.below(2) as u8).collect();
            Grid::from_fn(keys, queries, |key, _| blocks[key / 64])
        }
        2 => {
            let blocks = Grid::from_fn(keys / 64 + 1, queries, |_, _| rng.below(2) as u8);
            Grid::from_fn(keys, queries, |key, query| 255 * blocks.at(key / 64, query))
        }
        _ => {
            let seen: Vec<bool> = (0..queries).map(|_| rng.one_in(2)).collect();
            Grid::from_fn(keys, queries, |_, query| u8::from(seen[query] && !rng.one_in(8)))
        }
    }
}

/// A range of rows and of columns of a grid.
pub(crate) fn part<T: Copy>(grid: &Grid<T>, rows: [usize; 2], cols: [usize; 2]) -> Grid<T> {
    Grid::from_fn(rows[1] - rows[0], cols[1] - cols[0], |row, col| {
        grid.at(rows[0] + row, cols[0] + col)
    })
}
