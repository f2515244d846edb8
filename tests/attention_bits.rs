//! Attention, bit for bit: against the scalar reference of its family, and against itself with other queries
//! in the same call, other heads, other layouts and other ranges; on every back end. `attention_cache.rs`
//! does the same for caches.

use crate::common::{
    self, assert_same_bits,
    cases::{self, Kind, Layout, Rng},
    grid::{Grid, GuardedMatrix},
    heads::{GuardedHeads, guarded},
    options::Options,
    reference::{Reference, attention::Answer},
};
use sdpa::{Attention, Backend, HeadsMut, HeadsRef, MatrixMut, MatrixRef};

suite! {
    matches_the_reference,
    sums_that_underflow,
    outputs_that_underflow,
    scores_and_pattern_match_the_reference,
    grids_of_heads,
    a_query_does_not_depend_on_others,
    a_head_does_not_depend_on_others,
    ranges_of_queries,
    layout_does_not_matter,
    hidden_blocks_change_no_bit,
    masked_keys_change_no_bit,
}

/// The heads of one call: KV heads, and query heads per KV head.
struct Case {
    options: Options,
    group: usize,
    queries: Vec<Grid>,
    keys: Vec<Grid>,
    values: Vec<Grid>,
    what: String,
}

/// A number of keys, often near a multiple of the size of a block or of a span.
fn key_count(rng: &mut Rng) -> usize {
    let near = (64 * rng.below(4) + rng.below(3)).saturating_sub(1);
    let any = cases::size(rng);
    let long = 1024 * (1 + rng.below(3)) + rng.pick(&[0, 1, 63, 300, 1023]);
    rng.pick(&[near, near, near, any, any, long])
}

impl Case {
    fn random(rng: &mut Rng) -> Self {
        let (key_heads, group) = (rng.pick(&[1, 1, 1, 2, 3]), rng.pick(&[1, 1, 1, 2, 5]));
        let any = cases::size(rng);
        let tokens = rng.pick(&[1, 1, 2, 7, 33, any, any]) / group;
        let (mut dim, mut width) = (cases::size(rng).max(1), cases::size(rng).max(1));
        let mut keys = key_count(rng);
        let heads = key_heads * group;
        while heads * tokens * keys * (dim + width) > 1 << 16 {
            (dim, width) = (dim.div_ceil(2), width.div_ceil(2));
            keys = if dim + width < 4 { keys / 2 } else { keys };
        }
        Self::of(rng, [key_heads, group, tokens, keys, dim, width])
    }

    fn of(rng: &mut Rng, [key_heads, group, tokens, keys, dim, width]: [usize; 6]) -> Self {
        let heads = key_heads * group;
        let options = Options::random(rng, heads, keys, tokens);
        let kinds = [Kind::any(rng), Kind::any(rng), Kind::any(rng)];
        let mut grids = |heads, kind, rows, cols| -> Vec<Grid> {
            (0..heads).map(|_| Grid::random(rng, kind, rows, cols)).collect()
        };
        let what = format!(
            "{heads} heads of {tokens}, {key_heads} of {keys}, {dim}, {width}, {kinds:?}, \
             {options:?}"
        );
        let queries = grids(heads, kinds[0], tokens, dim);
        let keys = [grids(key_heads, kinds[1], keys, dim), grids(key_heads, kinds[2], keys, width)];
        let [keys, values] = keys;
        Self { options, group, queries, keys, values, what }
    }

    fn sizes(&self) -> [usize; 4] {
        let [queries, values] = [&self.queries[0], &self.values[0]];
        [self.queries.len(), queries.rows, queries.cols, values.cols]
    }

    /// Computes one call, with operands and output of any layout.
    fn run(&self, backend: Backend, rng: &mut Rng) -> Vec<(Grid, Vec<f32>)> {
        let [queries, keys, values] =
            [&self.queries, &self.keys, &self.values].map(|grids| GuardedHeads::of(rng, grids));
        let attention = self.options.attention(backend);
        guarded(rng, &self.what, self.sizes(), |out, logarithms, workspace| {
            let [queries, keys, values] = [&queries, &keys, &values].map(GuardedHeads::view);
            attention.run_with_log_sum_exp(queries, keys, values, out, logarithms, workspace)
        })
    }

