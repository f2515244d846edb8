//! Attention over sequences that are laid one after another. Public API.

use core::ops::Range;

use super::{Attention, LOGARITHM};
use crate::{
    elements::{AnyElementsRef, ElementsRef, Side},
    error::Error,
    kernel::blocks::{Blocks, Data},
    matrix::{HeadsMut, HeadsRef},
    narrow::Element,
};

impl Attention<'_> {
    /// [`run`](Self::run) over sequences that are laid one after another: a query sees the keys of its own sequence
    /// only, and its bits are those of a call with this sequence alone. Nothing is padded or copied.
    ///
    /// | argument | shape |
    /// | --- | --- |
    /// | `lengths` | the number of queries and of keys of each sequence; their sums are those of `queries` and `keys` |
    /// | `log_sum_exp` | `None`, or query heads · queries floats: sequence after sequence, each as [`run_with_log_sum_exp`](Self::run_with_log_sum_exp) writes it |
    ///
    /// Positions are counted in each sequence: query `i` of a sequence has the position `query_offset + i`. A bias or
    /// keep has a row for each key and a column for each query of all sequences; only those of one sequence are read.
    ///
    /// ```
    /// use sdpa::{Attention, Matrix};
    ///
    /// // Two sequences, of one and of two tokens.
    /// let tokens = Matrix::from([[1.0], [2.0], [3.0]]);
    /// let mut out = Matrix::<3, 1>::ZERO;
    /// let mut workspace = [0.0; Attention::workspace(1, 1)];
    /// let (x, causal) = (tokens.view(), Attention::new().causal());
    /// causal.run_packed(x, x, x, &[[1, 1], [2, 2]], out.view_mut(), None, &mut workspace)?;
    /// assert_eq!(out.0[..2], [[1.0], [2.0]]); // the first of a sequence sees itself
    /// # Ok::<(), sdpa::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`run_with_log_sum_exp`](Self::run_with_log_sum_exp); [`Error::Shape`] also if the sums of the lengths
    /// disagree. Nothing is written then.
    #[expect(clippy::too_many_arguments)]
    pub fn run_packed<'b>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: impl Into<HeadsRef<'b>>,
        values: impl Into<HeadsRef<'b>>,
        lengths: &[[usize; 2]],
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let elements = (ElementsRef::from(keys.into()), ElementsRef::from(values.into()));
        let lengths = lengths.iter().copied();
        let (queries, mut out) = (queries.into(), out.into());
        self.run_sequences(&queries, elements, lengths, &mut out, log_sum_exp, workspace)
    }

    /// [`run_packed`](Self::run_packed) with keys and values of any [`Element`]: see
    /// [`run_elements`](Self::run_elements).
    ///
    /// # Errors
    ///
    /// Those of [`run_packed`](Self::run_packed) and of [`run_elements`](Self::run_elements).
    #[expect(clippy::too_many_arguments)]
    pub fn run_elements_packed<'b, K: Element, V: Element>(
        &self,
        queries: impl Into<HeadsRef<'b>>,
        keys: ElementsRef<'_, K>,
        values: ElementsRef<'_, V>,
        lengths: &[[usize; 2]],
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let lengths = lengths.iter().copied();
        let (queries, mut out) = (queries.into(), out.into());
        self.run_sequences(&queries, (keys, values), lengths, &mut out, log_sum_exp, workspace)
    }

    /// [`run_packed`](Self::run_packed) with cumulative lengths (of queries, of keys) and views by reference, for the C
    /// library. Not part of the API.
    #[doc(hidden)]
    #[expect(clippy::too_many_arguments)]
    pub fn run_cu_seqlens_views(
        &self,
        queries: &HeadsRef<'_>,
        [&keys, &values]: [&HeadsRef<'_>; 2],
        cu_seqlens_q: &[i32],
        cu_seqlens_k: &[i32],
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let elements = (ElementsRef::from(keys), ElementsRef::from(values));
        let lengths = lengths([cu_seqlens_q, cu_seqlens_k])?;
        self.run_sequences(queries, elements, lengths, out, log_sum_exp, workspace)
    }

    /// [`run_cu_seqlens_views`](Self::run_cu_seqlens_views) with elements that are known at run time.
    #[doc(hidden)]
    #[expect(clippy::too_many_arguments)]
    pub fn run_cu_seqlens_any(
        &self,
        queries: &HeadsRef<'_>,
        [&keys, &values]: [&AnyElementsRef<'_>; 2],
        cu_seqlens_q: &[i32],
        cu_seqlens_k: &[i32],
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let lengths = lengths([cu_seqlens_q, cu_seqlens_k])?;
        self.run_sequences(queries, (keys, values), lengths, out, log_sum_exp, workspace)
    }

    /// Checks all arguments, then runs each sequence.
    fn run_sequences<K: Side, V: Side>(
        &self,
        queries: &HeadsRef<'_>,
        (keys, values): (K, V),
        lengths: impl Iterator<Item = [usize; 2]> + Clone,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let elements = self.elements(keys, values, None);
        let floats = elements.as_floats();
        let data = match &floats {
            Some([keys, values]) => Data::Floats([keys, values]),
            None => Data::Elements(&elements),
        };
        let blocks = Blocks { data, ring: None };
        let [_, end] = blocks.held();
        let outputs = (&*out, blocks.value_dim());
        let agree = self.agree(queries, end, lengths.clone(), outputs, &log_sum_exp);
        self.check_call(queries, &blocks, agree, workspace)?;
        self.for_each_sequence(
            lengths,
            (queries, out, log_sum_exp),
            |call, rows, queries, out, logs| {
                let (keys, values) = (&elements.keys, &elements.values);
                let elements = call.elements(keys.part(rows.clone())?, values.part(rows)?, None);
                let logs = logs.map(|out| (out, LOGARITHM));
                call.run_elements_call(queries, &elements, out, logs, workspace)
            },
        )
    }

    /// Whether lengths and outputs have the right shape.
    fn agree(
        &self,
        queries: &HeadsRef<'_>,
        keys: usize,
        mut lengths: impl Iterator<Item = [usize; 2]>,
        (out, value_dim): (&HeadsMut<'_>, usize),
        log_sum_exp: &Option<&mut [f32]>,
    ) -> bool {
        let (heads, tokens) = (queries.heads(), queries.rows());
        let sums = lengths.try_fold([0_usize; 2], |[queries, keys], length| {
            Some([queries.checked_add(length[0])?, keys.checked_add(length[1])?])
        });
        sums == Some([tokens, keys])
            && (out.heads(), out.rows(), out.cols()) == (heads, tokens, value_dim)
            && log_sum_exp.as_ref().is_none_or(|out| heads.checked_mul(tokens) == Some(out.len()))
    }

    /// Calls `run` for each sequence, with its options, the rows of its keys, its queries and its outputs.
    #[inline(always)]
    fn for_each_sequence(
        &self,
        lengths: impl Iterator<Item = [usize; 2]>,
        (queries, out, mut log_sum_exp): (&HeadsRef<'_>, &mut HeadsMut<'_>, Option<&mut [f32]>),
        mut run: impl FnMut(
            &Attention<'_>,
            Range<usize>,
            &HeadsRef<'_>,
            &mut HeadsMut<'_>,
            Option<&mut [f32]>,
        ) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let [mut query, mut key] = [0; 2];
        for [tokens, keys] in lengths {
            let (columns, rows) = (query..query + tokens, key..key + keys);
            let mut call = *self;
            if let Some(bias) = &mut call.bias {
                bias.bias = bias.bias.part(rows.clone(), columns.clone())?;
            }
            if let Some(keep) = &mut call.keep {
                keep.keep = keep.keep.part(rows.clone(), columns.clone())?;
            }
            let (_, below) = out.view_mut().split_rows(query)?;
            let (mut of_sequence, _) = below.split_rows(tokens)?;
            let of_sequence_and_rest = log_sum_exp
                .take()
                .and_then(|out| out.split_at_mut_checked(queries.heads() * tokens));
            let (logs, rest) = of_sequence_and_rest.unzip();
            log_sum_exp = rest;
            run(&call, rows, &queries.rows_of(columns)?, &mut of_sequence, logs)?;
            (query, key) = (query + tokens, key + keys);
        }
        Ok(())
    }
}

/// The lengths of sequences, of which the first begins at 0 and each where the one before ends: of queries and of keys.
fn lengths(cu_seqlens: [&[i32]; 2]) -> Result<impl Iterator<Item = [usize; 2]> + Clone, Error> {
    let ends = cu_seqlens.map(|of| of.iter().zip(of.iter().skip(1)));
    let rise = ends.iter().all(|ends| ends.clone().all(|(from, to)| from <= to));
    if !rise || cu_seqlens.iter().any(|of| of.first() != Some(&0)) {
        return Err(Error::Shape);
    }
    let [queries, keys] = ends.map(|ends| ends.map(|(from, to)| to.abs_diff(*from) as usize));
    Ok(queries.zip(keys).map(|(queries, keys)| [queries, keys]))
}
