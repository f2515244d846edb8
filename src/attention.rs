//! Attention without a score grid: options, workspace, heads.

use core::ops::Range;

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::{
        attention::{self, FlashAttention, LogSumExpParts},
        ln::LogSumExp,
        mask::{Blocks, Queries, ScoreMod, VisibleKeys},
        scale::default_scale,
    },
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
    score_mod,
    simd::flags::Flags,
};

#[cfg(feature = "defmt")]
mod format;

/// Scaled dot-product attention: its options, and the calls that run under them.
///
/// ```text
/// score[key][query] = scale · key · query        capped, biased, masked
/// output[query]     = Σ over keys e^score · value / Σ over keys e^score
/// ```
///
/// The grid of scores is never stored: an online softmax (Milakov and Gimelshein,
/// 2018; Dao et al., *FlashAttention*, 2022) runs over blocks of keys, in a workspace of
/// the caller's. The options are applied in this order: scale, softcap, bias, then the
/// masks (causal, window, keep, a bias of −∞). What each does in every case is
/// [one table](crate::docs::numerics#what-the-numbers-mean).
///
/// ```
/// use sdpa::{Attention, Matrix};
///
/// let keys = Matrix::from([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]);
/// let queries = Matrix::from([[3.0, 4.0], [-1.0, 0.5], [0.0, 0.0]]);
/// let values = Matrix::from([[1.0], [2.0], [3.0]]);
///
/// let mut out = Matrix::<3, 1>::ZERO;
/// let mut workspace = [0.0; Attention::workspace(2, 1)];
/// let causal = Attention::new().causal();
/// causal.run(queries.view(), keys.view(), values.view(), out.view_mut(), &mut workspace)?;
/// assert_eq!(out.0[0], [1.0]); // the first query sees the first key alone
/// # Ok::<(), sdpa::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    backend: Option<Backend>,
    scale: Option<f32>,
    causal: bool,
    window: [usize; 2],
    query_offset: isize,
    sink: f32,
    sinks: Option<&'a [f32]>,
    softcap: Option<Softcap>,
    bias: Option<Bias<'a>>,
    keep: Option<Keep<'a>>,
    /// Where one of these three is set.
    score_mod: Option<AsScoreMod>,
    /// A bit for each option that is out of its range, found where it is set.
    wrong: u8,
}

const SCALE: u8 = 1;
const SOFTCAP: u8 = 2;
const SINK: u8 = 4;

// An option that has code of its own carries it, so that an image that never sets the
// option does not link it.

type AsScoreMod = for<'a> fn(&'a ScoreMods<'a>) -> &'a dyn ScoreMod;

#[derive(Clone, Copy, Debug)]
struct Softcap {
    cap: f32,
    apply: fn(Backend, f32, MatrixMut<'_>),
}

#[derive(Clone, Copy, Debug)]
struct Bias<'a> {
    bias: MatrixRef<'a>,
    code: &'static BiasCode,
}

#[derive(Debug)]
struct BiasCode {
    apply: fn(Backend, MatrixRef<'_>, Option<f32>, MatrixMut<'_>),
    masks_all: fn(MatrixRef<'_>) -> bool,
}

#[derive(Clone, Copy, Debug)]
struct Keep<'a> {
    keep: MatrixRef<'a, u8>,
    code: &'static KeepCode,
}

#[derive(Debug)]
struct KeepCode {
    mark: fn(MatrixRef<'_, u8>, f32, MatrixMut<'_>),
    masks_all: fn(MatrixRef<'_, u8>) -> bool,
}

impl Default for Attention<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Attention<'a> {
    /// Every key seen by every query, the scale `1 / √dim`.
    pub const fn new() -> Self {
        Self {
            backend: None,
            scale: None,
            causal: false,
            window: [usize::MAX; 2],
            query_offset: 0,
            sink: f32::NEG_INFINITY,
            sinks: None,
            softcap: None,
            bias: None,
            keep: None,
            score_mod: None,
            wrong: 0,
        }
    }

