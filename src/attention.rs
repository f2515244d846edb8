//! Attention without a score grid: options, workspace, heads. Public API.

use core::ops::Range;

use crate::{
    dispatch::Backend,
    elements::{AnyElementsRef, ElementsRef, KeysAndValues, Side},
    error::Error,
    kernel::{
        attention::{self, FlashAttention, OverBlocks, Sums},
        blocks::{Blocks, Data, Elements, Ring},
        ln::LogSumExp,
        mask::{OfHead, Queries, ScoreMod, VisibleKeys},
        scale::default_scale,
    },
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
    narrow::Element,
    score_mod,
    simd::flags::Flags,
};

#[cfg(feature = "defmt")]
mod format;
pub(crate) mod grid;
mod packed;
mod spans;

pub use spans::SPAN;

/// Scaled dot-product attention: a builder of options, and the functions that compute it.
///
/// ```text
/// score[key][query] = scale · key · query        then softcap, bias, slopes, masks
/// output[query]     = Σ over keys e^score · value / Σ over keys e^score
/// ```
///
/// [`run`](Self::run) never stores the score grid: an online softmax (Milakov and Gimelshein,
/// 2018; Dao et al., *FlashAttention*, 2022) runs over blocks of keys, in a caller-provided
/// workspace. The options apply in this order: scale, softcap, bias, slopes, then the
/// masks (causal, window, keep, a bias of −∞). [One table](crate::docs::numerics#what-the-numbers-mean) states
/// what each does with −∞, +∞, NaN and empty inputs.
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
/// assert_eq!(out.0[0], [1.0]); // only the first key is visible to the first query
/// # Ok::<(), sdpa::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    backend: Option<Backend>,
    scale: Option<f32>,
    causal: bool,
    window: [usize; 2],
    #[cfg(kept_keys)]
    keep_first: usize,
    query_offset: isize,
    sink: f32,
    sinks: Option<&'a [f32]>,
    softcap: Option<Softcap>,
    bias: Option<Bias<'a>>,
    slopes: Option<&'a [f32]>,
    keep: Option<Keep<'a>>,
    /// Set if softcap, bias, slopes or keep is.
    score_mod: Option<AsScoreMod>,
    /// One bit for each option that was set to a value out of range.
    invalid: u8,
}

const SCALE: u8 = 1;
const SOFTCAP: u8 = 2;
const SINK: u8 = 4;
const SLOPE: u8 = 8;
#[cfg(not(kept_keys))]
const KEEP_FIRST: u8 = 16;

// An option that needs code of its own carries function pointers, so that an image that never sets the
// option does not link the code.

type AsScoreMod = for<'a> fn(&'a WithSlopes<'a>) -> &'a dyn ScoreMod;

#[derive(Clone, Copy, Debug)]
struct Softcap {
    cap: f32,
    apply: fn(Backend, f32, MatrixMut<'_>),
}

#[derive(Clone, Copy, Debug)]
struct Bias<'a> {
    bias: HeadsRef<'a>,
    functions: &'static BiasFunctions,
}

#[derive(Debug)]
struct BiasFunctions {
    apply: fn(Backend, MatrixRef<'_>, Option<f32>, &mut MatrixMut<'_>),
    masks_all: fn(MatrixRef<'_>) -> bool,
}

#[derive(Clone, Copy, Debug)]
struct Keep<'a> {
    keep: HeadsRef<'a, u8>,
    functions: &'static KeepFunctions,
}

#[derive(Debug)]
struct KeepFunctions {
    mask_dropped: fn(MatrixRef<'_, u8>, f32, &mut MatrixMut<'_>),
    masks_all: fn(MatrixRef<'_, u8>) -> bool,
}

impl Default for Attention<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Attention<'a> {
    /// Attention without masks and with the scale `1 / √dim`: every key is visible to every query.
    pub const fn new() -> Self {
        Self {
            backend: None,
            scale: None,
            causal: false,
            window: [usize::MAX; 2],
            #[cfg(kept_keys)]
            keep_first: 0,
            query_offset: 0,
            sink: f32::NEG_INFINITY,
            sinks: None,
            softcap: None,
            bias: None,
            slopes: None,
            keep: None,
            score_mod: None,
            invalid: 0,
        }
    }