    /// Computes some queries of head `head` alone, as matrices.
    fn run_alone(&self, backend: Backend, head: usize, [from, to]: [usize; 2]) -> (Grid, Vec<f32>) {
        let keys = self.keys[0].rows;
        let options = self.options.of_head(head).part([0, keys], [from, to]);
        let queries =
            common::options::part(&self.queries[head], [from, to], [0, self.queries[head].cols]);
        run(
            backend,
            &options,
            [&queries, &self.keys[head / self.group], &self.values[head / self.group]],
        )
    }

    #[track_caller]
    fn assert_same(&self, how: &str, got: &(Grid, Vec<f32>), want: &(Grid, Vec<f32>)) {
        let what = format!("{how}: {}", self.what);
        assert_same_bits(&what, &got.0.data, &want.0.data);
        assert_same_bits(&format!("log-sum-exp, {what}"), &got.1, &want.1);
    }
}

/// A call of one head.
fn run(
    backend: Backend,
    options: &Options,
    [queries, keys, values]: [&Grid; 3],
) -> (Grid, Vec<f32>) {
    let mut rng = Rng::new(0);
    let sizes = [1, queries.rows, queries.cols, values.cols];
    let attention = options.attention(backend);
    let mut heads = guarded(&mut rng, "plain", sizes, |out, logarithms, workspace| {
        let [queries, keys, values] = [queries, keys, values].map(Grid::view);
        attention.run_with_log_sum_exp(queries, keys, values, out, logarithms, workspace)
    });
    heads.remove(0)
}

/// The rows of `all` from `from` on.
fn rows(all: &(Grid, Vec<f32>), [from, to]: [usize; 2]) -> (Grid, Vec<f32>) {
    let (grid, logarithms) = all;
    (common::options::part(grid, [from, to], [0, grid.cols]), logarithms[from..to].to_vec())
}

fn matches_the_reference(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(21);
    // Heads, queries, keys, columns of keys and of values: blocks that do not fit in a first-level cache.
    const LARGE: [[usize; 6]; 6] = [
        [1, 1, 1, 5, 8192, 3],
        [1, 1, 1, 70, 400, 96],
        [1, 1, 1, 130, 96, 500],
        [1, 1, 1, 201, 203, 128],
        [1, 1, 3, 66, 300, 300],
        [2, 2, 1, 90, 256, 128],
    ];
    for i in 0..3000 {
        let large = LARGE.get(i).map(|&sizes| Case::of(&mut rng, sizes));
        let case = large.unwrap_or_else(|| Case::random(&mut rng));
        let heads = case.run(backend, &mut rng);
        for (head, got) in heads.iter().enumerate() {
            let [keys, values] = [&case.keys, &case.values].map(|grids| &grids[head / case.group]);
            let Answer { out, log_sum_exp } =
                reference.attention(&case.options, head, [&case.queries[head], keys, values]);
            case.assert_same(&format!("head {head}"), got, &(out, log_sum_exp));
        }
        // Without log-sum-exps the outputs have the same bits.
        let [queries, keys, values] = [&case.queries, &case.keys, &case.values]
            .map(|grids| GuardedHeads::of(&mut rng, grids));
        let attention = case.options.attention(backend);
        let outputs = guarded(&mut rng, &case.what, case.sizes(), |out, _, workspace| {
            attention.run(queries.view(), keys.view(), values.view(), out, workspace)
        });
        for (got, want) in outputs.iter().zip(&heads) {
            assert_same_bits(&case.what, &got.0.data, &want.0.data);
        }
    }
}