    /// Runs on `backend`, not on the best.
    #[must_use]
    pub const fn on(self, backend: Backend) -> Self {
        Self { backend: Some(backend), ..self }
    }

    /// The scale, any finite number; left out it is `1 / √dim`. The query is
    /// multiplied by it first, rounded once.
    #[must_use]
    #[inline(always)]
    pub const fn scale(self, scale: f32) -> Self {
        let wrong = self.wrong_after(SCALE, scale.is_finite());
        Self { scale: Some(scale), wrong, ..self }
    }

    /// A score `s` becomes `cap · tanh(s / cap)`, before bias and masks. Finite and not
    /// negative; 0 is none.
    // Inlined, as `sinks`: a call copies all options, and both are 400 bytes of a Cortex-M4F's flash.
    #[must_use]
    #[inline(always)]
    pub fn softcap(self, cap: f32) -> Self {
        let softcap = Softcap { cap, apply: score_mod::cap };
        let wrong = self.wrong_after(SOFTCAP, (0.0..f32::INFINITY).contains(&cap));
        Self { softcap: Some(softcap), score_mod: Some(as_score_mod), wrong, ..self }
    }

    /// A query sees the keys up to its own position. Query `i` sits at
    /// [`query_offset`](Self::query_offset)` + i`, key `j` at `j`.
    #[must_use]
    pub const fn causal(self) -> Self {
        Self { causal: true, ..self }
    }

    /// Where query 0 sits among the keys: 0 when left out. From a cache it counts from
    /// where the newest queries sit.
    #[must_use]
    pub const fn query_offset(self, offset: isize) -> Self {
        Self { query_offset: offset, ..self }
    }

    /// A query at position `p` sees the keys from `p - left` to `p + right`: `left` of 4 shows
    /// five keys, its own included. `usize::MAX` is no limit.
    #[must_use]
    pub const fn window(self, left: usize, right: usize) -> Self {
        Self { window: [left, right], ..self }
    }

    /// Keys × queries, 0 where a key is masked, for all heads. A stride of 0 repeats a
    /// column for every query, as for padding.
    #[must_use]
    pub fn keep(self, keep: MatrixRef<'a, u8>) -> Self {
        let code = const {
            &KeepCode { mark: score_mod::mask_dropped, masks_all: score_mod::keep_masks_all }
        };
        Self { keep: Some(Keep { keep, code }), score_mod: Some(as_score_mod), ..self }
    }

    /// Keys × queries, added to the scores, for all heads; −∞ masks.
    #[must_use]
    pub fn bias(self, bias: MatrixRef<'a>) -> Self {
        let code =
            const { &BiasCode { apply: score_mod::bias, masks_all: score_mod::bias_masks_all } };
        Self { bias: Some(Bias { bias, code }), score_mod: Some(as_score_mod), ..self }
    }

    /// One more logit in the denominator of every query, which takes its share and has
    /// no value. Finite, or −∞ for none.
    #[must_use]
    #[inline(always)]
    pub const fn sink(self, sink: f32) -> Self {
        let wrong = self.wrong_after(SINK, are_sinks(&[sink]));
        Self { sink, sinks: None, wrong, ..self }
    }

    /// A [`sink`](Self::sink) for each query head.
    #[must_use]
    #[inline(always)]
    pub const fn sinks(self, sinks: &'a [f32]) -> Self {
        let wrong = self.wrong_after(SINK, are_sinks(sinks));
        Self { sinks: Some(sinks), wrong, ..self }
    }

    /// How many floats of workspace a call needs: for heads of 64 columns 4 KiB or less on
    /// microcontrollers (32-bit Arm and RISC-V, Xtensa), 24 KiB elsewhere, and in proportion.
    pub const fn workspace(dim: usize, value_dim: usize) -> usize {
        attention::workspace(dim, value_dim)
    }

