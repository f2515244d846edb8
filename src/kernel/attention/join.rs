//! Joins the states of spans into outputs, in the order of their positions.
//!
//! ```text
//! for each vector of queries
//!   total = the sink or nothing
//!   for each state, in ascending order of the spans
//!     total = the lesser of total and the state, rescaled, + the larger
//!   out = acc / sum of the total
//! ```
//!
//! The steps and the bits are those of [`FlashAttention`](super::FlashAttention) at the ends of its spans. Here a
//! lane is a query for `max` and `sum`, and a value column for `acc`, which waits in the output.

use heapless::Vec;

use super::{State, Sums, WriteSums, normaliser};
use crate::{
    error::Error,
    kernel::Kernel,
    matrix::{HeadsMut, MatrixMut, MatrixRef},
    simd::{Vector, array, strip},
};

/// The floats of a state before its accumulators: the index of the span in two parts, `max` and `sum`.
pub(crate) const HEADER: usize = 4;

/// The radix of the two parts of a span's index: floats hold whole numbers of 24 bits.
const RADIX: u64 = 1 << 24;

/// The end of the indices of spans.
pub(crate) const INDICES: u64 = RADIX * RADIX;

/// The two parts of the index of a span, which is less than [`INDICES`].
pub(crate) fn index_parts(index: u64) -> [f32; 2] {
    [index / RADIX, index % RADIX].map(|part| part as f32)
}

/// The index of the span of a state, or `None` where its parts are not whole numbers of 24 bits.
fn index_of(state: &[f32]) -> Option<u64> {
    let [high, low] = *state.first_chunk()?;
    let [whole_high, whole_low] = [high, low].map(|part: f32| part as u64);
    let index = whole_high.checked_mul(RADIX)?.checked_add(whole_low)?;
    (whole_high < RADIX && index_parts(index) == [high, low]).then_some(index)
}

/// The states of `count` spans: for each a row per query, head after head.
pub(crate) struct SpanStates<'a> {
    states: &'a [f32],
    queries: usize,
    row: usize,
    count: usize,
    /// Whether the spans are in ascending order.
    are_ascending: bool,
}

/// The number of spans whose order is found by one search: 1000 spans in any order take 32 searches per vector
/// of queries, less time than their accumulators.
const BATCH: usize = 32;

/// A position in the ascending order of the spans.
#[derive(Default)]
struct Cursor {
    done: usize,
    /// The spans up to the next search, in ascending order: index, and place among the states.
    batch: Vec<(u64, usize), BATCH>,
    /// The number of spans of `batch` that are done.
    done_of_batch: usize,
}

impl<'a> SpanStates<'a> {
    /// The states of `queries` queries with rows of `row` floats.
    ///
    /// [`Error::Shape`] if the length is that of no number of spans; [`Error::Position`] if an index is none,
    /// differs between the queries of a span, or is there twice.
    pub(crate) fn new(states: &'a [f32], queries: usize, row: usize) -> Result<Self, Error> {
        let span = queries.checked_mul(row).ok_or(Error::Shape)?;
        let count = match (states.len().checked_div(span), states.len().checked_rem(span)) {
            (Some(count), Some(0)) => count,
            (None, _) if states.is_empty() => 0,
            _ => return Err(Error::Shape),
        };
        let mut this = Self { states, queries, row, count, are_ascending: true };
        let mut before = None;
        for place in 0..count {
            let index = this.index(place).ok_or(Error::Position)?;
            let rows = states.chunks_exact(row).skip(place * queries).take(queries);
            if rows.map(index_of).any(|other| other != Some(index)) {
                return Err(Error::Position);
            }
            this.are_ascending &= before < Some(index);
            before = Some(index);
        }
        let mut cursor = Cursor::default();
        while this.next(&mut cursor).is_some() {}
        // A span that is there twice is found once.
        if cursor.done == count { Ok(this) } else { Err(Error::Position) }
    }

    fn row_of(&self, place: usize, query: usize) -> &'a [f32] {
        let first = (place * self.queries + query) * self.row;
        self.states.get(first..first + self.row).unwrap_or_default()
    }

    fn index(&self, place: usize) -> Option<u64> {
        index_of(self.row_of(place, 0))
    }

    /// The place of the next span in ascending order.
    #[inline(never)]
    fn next(&self, cursor: &mut Cursor) -> Option<usize> {
        if self.are_ascending {
            let place = cursor.done;
            cursor.done += usize::from(place < self.count);
            return (place < self.count).then_some(place);
        }
        if cursor.done_of_batch == cursor.batch.len() {
            let last = cursor.batch.last().map(|&(index, _)| index);
            cursor.batch.clear();
            cursor.done_of_batch = 0;
            for place in 0..self.count {
                let Some(index) = self.index(place) else { continue };
                if last < Some(index) {
                    Self::insert(&mut cursor.batch, (index, place));
                }
            }
        }
        let &(_, place) = cursor.batch.get(cursor.done_of_batch)?;
        cursor.done_of_batch += 1;
        cursor.done += 1;
        Some(place)
    }

    /// Inserts a span in its place, unless it is there or the list is full of lesser ones.
    fn insert(batch: &mut Vec<(u64, usize), BATCH>, span: (u64, usize)) {
        if batch.iter().any(|other| other.0 == span.0) {
            return;
        }
        if batch.is_full() {
            if batch.last().is_some_and(|largest| largest.0 < span.0) {
                return;
            }
            let _ = batch.pop();
        }
        // Cannot fail: there is room.
        let _ = batch.push(span);
        for end in (2..=batch.len()).rev() {
            if let Some([.., a, b]) = batch.get_mut(..end)
                && a.0 > b.0
            {
                core::mem::swap(a, b);
            }
        }
    }
}

