//! The score grid and the attention pattern of every head, and the mean pattern. Public API.

use core::ops::Range;

use crate::{
    attention::Attention,
    dispatch::Backend,
    elements::{AnyElementsRef, ElementsRef, Side},
    error::Error,
    kernel::{
        blocks::{Block, Ring, STORAGE_BLOCK, Widened},
        mask::Queries,
    },
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
    narrow::Element,
    simd::flags::Flags,
};

impl Attention<'_> {
    /// Computes the score grid of every head with these options: keys × queries, after softcap and bias, −∞
    /// where masked. It does not contain the sink.
    ///
    /// A [`MatrixRef`] is one head, a [`HeadsRef`] many, which share keys as in [`run`](Self::run); `out` is
    /// query heads × keys × queries. The bits of a head do not depend on the other heads.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if sizes disagree, or dim is 0; [`Error::Option`] if an option is out of range. Nothing is
    /// written then.
    pub fn scores<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
    ) -> Result<(), Error> {
        let (queries, keys) = (&queries.into(), &keys.into());
        self.grids((queries, keys), &mut out.into(), &mut [], |_, _, _| {})
    }

    /// Computes the attention weights of every head with these options: keys × queries, the softmax of every
    /// column of [`scores`](Self::scores), +0 where masked. With a sink a column sums to less than 1.
    ///
    /// # Errors
    ///
    /// Those of [`scores`](Self::scores).
    pub fn pattern<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
    ) -> Result<(), Error> {
        self.pattern_views(&queries.into(), &keys.into(), &mut out.into())
    }

    /// [`pattern`](Self::pattern) of views by reference: copies of them would be on the stack of the C library.
    #[doc(hidden)]
    pub fn pattern_views(
        &self,
        queries: &HeadsRef<'_>,
        keys: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
    ) -> Result<(), Error> {
        self.pattern_of(queries, keys, out, &mut [])
    }

    /// [`pattern`](Self::pattern) with keys of any [`Element`]: the bits are those of the widened keys.
    ///
    /// `workspace`: [`KEY_BLOCK`](crate::KEY_BLOCK) · dim floats of any content; of keys that are floats none.
    ///
    /// # Errors
    ///
    /// Those of [`pattern`](Self::pattern); [`Error::Workspace`] if `workspace` is too short.
    pub fn pattern_elements<'b, K: Element>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: ElementsRef<'_, K>,
        out: impl Into<HeadsMut<'b>>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let keys = BlockKeys::of_elements(keys);
        self.pattern_of(&queries.into(), &keys, &mut out.into(), workspace)
    }

    /// [`pattern_elements`](Self::pattern_elements) with elements that are known at run time, for the C library.
    #[doc(hidden)]
    pub fn pattern_any(
        &self,
        queries: &HeadsRef<'_>,
        &keys: &AnyElementsRef<'_>,
        out: &mut HeadsMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.pattern_of(queries, &BlockKeys::of_elements(keys), out, workspace)
    }

    /// [`pattern`](Self::pattern) over these keys.
    pub(crate) fn pattern_of<K: Keys>(
        &self,
        queries: &HeadsRef<'_>,
        keys: &K,
        out: &mut HeadsMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let weights = |backend, head, out: MatrixMut<'_>| self.weights(keys, (backend, head), out);
        self.grids((queries, keys), out, workspace, weights)
    }

    /// Computes the mean [`pattern`](Self::pattern) of all query heads: keys × queries. The weights are added head
    /// after head, and the sum is divided by the number of heads. `workspace` is keys · queries floats of any content.
    ///
    /// # Errors
    ///
    /// Those of [`pattern`](Self::pattern); [`Error::Shape`] also if there is no head; [`Error::Workspace`] if
    /// `workspace` is too short.
    pub fn mean_pattern<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.mean_pattern_views(&queries.into(), &keys.into(), out, workspace)
    }

    /// [`mean_pattern`](Self::mean_pattern) with keys of any [`Element`], whose `workspace` has those floats besides that
    /// [`pattern_elements`](Self::pattern_elements) asks for.
    ///
    /// # Errors
    ///
    /// Those of [`mean_pattern`](Self::mean_pattern).
    pub fn mean_pattern_elements<'b, K: Element>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: ElementsRef<'_, K>,
        out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.mean_pattern_of(&queries.into(), &BlockKeys::of_elements(keys), out, workspace)
    }

    /// [`mean_pattern_elements`](Self::mean_pattern_elements) with elements that are known at run time.
    #[doc(hidden)]
    pub fn mean_pattern_any(
        &self,
        queries: &HeadsRef<'_>,
        &keys: &AnyElementsRef<'_>,
        out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.mean_pattern_of(queries, &BlockKeys::of_elements(keys), out, workspace)
    }

    /// [`mean_pattern`](Self::mean_pattern) of views by reference.
    #[doc(hidden)]
    pub fn mean_pattern_views(
        &self,
        queries: &HeadsRef<'_>,
        keys: &HeadsRef<'_>,
        out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.mean_pattern_of(queries, keys, out, workspace)
    }

    /// [`mean_pattern`](Self::mean_pattern) over these keys.
    pub(crate) fn mean_pattern_of<K: Keys>(
        &self,
        queries: &HeadsRef<'_>,
        keys: &K,
        mut out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let ([_, rows, _], heads, cols) = (keys.shape(), queries.heads(), queries.rows());
        let countable = heads > 0 && heads.checked_mul(cols).is_some();
        if !countable || out.shape() != (rows, cols) {
            return Err(Error::Shape);
        }
        let cells = rows.saturating_mul(cols);
        let (of_head, widened) = workspace.split_at_mut_checked(cells).unwrap_or_default();
        let backend = self.check_grids(queries, keys, widened)?;
        if of_head.len() < cells {
            return Err(Error::Workspace);
        }
        if out.is_empty() {
            return Ok(()); // any number of heads
        }
        let mut of_head = MatrixMut::new(of_head, rows, cols)?;
        for head in 0..heads {
            self.grid((queries, keys), (backend, head), of_head.view_mut(), widened)?;
            self.weights(keys, (backend, head), of_head.view_mut());
            for (key, token) in (0..rows).flat_map(|key| (0..cols).map(move |token| (key, token))) {
                if let (Some(sum), Some(weight)) =
                    (out.get_mut(key, token), of_head.get_mut(key, token))
                {
                    let before = if head == 0 { 0.0 } else { *sum };
                    let after = before + *weight;
                    *sum = if head + 1 == heads { after / heads as f32 } else { after };
                }
            }
        }
        Ok(())
    }

    /// Computes the score grid of each head, then has it finished.
    #[inline(always)]
    fn grids<K: Keys>(
        &self,
        (queries, keys): (&HeadsRef<'_>, &K),
        out: &mut HeadsMut<'_>,
        widened: &mut [f32],
        finish: impl Fn(Backend, usize, MatrixMut<'_>),
    ) -> Result<(), Error> {
        let ([_, rows, _], heads) = (keys.shape(), queries.heads());
        if (out.heads(), out.rows(), out.cols()) != (heads, rows, queries.rows()) {
            return Err(Error::Shape);
        }
        let backend = self.check_grids(queries, keys, widened)?;
        if out.rows() == 0 || out.cols() == 0 {
            return Ok(()); // any number of heads
        }
        for head in 0..heads {
            let Some(mut out) = out.head_mut(head) else { break };
            self.grid((queries, keys), (backend, head), out.view_mut(), widened)?;
            finish(backend, head, out);
        }
        Ok(())
    }

    fn check_grids<K: Keys>(
        &self,
        queries: &HeadsRef<'_>,
        keys: &K,
        widened: &[f32],
    ) -> Result<Backend, Error> {
        let ([key_heads, rows, cols], heads, dim) = (keys.shape(), queries.heads(), queries.cols());
        if dim == 0 || cols != dim || heads.checked_rem(key_heads) != Some(0) {
            return Err(Error::Shape);
        }
        let backend = self.check(rows, queries.rows(), heads)?;
        keys.check(self, widened)?;
        Ok(backend)
    }

    /// Computes the score grid of a head.
    fn grid<K: Keys>(
        &self,
        (queries, keys): (&HeadsRef<'_>, &K),
        (backend, head): (Backend, usize),
        mut out: MatrixMut<'_>,
        widened: &mut [f32],
    ) -> Result<(), Error> {
        let [key_heads, ..] = keys.shape();
        let group = queries.heads().checked_div(key_heads).unwrap_or(1);
        let of_keys = (backend, head.checked_div(group).unwrap_or(0));
        let queries = queries.head(head).unwrap_or(MatrixRef::EMPTY);
        let Positions { held: [first, _], .. } = keys.positions(self);
        let flags = self.may_mask(first).then(Flags::read);
        keys.scores(of_keys, (queries, self.scale), out.view_mut(), widened)?;
        self.modify(keys, (backend, head), None, out);
        if let Some(flags) = flags {
            flags.restore();
        }
        Ok(())
    }

    /// Makes a score grid the pattern of its head.
    fn weights<K: Keys>(
        &self,
        keys: &K,
        (backend, head): (Backend, usize),
        mut out: MatrixMut<'_>,
    ) {
        let sink = self.sinks.and_then(|sinks| sinks.get(head).copied()).unwrap_or(self.sink);
        backend.softmax_columns_with_sink(sink, out.view_mut());
        // A NaN makes its whole column NaN, the masked weights too: they become +0 again.
        self.modify(keys, (backend, head), Some(0.0), out);
    }

    /// Modifies the scores of a head and writes −∞ where a key is masked; with a `fill` only writes it there.
    fn modify<K: Keys>(
        &self,
        keys: &K,
        (backend, head): (Backend, usize),
        fill: Option<f32>,
        mut out: MatrixMut<'_>,
    ) {
        let (rows, tokens) = out.shape();
        let Positions { held, dropped, kept, last_is_newest } = keys.positions(self);
        let origin = if last_is_newest { [held[1], tokens] } else { [0, 0] };
        if let Some(as_score_mod) = self.score_mod {
            let queries = Queries { first: head * tokens, count: tokens, tokens };
            let modify = |first, key, rows: MatrixMut<'_>| {
                let score_mods = self.score_mods(backend, first, origin);
                as_score_mod(&score_mods).apply(key, queries, fill, rows);
            };
            if dropped.start == 0 {
                modify(dropped.end, dropped.end, out.view_mut());
            } else if let Ok((of_kept, others)) = out.view_mut().split_rows(dropped.start) {
                modify(0, 0, of_kept);
                modify(dropped.len(), dropped.end, others);
            }
        }
        // The causal mask and the window: two runs in each column.
        let visible = self.visible(held, [0, kept], origin);
        let fill = fill.unwrap_or(f32::NEG_INFINITY);
        if rows == 0 {
            return; // any number of tokens
        }
        let row = |key: usize| match key.checked_sub(dropped.end) {
            Some(behind) => dropped.start + behind,
            None => key.min(dropped.start),
        };
        for token in 0..tokens {
            let visible_keys = visible.range(token);
            let [_, end_of_kept] = visible.kept();
            let before = row(end_of_kept)..row(visible_keys.start);
            for row in before.chain(row(visible_keys.end)..rows) {
                if let Some(score) = out.get_mut(row, token) {
                    *score = fill;
                }
            }
        }
    }
}

/// The keys of a grid, which has a row for each of them.
pub(crate) trait Keys {
    /// The number of KV heads, of keys and of columns.
    fn shape(&self) -> [usize; 3];

    /// Which keys these are, in a call with these options.
    fn positions(&self, attention: &Attention<'_>) -> Positions;

    /// Checks the options and the floats for widened keys.
    fn check(&self, attention: &Attention<'_>, widened: &[f32]) -> Result<(), Error>;

    /// Computes the scores of a KV head and the queries of a query head.
    fn scores(
        &self,
        of_head: (Backend, usize),
        queries: (MatrixRef<'_>, Option<f32>),
        out: MatrixMut<'_>,
        widened: &mut [f32],
    ) -> Result<(), Error>;
}

/// The keys that have rows.
pub(crate) struct Positions {
    /// The first and the end, but for kept keys before these.
    held: [usize; 2],
    /// Those before the end that have none.
    dropped: Range<usize>,
    /// The number of first keys that stay visible.
    kept: usize,
    /// Whether the last query has the position of the newest key.
    last_is_newest: bool,
}

impl Keys for HeadsRef<'_> {
    #[inline(always)]
    fn shape(&self) -> [usize; 3] {
        [self.heads(), self.rows(), self.cols()]
    }

    #[inline(always)]
    fn positions(&self, attention: &Attention<'_>) -> Positions {
        let (held, kept) = ([0, self.rows()], attention.first_kept());
        Positions { held, dropped: 0..0, kept, last_is_newest: false }
    }

    #[inline(always)]
    fn check(&self, _: &Attention<'_>, _: &[f32]) -> Result<(), Error> {
        Ok(())
    }

    #[inline(always)]
    fn scores(
        &self,
        (backend, head): (Backend, usize),
        (queries, scale): (MatrixRef<'_>, Option<f32>),
        out: MatrixMut<'_>,
        _: &mut [f32],
    ) -> Result<(), Error> {
        backend.scores(self.head(head).unwrap_or(MatrixRef::EMPTY), queries, scale, out)
    }
}

/// Keys that are scored block by block: those of a cache, and elements, which are widened.
pub(crate) struct BlockKeys<'a, K> {
    pub(crate) keys: K,
    pub(crate) dim: usize,
    pub(crate) ring: Option<&'a Ring>,
}

impl<K: Side> BlockKeys<'_, K> {
    /// The keys of an array.
    pub(crate) fn of_elements(keys: K) -> Self {
        let [_, _, dim] = keys.shape();
        Self { keys, dim, ring: None }
    }

    fn held(&self) -> [usize; 2] {
        let [_, rows, _] = self.keys.shape();
        self.ring.map_or([0, rows], |ring| ring.keys)
    }

    fn dropped(&self) -> Range<usize> {
        self.ring.map_or(0..0, Ring::dropped)
    }
}

impl<K: Side> Keys for BlockKeys<'_, K> {
    fn shape(&self) -> [usize; 3] {
        let ([heads, ..], [_, end]) = (self.keys.shape(), self.held());
        [heads, end - self.dropped().len(), self.dim]
    }

    fn positions(&self, attention: &Attention<'_>) -> Positions {
        Positions {
            held: self.held(),
            dropped: self.dropped(),
            kept: self.ring.map_or(attention.first_kept(), Ring::kept),
            last_is_newest: self.ring.is_some(),
        }
    }

    fn check(&self, attention: &Attention<'_>, widened: &[f32]) -> Result<(), Error> {
        attention.check_kept(self.ring)?;
        let needed =
            if self.keys.are_floats() { 0 } else { self.dim.saturating_mul(STORAGE_BLOCK) };
        if widened.len() < needed { Err(Error::Workspace) } else { Ok(()) }
    }

    fn scores(
        &self,
        (backend, head): (Backend, usize),
        (queries, scale): (MatrixRef<'_>, Option<f32>),
        mut out: MatrixMut<'_>,
        widened: &mut [f32],
    ) -> Result<(), Error> {
        let (dropped, [_, end], on) = (self.dropped(), self.held(), (backend, self.ring));
        for mut keys in [0..dropped.start, dropped.end..end] {
            while !keys.is_empty() {
                let before = keys.start % STORAGE_BLOCK;
                let first_key = keys.start - before;
                let count = STORAGE_BLOCK.min(keys.end - first_key);
                let block = Block { head, first_key, count, dim: self.dim };
                let (mut scores, rest) = out.split_rows(count - before)?;
                let floats = &mut Widened { floats: widened, is_ready: false };
                let widened = self.keys.keys(on, block, floats);
                let widened = widened.and_then(|keys| keys.rows_from(before, count - before));
                let keys_of_block = widened.unwrap_or(MatrixRef::EMPTY);
                backend.scores(keys_of_block, queries, scale, scores.view_mut())?;
                self.keys.scale_from(on, block, before, scores);
                (out, keys.start) = (rest, first_key + count);
            }
        }
        Ok(())
    }
}