    /// Selects the back end; the default is [`Backend::best`].
    #[must_use]
    pub const fn on(self, backend: Backend) -> Self {
        Self { backend: Some(backend), ..self }
    }

    /// Sets the scale of the scores: any finite number; the default is `1 / √dim`. Each query is
    /// multiplied by it first, rounded once.
    #[must_use]
    #[inline(always)]
    pub const fn scale(self, scale: f32) -> Self {
        let invalid = self.invalid_after(SCALE, scale.is_finite());
        Self { scale: Some(scale), invalid, ..self }
    }

    /// Caps the scores (logit softcapping): `s` becomes `cap · tanh(s / cap)`, before bias and masks.
    /// `cap` is finite and not negative; 0 means no cap.
    // `softcap` and `sinks` are inlined: a call copies all options, which costs 400 bytes of a Cortex-M4F's
    // flash for both.
    #[must_use]
    #[inline(always)]
    pub fn softcap(self, cap: f32) -> Self {
        let softcap = Softcap { cap, apply: score_mod::cap };
        let invalid = self.invalid_after(SOFTCAP, (0.0..f32::INFINITY).contains(&cap));
        Self { softcap: Some(softcap), score_mod: self.or_score_mod(), invalid, ..self }
    }

    /// Applies the causal mask: a key is visible up to the query's position. Query `i` has position
    /// [`query_offset`](Self::query_offset)` + i`, key `j` has position `j`.
    #[must_use]
    pub const fn causal(self) -> Self {
        Self { causal: true, ..self }
    }

    /// Sets the position of query 0 for the causal mask and the window; the default is 0. With a cache it
    /// is added to the default positions, at which the last query has the position of the newest key.
    #[must_use]
    pub const fn query_offset(self, offset: isize) -> Self {
        Self { query_offset: offset, ..self }
    }

    /// Sets a sliding window: the number of visible keys before and after the query's position. A query at
    /// position `p` sees the keys from `p - left` to `p + right`, so `left = 4` and `right = 0` show five
    /// keys, its own included. `usize::MAX` means no limit.
    #[must_use]
    pub const fn window(self, left: usize, right: usize) -> Self {
        Self { window: [left, right], ..self }
    }

    /// Keeps the first keys visible (attention sinks; Xiao et al., *Efficient streaming language models*, 2024): the
    /// keys at positions less than `keys` are visible before the [`window`](Self::window) too. Its right end and the
    /// causal mask hide them as others.
    ///
    /// A cache has its own number of them ([`KvCache::keep_first`](crate::KvCache::keep_first)): a call with another
    /// number than that or 0 is refused. On microcontrollers it takes the feature `keep-first`, without which another number
    /// than 0 is out of range: every call pays flash and stack for it.
    #[must_use]
    #[inline(always)]
    pub const fn keep_first(self, keys: usize) -> Self {
        #[cfg(kept_keys)]
        return Self { keep_first: keys, ..self };
        #[cfg(not(kept_keys))]
        Self { invalid: self.invalid_after(KEEP_FIRST, keys == 0), ..self }
    }

    /// The number of first keys that these options keep visible.
    const fn first_kept(&self) -> usize {
        #[cfg(kept_keys)]
        return self.keep_first;
        #[cfg(not(kept_keys))]
        0
    }

    /// Sets a boolean mask: keys × queries, 0 where a key is masked. A [`MatrixRef`] is one mask for all heads, a
    /// [`HeadsRef`] one per query head. A column stride of 0 repeats one column for every query, for example a
    /// padding mask.
    #[must_use]
    #[inline(always)]
    pub fn keep(self, keep: impl Into<HeadsRef<'a, u8>>) -> Self {
        let keep = keep.into();
        let functions = const {
            &KeepFunctions {
                mask_dropped: score_mod::mask_dropped,
                masks_all: score_mod::keep_masks_all,
            }
        };
        Self { keep: Some(Keep { keep, functions }), score_mod: self.or_score_mod(), ..self }
    }

