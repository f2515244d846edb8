//! The score grid and the attention pattern of every head, and the mean pattern. Public API.

use crate::{
    attention::Attention,
    dispatch::Backend,
    error::Error,
    kernel::mask::Queries,
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
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
        self.grids(&queries.into(), &keys.into(), &mut out.into(), |_, _, _| {})
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
        let weights = |backend, head, out: MatrixMut<'_>| self.weights(backend, head, out);
        self.grids(queries, keys, out, weights)
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

    /// [`mean_pattern`](Self::mean_pattern) of views by reference.
    #[doc(hidden)]
    pub fn mean_pattern_views(
        &self,
        queries: &HeadsRef<'_>,
        keys: &HeadsRef<'_>,
        mut out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (heads, rows, cols) = (queries.heads(), keys.rows(), queries.rows());
        let countable = heads > 0 && heads.checked_mul(cols).is_some();
        if !countable || out.shape() != (rows, cols) {
            return Err(Error::Shape);
        }
        let backend = self.check_grids(queries, keys)?;
        let workspace = workspace.get_mut(..rows.saturating_mul(cols)).ok_or(Error::Workspace)?;
        if out.is_empty() {
            return Ok(()); // any number of heads
        }
        let mut of_head = MatrixMut::new(workspace, rows, cols)?;
        for head in 0..heads {
            self.grid(backend, head, [queries, keys], of_head.view_mut())?;
            self.weights(backend, head, of_head.view_mut());
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
    fn grids(
        &self,
        queries: &HeadsRef<'_>,
        keys: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
        finish: impl Fn(Backend, usize, MatrixMut<'_>),
    ) -> Result<(), Error> {
        let heads = queries.heads();
        if (out.heads(), out.rows(), out.cols()) != (heads, keys.rows(), queries.rows()) {
            return Err(Error::Shape);
        }
        let backend = self.check_grids(queries, keys)?;
        if out.rows() == 0 || out.cols() == 0 {
            return Ok(()); // any number of heads
        }
        for head in 0..heads {
            let Some(mut out) = out.head_mut(head) else { break };
            self.grid(backend, head, [queries, keys], out.view_mut())?;
            finish(backend, head, out);
        }
        Ok(())
    }

    fn check_grids(&self, queries: &HeadsRef<'_>, keys: &HeadsRef<'_>) -> Result<Backend, Error> {
        let (heads, dim) = (queries.heads(), queries.cols());
        if dim == 0 || keys.cols() != dim || heads.checked_rem(keys.heads()) != Some(0) {
            return Err(Error::Shape);
        }
        self.check(keys.rows(), queries.rows(), heads)
    }

    /// Computes the score grid of a head.
    fn grid(
        &self,
        backend: Backend,
        head: usize,
        [queries, keys]: [&HeadsRef<'_>; 2],
        mut out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let group = queries.heads().checked_div(keys.heads()).unwrap_or(1);
        let keys = keys.head(head.checked_div(group).unwrap_or(0)).unwrap_or(MatrixRef::EMPTY);
        let queries = queries.head(head).unwrap_or(MatrixRef::EMPTY);
        let flags = self.may_mask(0).then(Flags::read);
        backend.scores(keys, queries, self.scale, out.view_mut())?;
        self.modify(backend, head, None, out);
        if let Some(flags) = flags {
            flags.restore();
        }
        Ok(())
    }

    /// Makes a score grid the pattern of its head.
    fn weights(&self, backend: Backend, head: usize, mut out: MatrixMut<'_>) {
        let sink = self.sinks.and_then(|sinks| sinks.get(head).copied()).unwrap_or(self.sink);
        backend.softmax_columns_with_sink(sink, out.view_mut());
        // A NaN makes its whole column NaN, the masked weights too: they become +0 again.
        self.modify(backend, head, Some(0.0), out);
    }

    /// Modifies the scores of a head and writes −∞ where a key is masked; with a `fill` only writes it there.
    fn modify(&self, backend: Backend, head: usize, fill: Option<f32>, mut out: MatrixMut<'_>) {
        let (keys, tokens) = out.shape();
        if let Some(as_score_mod) = self.score_mod {
            let score_mods = self.score_mods(backend, 0, [0, 0]);
            let queries = Queries { first: head * tokens, count: tokens, tokens };
            as_score_mod(&score_mods).apply(0, queries, fill, out.view_mut());
        }
        // The causal mask and the window: two runs in each column.
        let visible = self.visible([0, keys], [0, self.first_kept()], [0, 0]);
        let fill = fill.unwrap_or(f32::NEG_INFINITY);
        if keys == 0 {
            return; // any number of tokens
        }
        for token in 0..tokens {
            let visible_keys = visible.range(token);
            let [_, end_of_kept] = visible.kept();
            for key in (end_of_kept..visible_keys.start).chain(visible_keys.end..keys) {
                if let Some(score) = out.get_mut(key, token) {
                    *score = fill;
                }
            }
        }
    }
}