/// The join of the states of spans. All shapes agree.
pub(crate) struct JoinStates<'a> {
    pub(crate) states: &'a SpanStates<'a>,
    /// One sink per query head, or empty.
    pub(crate) sinks: &'a [f32],
    /// The sink of all heads, where `sinks` is empty.
    pub(crate) sink: f32,
    pub(crate) out: HeadsMut<'a>,
    pub(crate) sums: Option<WriteSums<'a>>,
}

impl Kernel for JoinStates<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        mut self,
        token: V::Token,
    ) {
        for first in (0..self.states.queries).step_by(L) {
            let count = (self.states.queries - first).min(L);
            let mut total = None;
            if !self.sinks.is_empty() || self.sink > f32::NEG_INFINITY {
                let sinks: [f32; L] = array!(|lane| self.sink_of(first + lane));
                total = Some(State::new(token, Some([V::load(token, &sinks)])));
                self.scale::<L, V>(token, first, count, None);
            }
            let mut cursor = Cursor::default();
            while let Some(place) = self.states.next(&mut cursor) {
                total = Some(self.add::<L, V>(token, first, count, place, total));
            }
            let total = total.unwrap_or_else(
                #[inline(always)]
                || State::new(token, None),
            );
            let factors = normaliser(token, total.sum[0]).to_array();
            let factors = (cursor.done > 0).then_some(factors);
            self.scale::<L, V>(token, first, count, factors);
            if let Some(write) = &mut self.sums {
                let [max, sum] = [total.m[0], total.sum[0]].map(V::to_array);
                if let (Some(max), Some(sum)) = (max.get(..count), sum.get(..count)) {
                    write(first, Sums { max, sum });
                }
            }
        }
    }
}

impl JoinStates<'_> {
    fn sink_of(&self, query: usize) -> f32 {
        let head = query.checked_div(self.out.rows()).unwrap_or(0);
        self.sinks.get(head).copied().unwrap_or(self.sink)
    }

    /// The output of a query, and its row in it.
    #[inline(always)]
    fn out_of(&mut self, query: usize) -> Option<(MatrixMut<'_>, usize)> {
        let tokens = self.out.rows();
        let (head, row) = (query.checked_div(tokens)?, query.checked_rem(tokens)?);
        Some((self.out.head_mut(head)?, row))
    }

    /// Adds the states at `place` of `count` queries from `first` on to `total`, whose accumulators are in the
    /// output.
    #[inline(always)]
    fn add<const L: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        first: usize,
        count: usize,
        place: usize,
        total: Option<State<1, V>>,
    ) -> State<1, V> {
        let states = self.states;
        let [mut max, mut sum] = [[f32::NEG_INFINITY; L], [0.0; L]];
        for (lane, (max, sum)) in max.iter_mut().zip(&mut sum).enumerate().take(count) {
            if let Some(&[_, _, m, s]) = states.row_of(place, first + lane).first_chunk::<HEADER>()
            {
                (*max, *sum) = (m, s);
            }
        }
        let mut state = State::new(token, None);
        state.raise_maximum(token, [V::load(token, &max)]);
        state.sum = [V::load(token, &sum)];
        let (state, join) = match total {
            Some(total) => {
                let (state, join) = state.join(token, total);
                (state, Some(join))
            }
            None => (state, None),
        };
        for lane in 0..count {
            let acc = states.row_of(place, first + lane).get(HEADER..).unwrap_or_default();
            let acc = MatrixRef::from_row(acc);
            let join = join.map(
                #[inline(always)]
                |join| join.lane(token, lane),
            );
            let Some((mut out, row)) = self.out_of(first + lane) else { break };
            for col in (0..acc.cols()).step_by(L) {
                let [mut x]: [V; 1] = strip::read(token, acc, 0, col);
                if let Some(join) = join {
                    let [total]: [V; 1] = strip::read(token, out.view(), row, col);
                    x = join.apply(0, x, total);
                }
                strip::write::<L, 1, 1, V>(&mut out, row, col, [[x]]);
            }
        }
        state
    }

    /// Multiplies the outputs of `count` queries from `first` on by their factors; writes +0 without factors.
    #[inline(always)]
    fn scale<const L: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        first: usize,
        count: usize,
        factors: Option<[f32; L]>,
    ) {
        let zero = V::splat(token, 0.0);
        for lane in 0..count {
            let factor = factors.map(|factors| factors.get(lane).copied().unwrap_or(0.0));
            let Some((mut out, row)) = self.out_of(first + lane) else { break };
            for col in (0..out.cols()).step_by(L) {
                let mut x = zero;
                if let Some(factor) = factor {
                    let [acc]: [V; 1] = strip::read(token, out.view(), row, col);
                    x = acc.mul_add(V::splat(token, factor), zero);
                }
                strip::write::<L, 1, 1, V>(&mut out, row, col, [[x]]);
            }
        }
    }
}