/// Outputs whose final product underflows from below have the same sign of zero in every layout.
fn outputs_that_underflow(backend: Backend) {
    for (tokens, width, stride) in product(&[1, 2, 3, 4, 5, 9], &[1, 4, 8, 9], &[1, 2, 3, 4, 8]) {
        let queries = Grid::from_fn(tokens, 1, |_, _| 0.0);
        let keys = Grid::from_fn(3, 1, |_, _| 0.0);
        let values =
            Grid::from_fn(3, width, |key, _| if key == 0 { -f32::from_bits(1) } else { 0.0 });
        let mut workspace = vec![0.0; Attention::workspace(1, width)];
        let mut run = |out| {
            let attention = Attention::new().on(backend);
            attention
                .run(queries.view(), keys.view(), values.view(), out, &mut workspace)
                .expect("sizes agree");
        };
        let mut dense = vec![9.0; tokens * width];
        run(MatrixMut::new(&mut dense, tokens, width).expect("shape"));
        let mut apart = vec![9.0; tokens * width * stride];
        let strided = MatrixMut::with_strides(&mut apart, tokens, width, width * stride, stride);
        run(strided.expect("shape"));
        let apart: Vec<f32> = apart.into_iter().step_by(stride).collect();
        assert_same_bits(&format!("{tokens} x {width}, {stride} apart"), &apart, &dense);
        let alone: Vec<f32> = dense[..width].iter().cycle().take(dense.len()).copied().collect();
        assert_same_bits(&format!("{tokens} x {width}, all the same"), &dense, &alone);
    }
}

fn product<'a>(
    a: &'a [usize],
    b: &'a [usize],
    c: &'a [usize],
) -> impl Iterator<Item = (usize, usize, usize)> + use<'a> {
    a.iter().flat_map(move |&a| b.iter().flat_map(move |&b| c.iter().map(move |&c| (a, b, c))))
}

/// Scores rise from block to block, so that a sum of subnormal values is rescaled to a zero, whose sign must
/// match.
fn sums_that_underflow(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(29);
    let options = Options { scale: Some(1.0), ..Options::new() };
    for _ in 0..300 {
        let (tokens, step) = (1 + rng.below(20), rng.between(0.0, 60.0));
        let queries = Grid::from_fn(tokens, 1, |_, _| 1.0);
        let keys = Grid::from_fn(1 + rng.below(192), 1, |key, _| step * (key / 64) as f32);
        let mut values = Grid::random(&mut rng, Kind::Zeros, keys.rows, 9);
        Kind::Subnormal.fill(&mut rng, &mut values.data[..9]);
        values.data[..9].iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits() & 0x8000_00ff));
        let operands = [&queries, &keys, &values];
        let (out, logarithms) = run(backend, &options, operands);
        let Answer { out: want, log_sum_exp } = reference.attention(&options, 0, operands);
        assert_same_bits(&format!("steps of {step}"), &out.data, &want.data);
        assert_same_bits(&format!("steps of {step}"), &logarithms, &log_sum_exp);
    }
}

fn scores_and_pattern_match_the_reference(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(22);
    for _ in 0..2000 {
        let (tokens, keys) = (cases::size(&mut rng), key_count(&mut rng));
        let dim = 1 + rng.below(1 + (1 << 14) / (tokens * keys).max(256));
        let Case { options, queries, keys, what, .. } =
            Case::of(&mut rng, [1, 1, tokens, keys, dim, 1]);
        let (queries, keys) = (&queries[0], &keys[0]);
        let [q, k] = [queries, keys]
            .map(|grid| GuardedMatrix::of(grid, Layout::of_output(&mut rng, grid.rows, grid.cols)));
        let attention = options.attention(backend);
        let mut out = GuardedMatrix::output(&mut rng, keys.rows, tokens);
        attention.scores(q.view(), k.view(), out.view_mut()).unwrap();
        let want = reference.masked_scores(&options, queries, keys);
        assert_same_bits(&format!("scores, {what}"), &out.checked(&what).data, &want.data);
        let mut out = GuardedMatrix::output(&mut rng, keys.rows, tokens);
        attention.pattern(q.view(), k.view(), out.view_mut()).unwrap();
        let want = reference.pattern(&options, queries, keys);
        assert_same_bits(&format!("pattern, {what}"), &out.checked(&what).data, &want.data);
    }
}