    /// Sets an additive mask: keys × queries, added to the scores. −∞ masks a key. A [`MatrixRef`] is one mask for
    /// all heads, a [`HeadsRef`] one per query head.
    #[must_use]
    #[inline(always)]
    pub fn bias(self, bias: impl Into<HeadsRef<'a>>) -> Self {
        let bias = bias.into();
        let functions = const {
            &BiasFunctions { apply: score_mod::bias, masks_all: score_mod::bias_masks_all }
        };
        Self { bias: Some(Bias { bias, functions }), score_mod: self.or_score_mod(), ..self }
    }

    /// Sets linear biases (ALiBi; Press, Smith and Lewis, 2022), one slope per query head: `s` becomes
    /// `s - slope · distance`, after the bias and before the masks. The distance is `|position - j|` for a query at
    /// `position` (see [`query_offset`](Self::query_offset)) and key `j`, on both sides of the query. It is rounded to
    /// a float, which is exact up to 2²⁴, and counts up to 2³⁰.
    ///
    /// A slope is between −2⁹⁷ and 2⁹⁷: its product with a distance is finite.
    #[must_use]
    #[inline(always)]
    pub fn slopes(self, slopes: &'a [f32]) -> Self {
        let invalid =
            self.invalid_after(SLOPE, slopes.iter().all(|slope| slope.abs() <= LARGEST_SLOPE));
        Self { slopes: Some(slopes), score_mod: Some(with_slopes), invalid, ..self }
    }

    /// Sets an attention sink for all heads: one more score in the softmax denominator of every query,
    /// without a key and value. Finite, or −∞ for no sink.
    #[must_use]
    #[inline(always)]
    pub const fn sink(self, sink: f32) -> Self {
        let invalid = self.invalid_after(SINK, are_sinks(&[sink]));
        Self { sink, sinks: None, invalid, ..self }
    }

    /// Sets one [`sink`](Self::sink) per query head.
    #[must_use]
    #[inline(always)]
    pub const fn sinks(self, sinks: &'a [f32]) -> Self {
        let invalid = self.invalid_after(SINK, are_sinks(sinks));
        Self { sinks: Some(sinks), invalid, ..self }
    }

    /// The length of the workspace, in floats. It grows linearly with the widths of a head; for 64 columns it
    /// takes at most 4 KiB on microcontrollers (32-bit Arm and RISC-V, Xtensa) and 24 KiB elsewhere.
    pub const fn workspace(dim: usize, value_dim: usize) -> usize {
        attention::workspace(dim, value_dim)
    }