    /// The output of every query.
    ///
    /// | argument | one head | many |
    /// | --- | --- | --- |
    /// | `queries` | queries × dim | query heads × queries × dim |
    /// | `keys` | keys × dim | key heads × keys × dim |
    /// | `values` | keys × width | key heads × keys × width |
    /// | `out` | queries × width | query heads × queries × width |
    /// | `workspace` | [`workspace`](Self::workspace)`(dim, width)` floats, whatever they hold; with 15 more it can always begin with a cache line |
    ///
    /// A [`MatrixRef`] is one head, a [`HeadsRef`] many. The query heads are a multiple of the
    /// key heads, and as many in a row share one of them (grouped-query attention).
    /// Each output is within the bound of the crate's documentation, and has the
    /// same bits whatever else is in the call.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when sizes disagree, or dim or width is 0; [`Error::Workspace`];
    /// [`Error::Option`]. Nothing has been written then.
    pub fn run<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        values: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let blocks = Blocks { keys: &keys.into(), values: &values.into(), ring: None };
        self.run_call(&queries.into(), &blocks, &mut out.into(), None, workspace)
    }

    /// [`run`](Self::run), and the log-sum-exp of each query's scores, the sink included:
    /// natural logarithm, head after head, as [`merge`](crate::merge()) wants it.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run); [`Error::Shape`] when `log_sum_exp` is not of query heads · queries.
    pub fn run_with_log_sum_exp<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        values: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let blocks = Blocks { keys: &keys.into(), values: &values.into(), ring: None };
        let log_sum_exp = Some((log_sum_exp, LOGARITHM));
        self.run_call(&queries.into(), &blocks, &mut out.into(), log_sum_exp, workspace)
    }

    /// [`run`](Self::run) with views by reference, and the log-sum-exp where it is wanted: for the C
    /// library, whose frames have room for each view once. No part of the API.
    #[doc(hidden)]
    pub fn run_views(
        &self,
        queries: &HeadsRef<'_>,
        [keys, values]: [&HeadsRef<'_>; 2],
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let log_sum_exp = log_sum_exp.map(|out| (out, LOGARITHM));
        let blocks = Blocks { keys, values, ring: None };
        self.run_call(queries, &blocks, out, log_sum_exp, workspace)
    }

    /// The grid of scores under these options, keys × queries: −∞ where masked. A sink
    /// is no part of it.
    ///
    /// # Errors
    ///
    /// As [`scores`](crate::scores()), and [`Error::Option`].
    pub fn scores(
        &self,
        queries: MatrixRef<'_>,
        keys: MatrixRef<'_>,
        mut out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let (backend, visible) = self.check_grid(keys, queries)?;
        let flags = self.masks(0).then(Flags::read);
        backend.scores(keys, queries, self.scale, out.view_mut())?;
        if let Some(as_score_mod) = self.score_mod {
            let adjusted = ScoreMods { options: self, backend, first: 0 };
            let queries = Queries::of_one_head(out.cols());
            as_score_mod(&adjusted).apply(0, queries, None, out.view_mut());
        }
        mask_invisible(visible, f32::NEG_INFINITY, out);
        if let Some(flags) = flags {
            flags.restore();
        }
        Ok(())
    }

    /// The pattern under these options, keys × queries: the softmax of every column, in
    /// which a sink takes its share, and +0 where masked.
    ///
    /// # Errors
    ///
    /// As [`scores`](Self::scores).
    pub fn pattern(
        &self,
        queries: MatrixRef<'_>,
        keys: MatrixRef<'_>,
        mut out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let (backend, visible) = self.check_grid(keys, queries)?;
        self.scores(queries, keys, out.view_mut())?;
        let sink = self.sinks.and_then(|sinks| sinks.first().copied()).unwrap_or(self.sink);
        backend.softmax_columns_beside(sink, out.view_mut());
        // A NaN elsewhere in the column has reached these too.
        if let Some(as_score_mod) = self.score_mod {
            let adjusted = ScoreMods { options: self, backend, first: 0 };
            let queries = Queries::of_one_head(out.cols());
            as_score_mod(&adjusted).apply(0, queries, Some(0.0), out.view_mut());
        }
        mask_invisible(visible, 0.0, out);
        Ok(())
    }

    fn check_grid(
        &self,
        keys: MatrixRef<'_>,
        queries: MatrixRef<'_>,
    ) -> Result<(Backend, VisibleKeys), Error> {
        let backend = self.check(keys.rows(), queries.rows(), 1)?;
        Ok((backend, self.visible([0, keys.rows()], [0, 0])))
    }

    /// Runs over the keys and values of a call.
    pub(crate) fn run_call(
        &self,
        queries: &HeadsRef<'_>,
        blocks: &Blocks<'_>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<(&mut [f32], Logarithm)>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (heads, tokens, dim) = (queries.heads(), queries.rows(), queries.cols());
        let (keys, values) = (blocks.keys, blocks.values);
        let (key_heads, value_dim) = (keys.heads(), values.cols());
        // Where keys lie in a ring, the cache has seen to it.
        let agree = blocks.ring.is_some()
            || (keys.rows(), keys.cols(), key_heads) == (values.rows(), dim, values.heads());
        let agree = agree
            && heads.checked_rem(key_heads) == Some(0)
            && (out.heads(), out.rows(), out.cols()) == (heads, tokens, value_dim)
            && log_sum_exp.as_ref().is_none_or(|(out, _)| {
                heads.checked_mul(tokens).is_some_and(|queries| out.len() == queries)
            });
        if !agree || dim == 0 || value_dim == 0 {
            return Err(Error::Shape);
        }
        let there = blocks.ring.map_or([0, keys.rows()], |ring| ring.there);
        let backend = self.check(there[1] - there[0], tokens, heads)?;
        if workspace.len() < Self::workspace(dim, value_dim) {
            return Err(Error::Workspace);
        }
        if tokens == 0 {
            return Ok(()); // any number of heads
        }
        // Of a cache the last query sits at the newest key.
        let origin = if blocks.ring.is_some() { [there[1], tokens] } else { [0, 0] };
        let adjusted = ScoreMods { options: self, backend, first: there[0] };
        let flags = self.masks(there[0]).then(Flags::read);
        let mut take_logits = log_sum_exp.map(|(out, logarithm)| {
            move |at: usize, parts: LogSumExpParts<'_>| {
                logarithm(backend, parts, out.get_mut(at..).unwrap_or_default())
            }
        });
        backend.run(FlashAttention {
            queries,
            blocks,
            group: heads / key_heads.max(1) * tokens,
            scale: self.scale.unwrap_or_else(|| default_scale(dim)),
            visible: self.visible(there, origin),
            score_mod: self.score_mod.map(|as_score_mod| as_score_mod(&adjusted)),
            sink: self.sink,
            sinks: self.sinks.unwrap_or_default(),
            out: out.view_mut(),
            log_sum_exp: take_logits.as_mut().map(|f| f as _),
            workspace,
        });
        if let Some(flags) = flags {
            flags.restore();
        }
        Ok(())
    }

    /// What is wrong once `option` is set.
    const fn wrong_after(&self, option: u8, is_in_range: bool) -> u8 {
        if is_in_range { self.wrong & !option } else { self.wrong | option }
    }

    /// The back end, where every option is in its range and of its shape.
    fn check(&self, keys: usize, tokens: usize, heads: usize) -> Result<Backend, Error> {
        let shaped = self.bias.is_none_or(|bias| bias.bias.shape() == (keys, tokens))
            && self.keep.is_none_or(|keep| keep.keep.shape() == (keys, tokens))
            && self.sinks.is_none_or(|sinks| sinks.len() == heads);
        if !shaped {
            return Err(Error::Shape);
        }
        if self.wrong != 0 {
            return Err(Error::Option);
        }
        Ok(self.backend.unwrap_or_else(Backend::best))
    }

    /// Whether some keys may be masked, those before `first` among them: what they hold raises flags. Always
    /// yes where it costs more to find out than to take flags back.
    fn masks(&self, first: usize) -> bool {
        cfg!(microcontroller)
            || self.causal
            || self.window != [usize::MAX; 2]
            || self.score_mod.is_some()
            || first > 0
    }

    /// What is seen of `keys`, where query 0 sits at `ahead - behind` before the offset.
    fn visible(&self, keys: [usize; 2], [ahead, behind]: [usize; 2]) -> VisibleKeys {
        let [left, right] = self.window;
        let right = if self.causal { 0 } else { right };
        VisibleKeys::new(keys, [ahead, behind], self.query_offset, [left, right])
    }
}

