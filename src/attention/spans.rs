//! States of spans: attention over parts of the keys, joined exactly. Public API.

use super::{Attention, LOGARITHM, SINK, split_widened};
use crate::{
    dispatch::Backend,
    elements::{AnyElementsRef, ElementsRef, KeysAndValues, Side},
    error::Error,
    kernel::{
        attention::{
            FlashAttention, OverBlocks, Sums,
            join::{HEADER, INDICES, JoinStates, SpanStates, index_parts},
        },
        blocks::{Blocks, Data, Elements},
        mask,
        scale::default_scale,
    },
    matrix::{HeadsMut, HeadsRef},
    narrow::Element,
    simd::flags::Flags,
};

/// The number of keys in a span: spans are counted from absolute key 0, and each has a
/// [state](Attention::run_spans) of its own.
pub const SPAN: usize = mask::SPAN;

impl Attention<'_> {
    /// The length of a state in floats, for one query and one span: `4 + value_dim`.
    ///
    /// | floats | |
    /// | --- | --- |
    /// | 0, 1 | the index of the span, `first key / SPAN`: the upper and the lower 24 bits, as whole numbers |
    /// | 2 | the largest visible score, −∞ if there is none |
    /// | 3 | the sum of the weights `e^(score − N · ln 2)`, with a whole number N chosen from float 2 |
    /// | 4 … | the weighted sums of the value columns |
    pub const fn state_floats(value_dim: usize) -> usize {
        value_dim.saturating_add(HEADER)
    }

    /// Computes the states of the spans that these keys fill: attention over a part of the keys, for
    /// [`join`](Self::join).
    ///
    /// The keys are those at the positions `first_key`, `first_key + 1`, …, where `first_key` is a multiple of
    /// [`SPAN`]; the last span may be short. Other calls, threads or machines compute other spans of the same
    /// queries, in any order. Joined, they give the bits of one [`run`](Self::run) over all keys, if all use back ends
    /// of one [`Family`](crate::Family).
    ///
    /// | argument | shape |
    /// | --- | --- |
    /// | `queries`, `keys`, `values`, `workspace` | as in [`run`](Self::run) |
    /// | `states` | spans × query heads × queries × [`state_floats`](Self::state_floats)`(width)`, with `keys.div_ceil(SPAN)` spans |
    ///
    /// Positions are absolute: query `i` sits at `query_offset + i`, and a bias or keep has a row for each of these
    /// keys. Sinks are checked and not used: `join` reads them. A state takes the place of the output: states need no
    /// memory besides, and the cost is that of `run`.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), with `states` for `out`; [`Error::Position`] if `first_key` is not a
    /// multiple of [`SPAN`], or exceeds `isize::MAX` or 2⁵⁸. Nothing is written then.
    pub fn run_spans<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        values: impl Into<HeadsRef<'b>>,
        first_key: u64,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (queries, keys, values) = (queries.into(), keys.into(), values.into());
        self.run_spans_views(&queries, [&keys, &values], first_key, states, workspace)
    }

    /// [`run_spans`](Self::run_spans) with views by reference: see [`run_views`](Self::run_views).
    #[doc(hidden)]
    pub fn run_spans_views(
        &self,
        queries: &HeadsRef<'_>,
        [keys, values]: [&HeadsRef<'_>; 2],
        first_key: u64,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let blocks = Blocks { data: Data::Floats([keys, values]), ring: None };
        self.run_spans_call(queries, &blocks, first_key, states, workspace)
    }

    /// [`run_spans`](Self::run_spans) with keys and values of any [`Element`]: see
    /// [`run_elements`](Self::run_elements).
    ///
    /// # Errors
    ///
    /// Those of [`run_spans`](Self::run_spans); [`Error::Workspace`] if `workspace` is shorter than
    /// [`elements_workspace`](Self::elements_workspace).
    pub fn run_elements_spans<'b, K: Element, V: Element>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: ElementsRef<'_, K>,
        values: ElementsRef<'_, V>,
        first_key: u64,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let elements = self.elements(keys, values, None);
        self.run_elements_spans_call(&queries.into(), &elements, first_key, states, workspace)
    }

    /// [`run_elements_spans`](Self::run_elements_spans) for the C library: see [`run_any`](Self::run_any).
    #[doc(hidden)]
    pub fn run_any_spans(
        &self,
        queries: &HeadsRef<'_>,
        [&keys, &values]: [&AnyElementsRef<'_>; 2],
        first_key: u64,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let elements = self.elements(keys, values, None);
        self.run_elements_spans_call(queries, &elements, first_key, states, workspace)
    }

    /// Checks all arguments, then runs the kernel over each span of the given keys and values. Key 0 of `blocks`
    /// has the position `first_key`.
    pub(crate) fn run_spans_call(
        &self,
        queries: &HeadsRef<'_>,
        blocks: &Blocks<'_>,
        first_key: u64,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.run_blocks_spans(queries, blocks, first_key, states, workspace)
    }

    /// [`run_spans_call`](Self::run_spans_call) over elements: the same function, but on a microcontroller one for
    /// these elements.
    pub(crate) fn run_elements_spans_call<K: Side, V: Side>(
        &self,
        queries: &HeadsRef<'_>,
        elements: &KeysAndValues<'_, K, V>,
        first_key: u64,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        if let Some([keys, values]) = elements.as_floats() {
            let blocks = Blocks { data: Data::Floats([&keys, &values]), ring: elements.ring };
            return self.run_spans_call(queries, &blocks, first_key, states, workspace);
        }
        let blocks = Blocks { data: Data::Elements(elements as _), ring: elements.ring };
        #[cfg(not(microcontroller))]
        return self.run_spans_call(queries, &blocks, first_key, states, workspace);
        #[cfg(microcontroller)]
        self.run_blocks_spans::<&KeysAndValues<'_, K, V>>(
            queries, &blocks, first_key, states, workspace,
        )
    }

    #[inline(always)]
    fn run_blocks_spans<E: Elements + Copy>(
        &self,
        queries: &HeadsRef<'_>,
        blocks: &Blocks<'_, E>,
        first_key: u64,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (heads, tokens) = (queries.heads(), queries.rows());
        let ([first, end], before) = (blocks.held(), blocks.keys_before());
        let [kept_spans, spans] = blocks.spans();
        let last_span = spans.end.max(kept_spans.end) as u64;
        let row = Self::state_floats(blocks.value_dim());
        let span_len = heads.checked_mul(tokens).and_then(|queries| queries.checked_mul(row));
        let count = kept_spans.len() + spans.len();
        let agree = span_len.and_then(|len| len.checked_mul(count)) == Some(states.len());
        let backend = self.check_call(queries, blocks, agree, workspace)?;
        let first_span = (first_key - before as u64) / SPAN as u64;
        let is_ring = blocks.ring.is_some();
        let is_between = !is_ring && !first_key.is_multiple_of(SPAN as u64);
        // A query's position in a cache is relative to its newest key.
        let first_key = isize::try_from(first_key).or(if is_ring { Ok(0) } else { Err(()) });
        let (Ok(first_key), false) = (first_key, is_between) else { return Err(Error::Position) };
        if first_span.saturating_add(last_span) > INDICES {
            return Err(Error::Position);
        }
        // Keys and queries are counted from `first_key`; those of a cache are not.
        let first_key = first_key.unsigned_abs();
        let (origin, first_key) =
            if is_ring { ([end, tokens], 0) } else { ([0, first_key], first_key) };
        let kept = self.kept(blocks).saturating_sub(first_key);
        let score_mods = self.score_mods_of_held(backend, blocks, origin);
        let flags = self.may_mask(first).then(Flags::read);
        let (widened, workspace) = split_widened(queries.cols(), blocks, workspace);
        let states = states.chunks_exact_mut(span_len.unwrap_or(0).max(1));
        for (span, states) in kept_spans.chain(spans).zip(states) {
            let index = index_parts(first_span + span as u64);
            let rows = HeadsMut::stacked(states, heads, tokens, row)?;
            let (mut headers, mut out) = rows.split_columns(HEADER)?;
            let start = span.saturating_mul(SPAN).saturating_sub(before);
            let end = (span + 1).saturating_mul(SPAN).saturating_sub(before).min(end);
            let keys = [start.max(first).min(end), end];
            let attention = FlashAttention {
                queries,
                queries_per_kv_head: heads / blocks.heads().max(1) * tokens,
                scale: self.scale.unwrap_or_else(|| default_scale(queries.cols())),
                visible: self.visible(keys, [start, kept.min(end)], origin),
                score_mod: score_mods.as_score_mod(),
                sink: f32::NEG_INFINITY,
                sinks: &[],
                out: &mut out,
                normalise: false,
                sums: Some(&mut |at, sums| write_headers(&mut headers, at, index, sums)),
                workspace,
            };
            backend.run(OverBlocks { attention, blocks, widened });
        }
        if let Some(flags) = flags {
            flags.restore();
        }
        Ok(())
    }

    /// Joins the states of spans into the output of every query: the bits of one [`run`](Self::run) over all the
    /// keys, for states of one [`Family`](crate::Family), which is that of the back end.
    ///
    /// | argument | shape |
    /// | --- | --- |
    /// | `states` | spans × query heads × queries × [`state_floats`](Self::state_floats)`(width)`, as [`run_spans`](Self::run_spans) and [`KvCache::run_spans`](crate::KvCache::run_spans) write them |
    /// | `out` | query heads × queries × width |
    /// | `log_sum_exp` | `None`, or receives query heads · queries logarithms, as [`run_with_log_sum_exp`](Self::run_with_log_sum_exp) writes them |
    ///
    /// The states of several calls follow one another. Their spans may be in any order, and spans may be absent: their
    /// keys then count as masked. A state without a visible key changes no bit. Of the options only the back end and the
    /// sinks are read. It takes two passes over the states and no memory; where spans are not in ascending order, each
    /// vector of queries also searches the indices of all spans once for every 32 of them.
    ///
    /// ```
    /// use sdpa::{Attention, Matrix, SPAN};
    ///
    /// let attention = Attention::new();
    /// let query = Matrix::from([[1.0]]);
    /// let (keys, values) = (Matrix([[0.5]; SPAN + 7]), Matrix([[2.0]; SPAN + 7]));
    /// let (first_keys, other_keys) = keys.view().split_rows(SPAN)?;
    /// let (first_values, other_values) = values.view().split_rows(SPAN)?;
    /// let mut states = [[0.0; Attention::state_floats(1)]; 2];
    /// let mut workspace = [0.0; Attention::workspace(1, 1)];
    /// let [one, two] = &mut states;
    /// // The second span first, as if other threads or machines had computed them.
    /// let first_key = SPAN as u64;
    /// attention.run_spans(query.view(), other_keys, other_values, first_key, one, &mut workspace)?;
    /// attention.run_spans(query.view(), first_keys, first_values, 0, two, &mut workspace)?;
    /// let mut out = Matrix::<1, 1>::ZERO;
    /// attention.join(states.as_flattened(), out.view_mut(), None)?;
    ///
    /// let mut whole = Matrix::<1, 1>::ZERO;
    /// let workspace = &mut workspace;
    /// attention.run(query.view(), keys.view(), values.view(), whole.view_mut(), workspace)?;
    /// assert_eq!(out.0, whole.0);
    /// # Ok::<(), sdpa::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if sizes disagree or the width is 0; [`Error::Position`] if a span is there twice, or an index
    /// is none or differs between the queries of a span; [`Error::Option`] if a sink is out of range. Nothing is
    /// written then.
    pub fn join<'b>(
        &self,
        states: &[f32],
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        self.join_views(states, &mut out.into(), log_sum_exp)
    }

    /// [`join`](Self::join) with the view by reference: see [`run_views`](Self::run_views).
    #[doc(hidden)]
    pub fn join_views(
        &self,
        states: &[f32],
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let queries = out.heads().checked_mul(out.rows()).ok_or(Error::Shape)?;
        let agree = out.cols() > 0
            && log_sum_exp.as_ref().is_none_or(|out| out.len() == queries)
            && self.sinks.is_none_or(|sinks| sinks.len() == out.heads());
        if !agree {
            return Err(Error::Shape);
        }
        if self.invalid & SINK != 0 {
            return Err(Error::Option);
        }
        let states = SpanStates::new(states, queries, Self::state_floats(out.cols()))?;
        let backend = self.backend.unwrap_or_else(Backend::best);
        let mut write_log_sum_exp = log_sum_exp.map(|out| {
            move |at: usize, sums: Sums<'_>| {
                let end = at.saturating_add(sums.sum.len());
                LOGARITHM(backend, sums, out.get_mut(at..end).unwrap_or_default());
            }
        });
        backend.run(JoinStates {
            states: &states,
            sinks: self.sinks.unwrap_or_default(),
            sink: self.sink,
            out: out.view_mut(),
            sums: write_log_sum_exp.as_mut().map(|f| f as _),
        });
        Ok(())
    }
}

/// Writes the index of the span and the sums of some queries from query `at` on.
fn write_headers(headers: &mut HeadsMut<'_>, at: usize, [high, low]: [f32; 2], sums: Sums<'_>) {
    let tokens = headers.rows();
    for (query, (max, sum)) in (at..).zip(sums.max.iter().zip(sums.sum)) {
        let (head, token) = (query.checked_div(tokens), query.checked_rem(tokens));
        let header = headers.head_mut(head.unwrap_or(0));
        if let Some(mut header) = header
            && let Some(header) = header.row_mut(token.unwrap_or(0))
        {
            // Which of two zeros the maximum is depends on the lanes of the kernel: in a state it is +0.
            let max = max + 0.0;
            header.iter_mut().zip([high, low, max, *sum]).for_each(|(to, x)| *to = x);
        }
    }
}