    /// Computes the attention output of every query, for one head or many.
    ///
    /// | argument | one head | many heads |
    /// | --- | --- | --- |
    /// | `queries` | queries × dim | query heads × queries × dim |
    /// | `keys` | keys × dim | KV heads × keys × dim |
    /// | `values` | keys × width | KV heads × keys × width |
    /// | `out` | queries × width | query heads × queries × width |
    /// | `workspace` | [`workspace`](Self::workspace)`(dim, width)` floats of any content; with 15 more it can always be aligned to a cache line | the same |
    ///
    /// Pass a [`MatrixRef`] for one head, a [`HeadsRef`] for many. The number of query heads is a multiple of
    /// the number of KV heads, of which there is at least one; consecutive query heads share a KV head
    /// (grouped-query attention). Without query heads nothing is written.
    /// Each output is within [the error bound](crate::docs::numerics#how-exact), and its bits do not depend on the
    /// other queries and heads of the call.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if sizes disagree, or dim or width is 0; [`Error::Workspace`] if `workspace` is
    /// too short; [`Error::Option`] if an option is out of range. Nothing is written then.
    pub fn run<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        values: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let blocks = Blocks { data: Data::Floats([&keys.into(), &values.into()]), ring: None };
        self.run_call(&queries.into(), &blocks, &mut out.into(), None, workspace)
    }

    /// [`run`](Self::run) that also writes the log-sum-exp of each query's scores, the sink included:
    /// query heads · queries natural logarithms, head after head, as [`merge`](crate::merge()) takes them.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run); [`Error::Shape`] also if the length of `log_sum_exp` is not
    /// query heads · queries.
    pub fn run_with_log_sum_exp<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        values: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let blocks = Blocks { data: Data::Floats([&keys.into(), &values.into()]), ring: None };
        let log_sum_exp = Some((log_sum_exp, LOGARITHM));
        self.run_call(&queries.into(), &blocks, &mut out.into(), log_sum_exp, workspace)
    }

    /// [`run`](Self::run) with views by reference and an optional log-sum-exp, for the C library: its
    /// stack frames hold each view only once. Not part of the API.
    #[doc(hidden)]
    pub fn run_views(
        &self,
        queries: &HeadsRef<'_>,
        keys: &HeadsRef<'_>,
        values: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let log_sum_exp = log_sum_exp.map(|out| (out, LOGARITHM));
        let blocks = Blocks { data: Data::Floats([keys, values]), ring: None };
        self.run_call(queries, &blocks, out, log_sum_exp, workspace)
    }

    /// The length of the workspace of a call over [elements](Self::run_elements), in floats: four times
    /// [`workspace`](Self::workspace) and the keys or values of a block; on microcontrollers no more than `workspace`.
    pub const fn elements_workspace(dim: usize, value_dim: usize) -> usize {
        attention::group_workspace(dim, value_dim)
            .saturating_add(attention::widened(dim, value_dim))
    }

    /// [`run`](Self::run) with keys and values of any [`Element`], each of its own: half or a quarter of the memory.
    /// `log_sum_exp` as in [`run_with_log_sum_exp`](Self::run_with_log_sum_exp).
    ///
    /// Elements are widened, which is exact: the bits are those of [`run`](Self::run) over the widened keys and values. The scale
    /// of an [`I8`](crate::I8) key multiplies its score, before the softcap; the scale of a value multiplies its
    /// weight, which is not the one that is summed.
    ///
    /// ```
    /// use sdpa::{Attention, Bf16, Matrix, MatrixRef, narrow};
    ///
    /// let tokens = Matrix::from([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]);
    /// let mut elements = [Bf16::default(); 6];
    /// narrow(tokens.view(), &mut elements, &mut [])?;
    /// let elements = MatrixRef::new(&elements, 3, 2)?.into();
    ///
    /// let mut out = Matrix::<3, 2>::ZERO;
    /// let mut workspace = [0.0; Attention::elements_workspace(2, 2)];
    /// let causal = Attention::new().causal();
    /// causal.run_elements(
    ///     tokens.view(), elements, elements, out.view_mut(), None, &mut workspace,
    /// )?;
    /// assert_eq!(out.0[0], [1.0, 0.0]);
    /// # Ok::<(), sdpa::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`run_with_log_sum_exp`](Self::run_with_log_sum_exp); [`Error::Workspace`] if `workspace` is shorter
    /// than [`elements_workspace`](Self::elements_workspace).
    pub fn run_elements<'b, K: Element, V: Element>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: ElementsRef<'_, K>,
        values: ElementsRef<'_, V>,
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let elements = self.elements(keys, values, None);
        let log_sum_exp = log_sum_exp.map(|out| (out, LOGARITHM));
        let (queries, mut out) = (queries.into(), out.into());
        self.run_elements_call(&queries, &elements, &mut out, log_sum_exp, workspace)
    }

    /// [`run_elements`](Self::run_elements) with elements that are known at run time, for the C library. Not part of
    /// the API.
    #[doc(hidden)]
    pub fn run_any(
        &self,
        queries: &HeadsRef<'_>,
        [&keys, &values]: [&AnyElementsRef<'_>; 2],
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let log_sum_exp = log_sum_exp.map(|out| (out, LOGARITHM));
        let elements = self.elements(keys, values, None);
        self.run_elements_call(queries, &elements, out, log_sum_exp, workspace)
    }

    /// Keys and values of these elements, widened by the back end of this call.
    pub(crate) fn elements<'b, K: Side, V: Side>(
        &self,
        keys: K,
        values: V,
        ring: Option<&'b Ring>,
    ) -> KeysAndValues<'b, K, V> {
        let backend = self.backend.unwrap_or_else(Backend::best);
        KeysAndValues { backend, keys, values, ring }
    }

    /// Checks all arguments, then runs the kernel over the given keys and values.
    pub(crate) fn run_call(
        &self,
        queries: &HeadsRef<'_>,
        blocks: &Blocks<'_>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<(&mut [f32], Logarithm)>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.run_blocks(queries, blocks, out, log_sum_exp, workspace)
    }

    /// [`run_call`](Self::run_call) over elements: the same function, but on a microcontroller one for these elements.
    pub(crate) fn run_elements_call<K: Side, V: Side>(
        &self,
        queries: &HeadsRef<'_>,
        elements: &KeysAndValues<'_, K, V>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<(&mut [f32], Logarithm)>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        if let Some([keys, values]) = elements.as_floats() {
            let blocks = Blocks { data: Data::Floats([&keys, &values]), ring: elements.ring };
            return self.run_call(queries, &blocks, out, log_sum_exp, workspace);
        }
        let blocks = Blocks { data: Data::Elements(elements as _), ring: elements.ring };
        #[cfg(not(microcontroller))]
        return self.run_call(queries, &blocks, out, log_sum_exp, workspace);
        #[cfg(microcontroller)]
        self.run_blocks::<&KeysAndValues<'_, K, V>>(queries, &blocks, out, log_sum_exp, workspace)
    }

    #[inline(always)]
    fn run_blocks<E: Elements + Copy>(
        &self,
        queries: &HeadsRef<'_>,
        blocks: &Blocks<'_, E>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<(&mut [f32], Logarithm)>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (heads, tokens) = (queries.heads(), queries.rows());
        let agree = (out.heads(), out.rows(), out.cols()) == (heads, tokens, blocks.value_dim())
            && log_sum_exp.as_ref().is_none_or(|(out, _)| {
                heads.checked_mul(tokens).is_some_and(|queries| out.len() == queries)
            });
        let backend = self.check_call(queries, blocks, agree, workspace)?;
        if tokens == 0 {
            return Ok(()); // any number of heads
        }
        let held = blocks.held();
        // With a cache, the last query has the position of the newest key.
        let origin = if blocks.ring.is_some() { [held[1], tokens] } else { [0, 0] };
        let score_mods = self.score_mods_of_held(backend, blocks, origin);
        let flags = self.may_mask(held[0]).then(Flags::read);
        let mut write_log_sum_exp = log_sum_exp.map(|(out, logarithm)| {
            move |at: usize, sums: Sums<'_>| {
                let end = at.saturating_add(sums.sum.len());
                logarithm(backend, sums, out.get_mut(at..end).unwrap_or_default());
            }
        });
        let (widened, workspace) = split_widened(queries.cols(), blocks, workspace);
        let attention = FlashAttention {
            queries,
            queries_per_kv_head: heads / blocks.heads().max(1) * tokens,
            scale: self.scale.unwrap_or_else(|| default_scale(queries.cols())),
            visible: self.visible(held, [0, self.kept(blocks)], origin),
            score_mod: score_mods.as_score_mod(),
            sink: self.sink,
            sinks: self.sinks.unwrap_or_default(),
            out,
            normalise: true,
            sums: write_log_sum_exp.as_mut().map(|f| f as _),
            workspace,
        };
        backend.run(OverBlocks { attention, blocks, widened });
        if let Some(flags) = flags {
            flags.restore();
        }
        Ok(())
    }

    /// Checks all arguments of a call but its output, whose shape is right if `agree`, and returns the back end.
    fn check_call<E: Elements>(
        &self,
        queries: &HeadsRef<'_>,
        blocks: &Blocks<'_, E>,
        agree: bool,
        workspace: &[f32],
    ) -> Result<Backend, Error> {
        let (heads, dim) = (queries.heads(), queries.cols());
        let (key_heads, value_dim) = (blocks.heads(), blocks.value_dim());
        let agree = agree && blocks.agree(dim) && heads.checked_rem(key_heads) == Some(0);
        if !agree || dim == 0 || value_dim == 0 {
            return Err(Error::Shape);
        }
        let backend = self.check(blocks.count(), queries.rows(), heads)?;
        self.check_kept(blocks.ring)?;
        let needed = match blocks.data {
            Data::Floats(_) => Self::workspace(dim, value_dim),
            Data::Elements(_) => Self::elements_workspace(dim, value_dim),
        };
        if workspace.len() < needed {
            return Err(Error::Workspace);
        }
        Ok(backend)
    }

    /// Checks the number of kept keys, of which a cache has its own.
    #[inline(always)]
    fn check_kept(&self, ring: Option<&Ring>) -> Result<(), Error> {
        let is_other = |ring: &Ring| self.first_kept() > 0 && self.first_kept() != ring.kept();
        if ring.is_some_and(is_other) { Err(Error::Option) } else { Ok(()) }
    }

    /// [`Self::score_mod`] after softcap, bias or keep is set.
    #[inline(always)]
    fn or_score_mod(&self) -> Option<AsScoreMod> {
        self.score_mod.or(Some(as_score_mod))
    }

    /// [`Self::invalid`] after `option` is set.
    const fn invalid_after(&self, option: u8, is_in_range: bool) -> u8 {
        if is_in_range { self.invalid & !option } else { self.invalid | option }
    }

    /// Checks the shape and range of every option, and returns the back end.
    fn check(&self, keys: usize, tokens: usize, heads: usize) -> Result<Backend, Error> {
        let grid = [heads, keys, tokens];
        let shaped = self.bias.is_none_or(|bias| has_shape(&bias.bias, grid))
            && self.keep.is_none_or(|keep| has_shape(&keep.keep, grid))
            && self.slopes.is_none_or(|slopes| slopes.len() == heads)
            && self.sinks.is_none_or(|sinks| sinks.len() == heads);
        if !shaped {
            return Err(Error::Shape);
        }
        if self.invalid != 0 {
            return Err(Error::Option);
        }
        Ok(self.backend.unwrap_or_else(Backend::best))
    }

    /// Whether keys may be masked; the content of those may raise floating-point flags. `first` keys of the
    /// first block are no longer in the cache. Always true on microcontrollers, where a test costs more than
    /// restoring the flags.
    fn may_mask(&self, first: usize) -> bool {
        cfg!(microcontroller)
            || self.causal
            || self.window != [usize::MAX; 2]
            || self.score_mod.is_some()
            || first > 0
    }

    /// The number of first keys that stay visible in a call: over a cache, that of the cache.
    #[inline(always)]
    fn kept<E: Elements>(&self, blocks: &Blocks<'_, E>) -> usize {
        blocks.ring.map_or(self.first_kept(), Ring::kept)
    }

    fn score_mods(&self, backend: Backend, first: usize, origin: [usize; 2]) -> WithSlopes<'_> {
        // Exact: each is a number of tokens in memory, or a position that is an `isize`.
        let [plus, minus] = origin.map(|at| at as isize);
        let origin = plus.wrapping_sub(minus);
        WithSlopes { others: ScoreMods { options: self, backend, first }, origin }
    }

    /// The score modifications of a call over these blocks.
    #[inline(always)]
    fn score_mods_of_held<E: Elements>(
        &self,
        backend: Backend,
        blocks: &Blocks<'_, E>,
        origin: [usize; 2],
    ) -> OfHeld<'_> {
        let dropped = blocks.dropped();
        OfHeld {
            others: self.score_mods(backend, dropped.len(), origin),
            #[cfg(kept_keys)]
            dropped,
        }
    }

    /// The visible keys among `keys` and those that are `kept`, if query 0 has position `plus - minus` before the offset
    /// is added.
    fn visible(
        &self,
        keys: [usize; 2],
        kept: [usize; 2],
        [plus, minus]: [usize; 2],
    ) -> VisibleKeys {
        let [left, right] = self.window;
        let right = if self.causal { 0 } else { right };
        VisibleKeys::new(keys, kept, [plus, minus], self.query_offset, [left, right])
    }
}