/// The grids of many heads, grouped, and their mean: each head has the bits of a call of its own.
fn grids_of_heads(backend: Backend) {
    let mut rng = Rng::new(31);
    for _ in 0..300 {
        let case = Case::random(&mut rng);
        let [heads, tokens, ..] = case.sizes();
        let rows = case.keys[0].rows;
        let [queries, keys] =
            [&case.queries, &case.keys].map(|grids| GuardedHeads::of(&mut rng, grids));
        let attention = case.options.attention(backend);
        let size = rows * tokens;
        let mut grids = [vec![0.0; heads * size], vec![0.0; heads * size]];
        let [scores, pattern] = &mut grids;
        let out = HeadsMut::stacked(scores, heads, rows, tokens).unwrap();
        attention.scores(queries.view(), keys.view(), out).unwrap();
        let out = HeadsMut::stacked(pattern, heads, rows, tokens).unwrap();
        attention.pattern(queries.view(), keys.view(), out).unwrap();
        let mut sum = vec![0.0; size];
        for head in 0..heads {
            let options = case.options.of_head(head);
            let (q, k) = (&case.queries[head], &case.keys[head / case.group]);
            let part = head * size..(head + 1) * size;
            let want = common::paths::scores(backend, &options, q, k);
            assert_same_bits(&case.what, &grids[0][part.clone()], &want.data);
            let want = common::paths::pattern(backend, &options, q, k);
            assert_same_bits(&case.what, &grids[1][part], &want.data);
            sum.iter_mut().zip(&want.data).for_each(|(sum, weight)| *sum += weight);
        }
        sum.iter_mut().for_each(|sum| *sum /= heads as f32);
        let (mut mean, mut workspace) = (vec![f32::NAN; size], vec![f32::NAN; size]);
        let out = MatrixMut::new(&mut mean, rows, tokens).unwrap();
        attention.mean_pattern(queries.view(), keys.view(), out, &mut workspace).unwrap();
        assert_same_bits(&case.what, &mean, &sum);
    }
}

/// The same query alone, among 7 and among 200, at any index.
fn a_query_does_not_depend_on_others(backend: Backend) {
    let mut rng = Rng::new(23);
    for _ in 0..60 {
        let (keys, dim) = (key_count(&mut rng), 1 + rng.below(9));
        let width = 1 + rng.below(9);
        let case = Case::of(&mut rng, [1, 1, 200, keys, dim, width]);
        let all = case.run(backend, &mut rng).remove(0);
        for _ in 0..8 {
            let token = rng.below(200);
            let alone = case.run_alone(backend, 0, [token, token + 1]);
            case.assert_same(&format!("{token} alone"), &alone, &rows(&all, [token, token + 1]));
            let from = token.saturating_sub(rng.below(7)).min(193);
            let seven = case.run_alone(backend, 0, [from, from + 7]);
            case.assert_same(&format!("7 from {from}"), &seven, &rows(&all, [from, from + 7]));
        }
    }
}

/// Heads of one call, grouped and not, interleaved and stacked: each has the bits of a call of its own.
fn a_head_does_not_depend_on_others(backend: Backend) {
    let mut rng = Rng::new(24);
    for _ in 0..400 {
        let (key_heads, group) = (1 + rng.below(4), 1 + rng.below(5));
        let (tokens, keys) = (1 + rng.below(20), key_count(&mut rng));
        let (dim, width) = (1 + rng.below(20), 1 + rng.below(20));
        let case = Case::of(&mut rng, [key_heads, group, tokens, keys, dim, width]);
        let alone: Vec<_> =
            (0..key_heads * group).map(|head| case.run_alone(backend, head, [0, tokens])).collect();
        for (head, got) in case.run(backend, &mut rng).iter().enumerate() {
            case.assert_same(&format!("head {head}"), got, &alone[head]);
        }
        in_one_buffer(backend, &case, &alone);
    }
}

