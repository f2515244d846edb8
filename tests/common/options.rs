//! The options of an attention call for tests: drawn at random, with the visible keys by definition.

use sdpa::{Attention, Backend, MatrixRef};

use super::{
    cases::{Kind, Rng},
    grid::Grid,
};

/// The options from which [`Attention`] is built.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) scale: Option<f32>,
    /// 0: no capping.
    pub(crate) softcap: f32,
    /// Keys × queries, like `keep`.
    pub(crate) bias: Option<Grid>,
    pub(crate) keep: Option<Grid<u8>>,
    pub(crate) causal: bool,
    pub(crate) offset: isize,
    pub(crate) window: [usize; 2],
    /// None, one for all heads, or one per head.
    pub(crate) sinks: Vec<f32>,
}

impl Options {
    pub(crate) fn new() -> Self {
        Self {
            scale: None,
            softcap: 0.0,
            bias: None,
            keep: None,
            causal: false,
            offset: 0,
            window: [usize::MAX; 2],
            sinks: Vec::new(),
        }
    }

    pub(crate) fn attention(&self, backend: Backend) -> Attention<'_> {
        let mut attention = Attention::new().on(backend).query_offset(self.offset);
        let [left, right] = self.window;
        attention = attention.window(left, right);
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if self.softcap != 0.0 {
            attention = attention.softcap(self.softcap);
        }
        if let Some(bias) = &self.bias {
            attention = attention.bias(bias.view());
        }
        if let Some(keep) = &self.keep {
            attention = attention.keep(bytes(keep));
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

    /// Whether a query sees a key.
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
            && left.is_none_or(|left| key >= position - left)
            && (self.causal || right.is_none_or(|right| key <= position + right))
    }

    /// The options for a range of keys and of queries, which keep their positions.
    pub(crate) fn part(&self, keys: [usize; 2], tokens: [usize; 2]) -> Self {
        let [first, end] = keys;
        let [from, to] = tokens;
        Self {
            bias: self.bias.as_ref().map(|bias| part(bias, [first, end], [from, to])),
            keep: self.keep.as_ref().map(|keep| part(keep, [first, end], [from, to])),
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
        let near = rng.below(200) as isize - 100;
        let aligned = keys as isize - queries as isize;
        // The largest offset with which `part` does not overflow for any range of queries.
        let largest = isize::MAX - queries as isize;
        let sinks = match rng.below(4) {
            0 => (0..heads).map(|_| Self::random_sink(rng)).collect(),
            1 => vec![Self::random_sink(rng)],
            _ => Vec::new(),
        };
        Self {
            scale: rng.pick(&[None, None, None, Some(1.0), Some(0.0), Some(1e-30), Some(scale)]),
            softcap: if rng.one_in(4) { rng.pick(&[cap, cap, 1e-3, 1e30]) } else { 0.0 },
            bias: rng.one_in(3).then(|| Grid::random(rng, bias_kind, keys, queries)),
            keep: rng.one_in(3).then(|| random_keep(rng, keys, queries)),
            causal: rng.one_in(3),
            offset: rng.pick(&[0, 0, 0, aligned, aligned, near, near, isize::MIN, largest]),
            window: if rng.one_in(4) { window } else { [usize::MAX; 2] },
            sinks,
        }
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

/// The view of a boolean mask.
pub(crate) fn bytes(keep: &Grid<u8>) -> MatrixRef<'_, u8> {
    MatrixRef::new(&keep.data, keep.rows, keep.cols).expect("dense")
}