/// Splits off the floats for widened elements, none for floats. A block of them is whole cache lines: it changes the
/// alignment of no other part.
fn split_widened<'w, E: Elements>(
    dim: usize,
    blocks: &Blocks<'_, E>,
    workspace: &'w mut [f32],
) -> (&'w mut [f32], &'w mut [f32]) {
    match blocks.data {
        Data::Floats(_) => (&mut [], workspace),
        Data::Elements(_) => {
            let widened = attention::widened(dim, blocks.value_dim());
            workspace.split_at_mut_checked(widened).unwrap_or_default()
        }
    }
}

/// The product with a distance, up to 2³⁰, is finite.
const LARGEST_SLOPE: f32 = f32::from_bits((127 + 97) << 23);

/// Whether a mask is one grid for all heads or has one per head.
fn has_shape<T: Copy>(mask: &HeadsRef<'_, T>, [heads, keys, tokens]: [usize; 3]) -> bool {
    (mask.rows(), mask.cols()) == (keys, tokens) && (mask.heads() == 1 || mask.heads() == heads)
}

/// Whether no sink is NaN or +∞.
const fn are_sinks(mut sinks: &[f32]) -> bool {
    while let [first, others @ ..] = sinks {
        if first.is_nan() || *first == f32::INFINITY {
            return false;
        }
        sinks = others;
    }
    true
}