/// The constructors for [tokens][heads][dim] and [heads][tokens][dim], in either direction.
fn in_one_buffer(backend: Backend, case: &Case, want: &[(Grid, Vec<f32>)]) {
    let [heads, tokens, dim, width] = case.sizes();
    let (key_heads, keys) = (case.keys.len(), case.keys[0].rows);
    let by_head = |grids: &[Grid]| grids.iter().flat_map(|grid| grid.data.clone()).collect();
    let by_token = |grids: &[Grid]| -> Vec<f32> {
        let rows = 0..grids[0].rows;
        rows.flat_map(|row| grids.iter().flat_map(move |grid| grid.row(row).to_vec())).collect()
    };
    let stacked: [Vec<f32>; 3] = [&case.queries, &case.keys, &case.values].map(|g| by_head(g));
    let interleaved = [&case.queries, &case.keys, &case.values].map(|g| by_token(g));
    let outputs: Vec<Grid> = want.iter().map(|(grid, _)| grid.clone()).collect();
    let attention = case.options.attention(backend);
    let mut workspace = vec![0.0; sdpa::Attention::workspace(dim, width)];
    let mut out = vec![0.0; heads * tokens * width];

    let view = |i: usize, heads, rows, cols| {
        HeadsRef::stacked(&stacked[i], heads, rows, cols).expect("dense")
    };
    let [q, k, v] = [
        view(0, heads, tokens, dim),
        view(1, key_heads, keys, dim),
        view(2, key_heads, keys, width),
    ];
    let into = sdpa::HeadsMut::interleaved(&mut out, heads, tokens, width).unwrap();
    attention.run(q, k, v, into, &mut workspace).unwrap();
    assert_same_bits(&case.what, &out, &by_token(&outputs));

    let view = |i: usize, heads, rows, cols| {
        HeadsRef::interleaved(&interleaved[i], heads, rows, cols).expect("dense")
    };
    let [q, k, v] = [
        view(0, heads, tokens, dim),
        view(1, key_heads, keys, dim),
        view(2, key_heads, keys, width),
    ];
    let into = sdpa::HeadsMut::stacked(&mut out, heads, tokens, width).unwrap();
    attention.run(q, k, v, into, &mut workspace).unwrap();
    let want: Vec<f32> = by_head(&outputs);
    assert_same_bits(&case.what, &out, &want);
}

/// Queries and outputs split by rows, each part at its own offset.
fn ranges_of_queries(backend: Backend) {
    let mut rng = Rng::new(25);
    for _ in 0..400 {
        let (tokens, keys) = (1 + rng.below(80), key_count(&mut rng));
        let (dim, width) = (1 + rng.below(9), 1 + rng.below(9));
        let (key_heads, group) = (1 + rng.below(2), 1 + rng.below(3));
        let case = Case::of(&mut rng, [key_heads, group, tokens, keys, dim, width]);
        let want = case.run(backend, &mut rng);
        let heads = want.len();
        let [queries, keys, values] = [&case.queries, &case.keys, &case.values]
            .map(|grids| GuardedHeads::of(&mut rng, grids));
        let at = rng.below(tokens + 1);
        let mut logarithms = [vec![0.0; heads * at], vec![0.0; heads * (tokens - at)]];
        let got = guarded(&mut rng, &case.what, case.sizes(), |out, _, workspace| {
            let (q_first, q_second) = queries.view().split_rows(at)?;
            let (out_first, out_second) = out.split_rows(at)?;
            let parts = [(q_first, out_first, [0, at]), (q_second, out_second, [at, tokens])];
            for ((q, out, tokens), logarithms) in parts.into_iter().zip(&mut logarithms) {
                let options = case.options.part([0, case.keys[0].rows], tokens);
                let attention = options.attention(backend);
                let (k, v) = (keys.view(), values.view());
                attention.run_with_log_sum_exp(q, k, v, out, logarithms, workspace)?;
            }
            Ok(())
        });
        for (head, (got, want)) in got.into_iter().zip(&want).enumerate() {
            let [first, second] = &logarithms;
            let mut joined = first[head * at..][..at].to_vec();
            joined.extend(&second[head * (tokens - at)..][..tokens - at]);
            case.assert_same(&format!("head {head} split at {at}"), &(got.0, joined), want);
        }
    }
}

