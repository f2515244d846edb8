//! The options of an attention call, decoded from bytes, with the visible keys by definition.

use std::ops::Range;

use sdpa::{Attention, Backend, Error};

use super::{super::input::Input, rows};
use crate::common::{grid::Grid, mask::Mask};

/// The options of a call; `sees` and `distance` are those of head 0.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) scale: Option<f32>,
    pub(crate) softcap: f32,
    pub(crate) causal: bool,
    pub(crate) window: [usize; 2],
    pub(crate) keep_first: usize,
    pub(crate) offset: isize,
    pub(crate) keep: Option<Mask<u8>>,
    pub(crate) bias: Option<Mask>,
    /// None, or one per head.
    pub(crate) slopes: Vec<f32>,
    /// One for all heads, or one per head.
    pub(crate) sinks: Vec<f32>,
}

impl Options {
    pub(crate) fn new(input: &mut Input<'_>, heads: usize, keys: usize, queries: usize) -> Self {
        let flags = input.u8();
        let has = |bit: u8| flags >> bit & 1 == 1;
        let scale = has(0).then(|| input.f32());
        let softcap = if has(1) { input.f32() } else { 0.0 };
        let mut limit = || match input.u8() {
            255 => usize::MAX,
            254 => usize::MAX / 2 + 1,
            limit => usize::from(limit),
        };
        let window = if has(2) { [limit(), limit()] } else { [usize::MAX; 2] };
        let offset = match has(4) {
            false => keys as isize - queries as isize,
            true => match input.u8() {
                255 => isize::MAX,
                // The largest offset with which that of a part of the keys does not overflow.
                254 => isize::MIN + keys as isize,
                offset => isize::from(offset) - 100,
            },
        };
        let kind = input.u8();
        let mask_heads = if kind % 2 == 1 { heads } else { 1 };
        let keep_first = if kind / 4 % 2 == 1 { usize::from(kind / 8) } else { 0 };
        let slopes = if kind / 2 % 2 == 1 { input.values(heads) } else { Vec::new() };
        let keep = has(5).then(|| Mask::from_fn(mask_heads, |_| input.mask(keys, queries)));
        let bias = has(6).then(|| {
            Mask::from_fn(mask_heads, |_| {
                let data = input.values(keys * queries);
                Grid { rows: keys, cols: queries, data }
            })
        });
        let sinks = match has(7) {
            false => Vec::new(),
            true => {
                let count = if input.u8().is_multiple_of(2) { 1 } else { heads };
                input.values(count)
            }
        };
        Self {
            scale,
            softcap,
            causal: has(3),
            window,
            keep_first,
            offset,
            keep,
            bias,
            slopes,
            sinks,
        }
    }

    /// Returns the error that the call must return if an option is out of range.
    pub(crate) fn error(&self) -> Option<Error> {
        let out_of_range = self.scale.is_some_and(|scale| !scale.is_finite())
            || !self.softcap.is_finite()
            || self.softcap < 0.0
            || self.slopes.iter().any(|slope| slope.is_nan() || slope.abs() > 97_f32.exp2())
            || self.sinks.iter().any(|sink| sink.is_nan() || *sink == f32::INFINITY);
        out_of_range.then_some(Error::Option)
    }

    pub(crate) fn attention(&self, backend: Backend) -> Attention<'_> {
        let [left, right] = self.window;
        let mut attention =
            Attention::new().on(backend).window(left, right).query_offset(self.offset);
        attention = attention.keep_first(self.keep_first);
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if self.softcap != 0.0 {
            attention = attention.softcap(self.softcap);
        }
        if self.causal {
            attention = attention.causal();
        }
        if let Some(keep) = &self.keep {
            attention = attention.keep(keep.view());
        }
        if let Some(bias) = &self.bias {
            attention = attention.bias(bias.view());
        }
        if !self.slopes.is_empty() {
            attention = attention.slopes(&self.slopes);
        }
        match self.sinks[..] {
            [] => attention,
            [sink] => attention.sink(sink),
            _ => attention.sinks(&self.sinks),
        }
    }

    /// The options of a range of heads.
    pub(crate) fn of_heads(&self, heads: Range<usize>) -> Self {
        Self {
            keep: self.keep.as_ref().map(|keep| keep.heads(heads.clone())),
            bias: self.bias.as_ref().map(|bias| bias.heads(heads.clone())),
            slopes: self.slopes.get(heads.clone()).unwrap_or_default().to_vec(),
            sinks: match self.sinks.len() {
                0 | 1 => self.sinks.clone(),
                _ => self.sinks[heads].to_vec(),
            },
            ..*self
        }
    }

    pub(crate) fn sink(&self) -> f32 {
        self.sinks.first().copied().unwrap_or(f32::NEG_INFINITY)
    }

    /// The slope, times the distance of the key as a float.
    pub(crate) fn slope_by_distance(&self, key: usize, token: usize) -> f64 {
        let position = self.offset as i128 + token as i128;
        let distance = position.abs_diff(key as i128).min(1 << 30) as f32;
        self.slopes.first().map_or(0.0, |slope| f64::from(*slope) * f64::from(distance))
    }

    /// Whether a query sees a key.
    pub(crate) fn sees(&self, key: usize, token: usize) -> bool {
        let (at, position) = (key as i128, self.offset as i128 + token as i128);
        let [left, right] = self.window;
        (left == usize::MAX || at >= position - left as i128 || key < self.keep_first)
            && (right == usize::MAX || at <= position + right as i128)
            && (!self.causal || at <= position)
            && self.keep.as_ref().is_none_or(|keep| keep.at(key, token) != 0)
            && self.bias.as_ref().is_none_or(|bias| bias.at(key, token) != f32::NEG_INFINITY)
    }

    /// Returns the options for the keys `from..to`, which keep their positions.
    pub(crate) fn part(&self, from: usize, to: usize) -> Self {
        Self {
            offset: self.offset - from as isize,
            keep_first: self.keep_first.saturating_sub(from),
            keep: self.keep.as_ref().map(|keep| keep.map(|of| rows(&of, from, to))),
            bias: self.bias.as_ref().map(|bias| bias.map(|of| rows(&of, from, to))),
            ..self.clone()
        }
    }

    /// Returns the options for the keys besides these: masks have no rows for them.
    pub(crate) fn without(&self, dropped: Range<usize>) -> Self {
        fn left<T: Copy>(of: &Grid<T>, dropped: &Range<usize>) -> Grid<T> {
            Grid::from_fn(of.rows - dropped.len(), of.cols, |row, col| {
                of.at(if row < dropped.start { row } else { row + dropped.len() }, col)
            })
        }
        Self {
            keep: self.keep.as_ref().map(|keep| keep.map(|of| left(&of, &dropped))),
            bias: self.bias.as_ref().map(|bias| bias.map(|of| left(&of, &dropped))),
            ..self.clone()
        }
    }
}