/// Computes log-sum-exps. A function pointer, like those of the options: an image that never asks for the
/// log-sum-exp does not link the code.
pub(crate) type Logarithm = fn(Backend, Sums<'_>, &mut [f32]);

pub(crate) const LOGARITHM: Logarithm = |backend, sums, out| backend.run(LogSumExp { sums, out });

/// Softcap, bias and keep as the score modification of a kernel.
struct ScoreMods<'a> {
    options: &'a Attention<'a>,
    backend: Backend,
    /// The key whose bias and keep are row 0.
    first: usize,
}

/// The slopes too.
struct WithSlopes<'a> {
    others: ScoreMods<'a>,
    /// The position of query 0 before the offset is added.
    origin: isize,
}

fn as_score_mod<'a>(score_mods: &'a WithSlopes<'a>) -> &'a dyn ScoreMod {
    &score_mods.others
}

fn with_slopes<'a>(score_mods: &'a WithSlopes<'a>) -> &'a dyn ScoreMod {
    score_mods
}

/// Score modifications of a call, whose masks have no rows for the keys that a cache has dropped.
struct OfHeld<'a> {
    /// Those of the keys after the dropped ones.
    others: WithSlopes<'a>,
    #[cfg(kept_keys)]
    dropped: Range<usize>,
}