/// Masks and biases too, transposed or repeated.
fn layout_does_not_matter(backend: Backend) {
    let mut rng = Rng::new(26);
    for _ in 0..300 {
        let (tokens, keys) = (1 + rng.below(40), key_count(&mut rng));
        let mut case = Case::of(&mut rng, [1, 1, tokens, keys, 5, 6]);
        if rng.one_in(2) {
            repeat_columns(&mut case.options, tokens);
        }
        let want = case.run(backend, &mut rng).remove(0);
        let Options { bias, keep, .. } = &case.options;
        let bias = bias.as_ref().map(|bias| {
            let layout = mask_layout(&mut rng, &bias.head(0));
            (scatter(&bias.head(0), layout, f32::NAN), layout)
        });
        let keep = keep.as_ref().map(|keep| {
            let layout = mask_layout(&mut rng, &keep.head(0));
            (scatter(&keep.head(0), layout, 77), layout)
        });
        let mut attention = case.options.attention(backend);
        if let Some((bias, layout)) = &bias {
            attention = attention.bias(mask_view(bias, *layout));
        }
        if let Some((keep, layout)) = &keep {
            attention = attention.keep(mask_view(keep, *layout));
        }
        let [q, k, v] = [&case.queries, &case.keys, &case.values].map(|grids| {
            GuardedMatrix::of(&grids[0], Layout::of_output(&mut rng, grids[0].rows, grids[0].cols))
        });
        let mut out = GuardedMatrix::output(&mut rng, tokens, 6);
        let mut logarithms = vec![0.0; tokens];
        let mut workspace = vec![f32::INFINITY; sdpa::Attention::workspace(5, 6)];
        let [q, k, v] = [&q, &k, &v].map(GuardedMatrix::view);
        attention
            .run_with_log_sum_exp(q, k, v, out.view_mut(), &mut logarithms, &mut workspace)
            .unwrap();
        case.assert_same("laid otherwise", &(out.checked("out"), logarithms), &want);
    }
}

/// Gives all queries the masks of the first.
fn repeat_columns(options: &mut Options, tokens: usize) {
    if let Some(bias) = &mut options.bias {
        *bias = bias.map(|of| Grid::from_fn(of.rows, tokens, |key, _| of.at(key, 0)));
    }
    if let Some(keep) = &mut options.keep {
        *keep = keep.map(|of| Grid::from_fn(of.rows, tokens, |key, _| of.at(key, 0)));
    }
}

/// Any layout; with a column stride of 0 if all columns are equal.
fn mask_layout<T: Copy + PartialEq>(rng: &mut Rng, mask: &Grid<T>) -> Layout {
    let layout = Layout::of_output(rng, mask.rows, mask.cols);
    let repeats = (0..mask.rows).all(|row| mask.row(row).iter().all(|x| *x == mask.at(row, 0)));
    if repeats { Layout { col_stride: 0, ..layout } } else { layout }
}

fn scatter<T: Copy>(mask: &Grid<T>, layout: Layout, rest: T) -> Vec<T> {
    let mut buffer = vec![rest; layout.len];
    for row in 0..mask.rows {
        for col in 0..mask.cols {
            buffer[layout.index(row, col)] = mask.at(row, col);
        }
    }
    buffer
}