/// Whether none is NaN or +∞.
const fn are_sinks(mut sinks: &[f32]) -> bool {
    while let [first, others @ ..] = sinks {
        if first.is_nan() || *first == f32::INFINITY {
            return false;
        }
        sinks = others;
    }
    true
}

/// What makes logarithms: carried by the calls that want them, like an option with code of its own.
pub(crate) type Logarithm = fn(Backend, LogSumExpParts<'_>, &mut [f32]);

pub(crate) const LOGARITHM: Logarithm = |backend, parts, out| backend.run(LogSumExp { parts, out });

/// Softcap, bias and keep, as a kernel calls them.
struct ScoreMods<'a> {
    options: &'a Attention<'a>,
    backend: Backend,
    /// The key of the first row of bias and keep.
    first: usize,
}

fn as_score_mod<'a>(adjusted: &'a ScoreMods<'a>) -> &'a dyn ScoreMod {
    adjusted
}

impl ScoreMods<'_> {
    /// These keys as rows of bias and keep.
    fn rows(&self, keys: Range<usize>) -> Range<usize> {
        keys.start.saturating_sub(self.first)..keys.end.saturating_sub(self.first)
    }
}

/// [`MatrixRef::part`]: one copy, for both that ask.
#[inline(never)]
fn part<'a, T: Copy>(
    of: &MatrixRef<'a, T>,
    rows: &Range<usize>,
    cols: &Range<usize>,
) -> Option<MatrixRef<'a, T>> {
    of.part(rows.clone(), cols.clone())
}