impl OfHeld<'_> {
    /// Contains the code for kept keys only where a cache may have some.
    #[inline(always)]
    fn as_score_mod(&self) -> Option<&dyn ScoreMod> {
        let score_mod = self.others.as_score_mod()?;
        #[cfg(kept_keys)]
        if self.dropped.start > 0 {
            return Some(self);
        }
        Some(score_mod)
    }
}

impl WithSlopes<'_> {
    #[inline(always)]
    fn as_score_mod(&self) -> Option<&dyn ScoreMod> {
        self.others.options.score_mod.map(|as_score_mod| as_score_mod(self))
    }
}

#[cfg(kept_keys)]
impl ScoreMod for OfHeld<'_> {
    fn masks_all(&self, keys: Range<usize>, queries: Queries) -> bool {
        // A block of kept keys is never skipped.
        keys.start >= self.dropped.end
            && self.others.as_score_mod().is_some_and(|others| others.masks_all(keys, queries))
    }

    fn apply(&self, key: usize, queries: Queries, fill: Option<f32>, mut scores: MatrixMut<'_>) {
        let (dropped, end) = (&self.dropped, key + scores.rows());
        let ScoreMods { options, backend, .. } = self.others.others;
        let kept = ScoreMods { options, backend, first: 0 };
        let kept = WithSlopes { others: kept, origin: self.others.origin };
        for (score_mods, keys) in
            [(&kept, key..end.min(dropped.start)), (&self.others, key.max(dropped.end)..end)]
        {
            let run = scores.view_mut().split_rows(keys.start - key);
            let run = run.and_then(|(_, run)| run.split_rows(keys.len()));
            if let (Some(score_mod), Ok((run, _))) = (score_mods.as_score_mod(), run) {
                score_mod.apply(keys.start, queries, fill, run);
            }
        }
    }
}