fn mask_view<T: Copy>(buffer: &[T], layout: Layout) -> MatrixRef<'_, T> {
    let Layout { rows, cols, start, row_stride, col_stride, .. } = layout;
    MatrixRef::with_strides(&buffer[start..], rows, cols, row_stride, col_stride).unwrap()
}

/// Whole blocks of masked keys, before the others or after them, change no bit, whatever they contain.
fn hidden_blocks_change_no_bit(backend: Backend) {
    let mut rng = Rng::new(27);
    for _ in 0..300 {
        let (tokens, keys) = (1 + rng.below(40), key_count(&mut rng));
        let mut case = Case::of(&mut rng, [1, 1, tokens, keys, 4, 5]);
        if case.options.keep.is_none() {
            case.options.keep = Some(Grid::from_fn(keys, tokens, |_, _| 1).into());
        }
        let want = case.run(backend, &mut rng).remove(0);
        // Whole spans before, or blocks that leave all keys in one span.
        let blocks = if keys <= 1024 - 128 { rng.below(3) } else { 0 };
        let (before, behind) = (rng.pick(&[64 * blocks, 1024]), rng.below(150));
        let garbage = rng.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.0]);
        let pad = |grid: &Grid| padded(grid, [before, behind], garbage);
        let options = &mut case.options;
        let Some(offset) = options.offset.checked_add(before as isize) else { continue };
        options.offset = offset;
        if options.keep_first > 0 {
            options.keep_first += before;
        }
        options.bias = options.bias.as_ref().map(|bias| bias.map(|of| pad(&of)));
        options.keep =
            options.keep.as_ref().map(|keep| keep.map(|of| padded(&of, [before, behind], 0)));
        case.keys[0] = pad(&case.keys[0]);
        case.values[0] = pad(&case.values[0]);
        let got = case.run(backend, &mut rng).remove(0);
        case.assert_same(&format!("{before} before, {behind} behind"), &got, &want);
    }
}

/// Adds rows of one value before and after.
fn padded<T: Copy>(grid: &Grid<T>, [before, behind]: [usize; 2], with: T) -> Grid<T> {
    let inside = before..before + grid.rows;
    Grid::from_fn(before + grid.rows + behind, grid.cols, |row, col| {
        if inside.contains(&row) { grid.at(row - before, col) } else { with }
    })
}

/// The content of a masked key, its value and its bias never reaches the output.
fn masked_keys_change_no_bit(backend: Backend) {
    let mut rng = Rng::new(28);
    for _ in 0..400 {
        let (tokens, keys) = (1 + rng.below(40), key_count(&mut rng));
        let mut case = Case::of(&mut rng, [1, 1, tokens, keys, 6, 7]);
        let Case { options, .. } = &mut case;
        let hidden: Vec<bool> = (0..keys)
            .map(|key| {
                rng.one_in(3)
                    && options.bias.as_ref().is_none_or(|bias| {
                        bias.head(0).row(key).iter().all(|bias| *bias > f32::NEG_INFINITY)
                    })
            })
            .collect();
        let keep = options.keep.take();
        let kept = Grid::from_fn(keys, tokens, |key, token| {
            let kept = keep.as_ref().map_or(1, |keep| keep.at(key, token));
            if hidden[key] { 0 } else { kept }
        });
        options.keep = Some(kept.into());
        let want = case.run(backend, &mut rng).remove(0);
        let garbage = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, -0.0];
        let mut spoil = |grid: &mut Grid| {
            for key in (0..keys).filter(|&key| hidden[key]) {
                for col in 0..grid.cols {
                    grid.data[key * grid.cols + col] = rng.pick(&garbage);
                }
            }
        };
        spoil(&mut case.keys[0]);
        spoil(&mut case.values[0]);
        if let Some(bias) = &mut case.options.bias {
            *bias = bias.map(|mut of| {
                spoil(&mut of);
                of
            });
        }
        let got = case.run(backend, &mut Rng::new(0)).remove(0);
        case.assert_same("spoiled", &got, &want);
    }
}