impl ScoreMod for ScoreMods<'_> {
    fn masks_all(&self, keys: Range<usize>, queries: Queries) -> bool {
        let rows = self.rows(keys);
        let Attention { bias, keep, .. } = self.options;
        queries.heads().all(|(_, tokens)| {
            let is_dropped =
                |of: &Keep<'_>| part(&of.keep, &rows, &tokens).is_some_and(of.code.masks_all);
            let is_biased =
                |of: &Bias<'_>| part(&of.bias, &rows, &tokens).is_some_and(of.code.masks_all);
            keep.as_ref().is_some_and(is_dropped) || bias.as_ref().is_some_and(is_biased)
        })
    }

    fn apply(&self, key: usize, queries: Queries, mark: Option<f32>, mut scores: MatrixMut<'_>) {
        let Attention { softcap, bias, keep, .. } = self.options;
        if let (Some(Softcap { cap, apply }), None) = (softcap, mark) {
            apply(self.backend, *cap, scores.view_mut());
        }
        let gone = self.first.saturating_sub(key);
        let rows = self.rows(key + gone..key + scores.rows());
        let Ok((_, mut rest)) = scores.split_rows(gone) else { return };
        for (_, tokens) in queries.heads() {
            let Ok((mut scores, others)) = rest.split_columns(tokens.len()) else { return };
            rest = others;
            if let Some(of) = bias
                && let Some(bias) = part(&of.bias, &rows, &tokens)
            {
                (of.code.apply)(self.backend, bias, mark, scores.view_mut());
            }
            if let Some(of) = keep
                && let Some(keep) = part(&of.keep, &rows, &tokens)
            {
                (of.code.mark)(keep, mark.unwrap_or(f32::NEG_INFINITY), scores);
            }
        }
    }
}

/// Writes `mark` where a query does not see a key: whole columns of runs.
fn mask_invisible(visible: VisibleKeys, mark: f32, mut scores: MatrixMut<'_>) {
    if scores.is_empty() {
        return; // any number of tokens
    }
    for token in 0..scores.cols() {
        let seen = visible.of(token);
        for key in (0..seen.start).chain(seen.end..scores.rows()) {
            if let Some(score) = scores.get_mut(key, token) {
                *score = mark;
            }
        }
    }
}