impl ScoreMods<'_> {
    /// The rows of bias and keep for these keys.
    fn rows(&self, keys: Range<usize>) -> Range<usize> {
        keys.start.saturating_sub(self.first)..keys.end.saturating_sub(self.first)
    }
}

/// A part of the mask of a head, which is there: [`Attention::check`] has compared the shapes. Not inlined: one copy of
/// the code for all callers.
#[inline(never)]
fn part<'a, T: Copy>(
    of: &HeadsRef<'a, T>,
    rows: &Range<usize>,
    (head, _, tokens): &OfHead,
) -> MatrixRef<'a, T> {
    let head = if of.heads() == 1 { 0 } else { *head };
    let part = of.head(head).and_then(|of| of.submatrix(rows.clone(), tokens.clone()));
    part.unwrap_or(MatrixRef::EMPTY)
}

impl ScoreMod for ScoreMods<'_> {
    fn masks_all(&self, keys: Range<usize>, queries: Queries) -> bool {
        let rows = self.rows(keys);
        let Attention { bias, keep, .. } = self.options;
        queries.heads().all(|of_head| {
            let is_dropped =
                |of: &Keep<'_>| (of.functions.masks_all)(part(&of.keep, &rows, &of_head));
            let is_biased =
                |of: &Bias<'_>| (of.functions.masks_all)(part(&of.bias, &rows, &of_head));
            keep.as_ref().is_some_and(is_dropped) || bias.as_ref().is_some_and(is_biased)
        })
    }

    fn apply(&self, key: usize, queries: Queries, fill: Option<f32>, mut scores: MatrixMut<'_>) {
        let Attention { softcap, bias, keep, .. } = self.options;
        if let (Some(Softcap { cap, apply }), None) = (softcap, fill) {
            apply(self.backend, *cap, scores.view_mut());
        }
        let dropped = self.first.saturating_sub(key);
        let rows = self.rows(key + dropped..key + scores.rows());
        let Ok((_, mut rest)) = scores.split_rows(dropped) else { return };
        for of_head in queries.heads() {
            let Ok((mut scores, others)) = rest.split_columns(of_head.2.len()) else { return };
            rest = others;
            if let Some(of) = bias {
                let bias = part(&of.bias, &rows, &of_head);
                (of.functions.apply)(self.backend, bias, fill, &mut scores);
            }
            if let Some(of) = keep {
                let keep = part(&of.keep, &rows, &of_head);
                let fill = fill.unwrap_or(f32::NEG_INFINITY);
                (of.functions.mask_dropped)(keep, fill, &mut scores);
            }
        }
    }
}

impl ScoreMod for WithSlopes<'_> {
    fn masks_all(&self, keys: Range<usize>, queries: Queries) -> bool {
        self.others.masks_all(keys, queries)
    }

    /// Masked scores are −∞ already, and stay.
    fn apply(&self, key: usize, queries: Queries, fill: Option<f32>, mut scores: MatrixMut<'_>) {
        self.others.apply(key, queries, fill, scores.view_mut());
        let ScoreMods { options, backend, .. } = self.others;
        let (Some(slopes), None) = (options.slopes, fill) else { return };
        let position = (self.origin as i64).saturating_add(options.query_offset as i64);
        for (head, _, tokens) in queries.heads() {
            let Ok((scores_of_head, others)) = scores.split_columns(tokens.len()) else { return };
            scores = others;
            let offset = position.saturating_add(tokens.start as i64).saturating_sub(key as i64);
            if let Some(&slope) = slopes.get(head) {
                score_mod::slope(backend, slope, offset, scores_of_head);
            }
        }
    }
}
