//! The Attention cases of onnx 1.22 (`tests/data/onnx-1.22`), on every back end, through an
//! adapter that only reshapes; cases with past keys also through a cache.
//!
//! onnx has one row per query: masks and score grids are transposed. A tensor [batch][tokens][heads · dim]
//! has interleaved heads, [batch][heads][tokens][dim] stacked ones. Query i is at position i, or past + i
//! after `past` keys.

use std::{fs, path::Path};

use crate::common::{
    self, assert_same_bits,
    bounds::{Case, ONNX_ATTENTION, ONNX_PATTERN, ONNX_SCORES, Worst},
    grid::Grid,
    options::Options,
    oracle::attention::{self, Truth},
};
use sdpa::{
    Attention, Backend, CachePositions, HeadsMut, HeadsRef, KEY_BLOCK, KvCacheMut, MatrixMut,
    MatrixRef,
};
use serde_json::Value;

suite! { every_case, cases_with_a_past_from_a_cache }

/// The number of cases, in total and per feature.
const CASES: usize = 62;
const WITH_PAST: usize = 18;

#[derive(Clone, Debug)]
struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    fn read(value: &Value) -> Option<Self> {
        let shape = value.get("shape")?.as_array().unwrap().iter();
        let number = |x: &Value| match x.as_str() {
            Some(word) => word.parse().unwrap(),
            None => x.to_string().parse().unwrap(),
        };
        Some(Self {
            shape: shape.map(|n| n.as_u64().unwrap() as usize).collect(),
            data: value["data"].as_array().unwrap().iter().map(number).collect(),
        })
    }

    /// Returns one element of the batch.
    fn batch(&self, index: usize) -> &[f32] {
        let len = self.data.len() / self.shape[0];
        &self.data[index * len..][..len]
    }
}

/// Views the heads of one batch: interleaved if the tensor has 3 dimensions, else stacked.
#[derive(Clone, Copy)]
struct Layout {
    stacked: bool,
    heads: usize,
    tokens: usize,
    width: usize,
}

impl Layout {
    fn of(tensor: &Tensor, heads: &Value) -> Self {
        match tensor.shape[..] {
            [_, heads, tokens, width] => Self { stacked: true, heads, tokens, width },
            [_, tokens, all] => {
                let heads = heads.as_u64().unwrap() as usize;
                Self { stacked: false, heads, tokens, width: all / heads }
            }
            _ => panic!("{:?}", tensor.shape),
        }
    }

    fn view(self, data: &[f32]) -> HeadsRef<'_> {
        let Self { stacked, heads, tokens, width } = self;
        match stacked {
            true => HeadsRef::stacked(data, heads, tokens, width).unwrap(),
            false => HeadsRef::interleaved(data, heads, tokens, width).unwrap(),
        }
    }

    fn view_mut(self, data: &mut [f32]) -> HeadsMut<'_> {
        let Self { stacked, heads, tokens, width } = self;
        match stacked {
            true => HeadsMut::stacked(data, heads, tokens, width).unwrap(),
            false => HeadsMut::interleaved(data, heads, tokens, width).unwrap(),
        }
    }
}

fn grid(view: MatrixRef<'_>) -> Grid {
    Grid::from_fn(view.rows(), view.cols(), |row, col| view.get(row, col).unwrap())
}

/// A parsed case.
struct Problem {
    name: String,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Option<Tensor>,
    mask_is_keep: bool,
    past: Option<[Tensor; 2]>,
    key_counts: Option<Vec<usize>>,
    heads: [Layout; 3],
    scale: Option<f32>,
    softcap: f32,
    causal: bool,
    grid_mode: i64,
    outputs: Value,
}

impl Problem {
    fn read(case: &Value) -> Self {
        let (inputs, attributes) = (&case["inputs"], &case["attributes"]);
        let tensor = |name: &str| Tensor::read(&inputs[name]);
        let [queries, keys, values] = ["Q", "K", "V"].map(|name| tensor(name).unwrap());
        let heads = ["q_num_heads", "kv_num_heads"].map(|name| &attributes[name]);
        let counts = inputs["nonpad_kv_seqlen"]["data"].as_array();
        Self {
            name: case["name"].as_str().unwrap().to_owned(),
            heads: [
                Layout::of(&queries, heads[0]),
                Layout::of(&keys, heads[1]),
                Layout::of(&values, heads[1]),
            ],
            mask: tensor("attn_mask"),
            mask_is_keep: inputs["attn_mask"]["dtype"] == "bool",
            past: tensor("past_key").zip(tensor("past_value")).map(|(keys, values)| [keys, values]),
            key_counts: counts
                .map(|counts| counts.iter().map(|n| n.as_u64().unwrap() as usize).collect()),
            scale: attributes["scale"].as_f64().map(|scale| scale as f32),
            softcap: attributes["softcap"].as_f64().unwrap_or(0.0) as f32,
            causal: attributes["is_causal"] == 1,
            grid_mode: attributes["qk_matmul_output_mode"].as_i64().unwrap_or(0),
            outputs: case["outputs"].clone(),
            queries,
            keys,
            values,
        }
    }

    fn batches(&self) -> usize {
        self.queries.shape[0]
    }

    fn past_len(&self) -> usize {
        self.past.as_ref().map_or(0, |[keys, _]| keys.shape[2])
    }

    fn group(&self) -> usize {
        self.heads[0].heads / self.heads[1].heads
    }

    /// Returns the keys or values of a KV head, past ones first.
    fn joined(&self, which: usize, batch: usize, head: usize) -> Grid {
        let (new, layout) = ([&self.keys, &self.values][which], self.heads[which + 1]);
        let new = grid(layout.view(new.batch(batch)).head(head).unwrap());
        let Some(past) = &self.past else { return new };
        let past = &past[which];
        let len = past.shape[2] * past.shape[3];
        let mut data = past.batch(batch)[head * len..][..len].to_vec();
        data.extend(&new.data);
        Grid { rows: past.shape[2] + new.rows, cols: new.cols, data }
    }

    /// Returns the options of a query head. A mask of 2, 3 or 4 dimensions is broadcast along axes of size 1;
    /// keys past its end are masked.
    fn options(&self, batch: usize, head: usize) -> Options {
        let [queries, keys, _] = self.heads;
        let total = self.past_len() + keys.tokens;
        let count = self.key_counts.as_ref().map_or(total, |counts| counts[batch]);
        let mask = self.mask.as_ref().map(|mask| {
            let [rows, cols] = mask.shape[mask.shape.len() - 2..] else { unreachable!() };
            assert_eq!(rows, queries.tokens);
            let outer = &mask.shape[..mask.shape.len() - 2];
            let (batches, heads) = match *outer {
                [] => (1, 1),
                [heads] => (1, heads),
                [batches, heads] => (batches, heads),
                _ => panic!("{:?}", mask.shape),
            };
            let first = (batch % batches * heads + head % heads) * rows * cols;
            Grid::from_fn(total, rows, |key, query| {
                if key < cols { mask.data[first + query * cols + key] } else { f32::NEG_INFINITY }
            })
        });
        let keep = self.mask_is_keep.then(|| {
            let mask = mask.as_ref().unwrap();
            Grid::from_fn(total, queries.tokens, |key, query| u8::from(mask.at(key, query) > 0.0))
        });
        let padding = (count < total)
            .then(|| Grid::from_fn(total, queries.tokens, |key, _| u8::from(key < count)));
        Options {
            scale: self.scale,
            softcap: self.softcap,
            bias: mask.filter(|_| !self.mask_is_keep),
            keep: keep.or(padding),
            causal: self.causal,
            offset: self.past_len() as isize,
            ..Options::new()
        }
    }

    /// Whether all query heads have the same options.
    fn is_shared(&self) -> bool {
        self.mask
            .as_ref()
            .is_none_or(|mask| mask.shape.len() == 2 || mask.shape[mask.shape.len() - 3] == 1)
    }
}

fn problems() -> Vec<Problem> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx-1.22");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        .filter(|case: &Value| case["op"] == "Attention")
        .map(|case| Problem::read(&case))
        .collect()
}

/// Compares every output that a case lists with the result of the calls.
struct Checks {
    out: Worst,
    scores: Worst,
    pattern: Worst,
}

fn every_case(backend: Backend) {
    let mut checks = Checks {
        out: Worst::new(&ONNX_ATTENTION),
        scores: Worst::new(&ONNX_SCORES),
        pattern: Worst::new(&ONNX_PATTERN),
    };
    let problems = problems();
    assert_eq!(problems.len(), CASES);
    for problem in &problems {
        checks.run(backend, problem);
        println!("{}: {}: passed", backend.name(), problem.name);
    }
    checks.out.finish(backend.name());
    checks.scores.finish(backend.name());
    checks.pattern.finish(backend.name());
}

impl Checks {
    #[track_caller]
    fn run(&mut self, backend: Backend, problem: &Problem) {
        let [queries, keys, values] = problem.heads;
        let outputs = &problem.outputs;
        let want = Tensor::read(&outputs["Y"]).unwrap();
        let present = ["present_key", "present_value"].map(|name| Tensor::read(&outputs[name]));
        let grids = Tensor::read(&outputs["qk_matmul_output"]);
        let known = ["Y", "present_key", "present_value", "qk_matmul_output"];
        assert!(outputs.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())));
        for batch in 0..problem.batches() {
            let joined: [Vec<Grid>; 2] = [0, 1].map(|which| {
                (0..keys.heads).map(|head| problem.joined(which, batch, head)).collect()
            });
            let stacked: [Vec<f32>; 2] = [0, 1]
                .map(|which| joined[which].iter().flat_map(|grid| grid.data.clone()).collect());
            for (present, stacked) in present.iter().zip(&stacked) {
                if let Some(present) = present {
                    assert_same_bits(&problem.name, stacked, present.batch(batch));
                }
            }
            let out_layout = Layout { width: values.width, ..queries };
            let mut out = vec![f32::NAN; queries.heads * queries.tokens * values.width];
            attend(backend, problem, batch, &stacked, out_layout.view_mut(&mut out));
            let (got, want) = (out_layout.view(&out), out_layout.view(want.batch(batch)));
            for head in 0..queries.heads {
                let options = problem.options(batch, head);
                let query = grid(queries.view(problem.queries.batch(batch)).head(head).unwrap());
                let key_head = head / problem.group();
                let operands = [&query, &joined[0][key_head], &joined[1][key_head]];
                let truth = attention::attention(&options, 0, operands);
                let [got, want] = [got, want].map(|heads| grid(heads.head(head).unwrap()));
                let count = operands[1].rows;
                check_all(&mut self.out, &got, &want, &truth.out, count);
                if let Some(grids) = &grids {
                    let len = queries.tokens * count;
                    let want = &grids.batch(batch)[head * len..][..len];
                    self.check_grid(backend, problem.grid_mode, &options, operands, want);
                }
            }
        }
    }

    /// Modes of the score output: 0 scaled, 1 capped, 2 biased and masked, 3 the pattern.
    #[track_caller]
    fn check_grid(
        &mut self,
        backend: Backend,
        mode: i64,
        options: &Options,
        [queries, keys, values]: [&Grid; 3],
        want: &[f32],
    ) {
        let plain = Options { scale: options.scale, ..Options::new() };
        let options = match mode {
            0 => &plain,
            1 => &Options { softcap: options.softcap, ..plain },
            2 | 3 => options,
            _ => panic!("mode {mode}"),
        };
        let attention = options.attention(backend);
        let mut got = Grid::from_fn(queries.rows, keys.rows, |_, _| f32::NAN);
        let transposed = got.view_mut().t();
        let want = Grid { rows: queries.rows, cols: keys.rows, data: want.to_vec() };
        if mode == 3 {
            attention.pattern(queries.view(), keys.view(), transposed).unwrap();
            let truth = attention::attention(options, 0, [queries, keys, values]).pattern;
            check_all(&mut self.pattern, &got, &want, &truth.t(), keys.rows);
        } else {
            attention.scores(queries.view(), keys.view(), transposed).unwrap();
            let truth = attention::scores(options, queries, keys).t();
            let count = attention::roundings(options, keys.cols);
            for ((&got, &want), &truth) in got.data.iter().zip(&want.data).zip(&truth.data) {
                match truth {
                    Some(sum) => {
                        check(&mut self.scores, got, want, Truth { sum, propagated: 0.0 }, count)
                    }
                    None => assert!(got == f32::NEG_INFINITY && want == got, "{got}, {want}"),
                }
            }
        }
    }
}

/// Returns the output of one batch: by one call for all heads, or one call per head if masks differ.
fn attend(
    backend: Backend,
    problem: &Problem,
    batch: usize,
    [keys, values]: &[Vec<f32>; 2],
    mut out: HeadsMut<'_>,
) {
    let [queries, key_layout, value_layout] = problem.heads;
    let joined = |layout: Layout| Layout {
        stacked: true,
        tokens: problem.past_len() + layout.tokens,
        ..layout
    };
    let queries = queries.view(problem.queries.batch(batch));
    // Without past keys the tensors are used in place.
    let (keys, values) = match problem.past {
        None => (
            key_layout.view(problem.keys.batch(batch)),
            value_layout.view(problem.values.batch(batch)),
        ),
        Some(_) => (joined(key_layout).view(keys), joined(value_layout).view(values)),
    };
    let mut workspace = vec![f32::NAN; Attention::workspace(keys.cols(), values.cols())];
    if problem.is_shared() {
        let options = problem.options(batch, 0);
        options.attention(backend).run(queries, keys, values, out, &mut workspace).unwrap();
        return;
    }
    for head in 0..queries.heads() {
        let options = problem.options(batch, head);
        let key_head = head / problem.group();
        let (q, k, v) = (queries.head(head), keys.head(key_head), values.head(key_head));
        let into = out.head_mut(head).unwrap();
        options
            .attention(backend)
            .run(q.unwrap(), k.unwrap(), v.unwrap(), into, &mut workspace)
            .unwrap();
    }
}

#[track_caller]
fn check_all(worst: &mut Worst, got: &Grid, want: &Grid, truth: &Grid<Truth>, n: usize) {
    assert_eq!((got.data.len(), want.data.len()), (truth.data.len(), truth.data.len()));
    for ((&got, &want), &truth) in got.data.iter().zip(&want.data).zip(&truth.data) {
        check(worst, got, want, truth, n);
    }
}

/// Compares with the output of onnx; the bound comes from the oracle.
#[track_caller]
fn check(worst: &mut Worst, got: f32, want: f32, truth: Truth, n: usize) {
    let sum = common::oracle::Sum { value: f64::from(want), ..truth.sum };
    worst.check(got, Case { fma: false, n, truth: sum, propagated: truth.propagated });
}

/// Past and new keys appended to one cache per KV head: attention has the bits of the plain call.
fn cases_with_a_past_from_a_cache(backend: Backend) {
    let problems: Vec<_> = problems().into_iter().filter(|case| case.past.is_some()).collect();
    assert_eq!(problems.len(), WITH_PAST);
    for problem in problems {
        for batch in 0..problem.batches() {
            for key_head in 0..problem.heads[1].heads {
                from_a_cache(backend, &problem, batch, key_head);
            }
        }
    }
}

#[track_caller]
fn from_a_cache(backend: Backend, problem: &Problem, batch: usize, key_head: usize) {
    let [keys, values] = [0, 1].map(|which| problem.joined(which, batch, key_head));
    let mut storage = [keys.cols, values.cols].map(|cols| vec![f32::NAN; cols * KEY_BLOCK]);
    let mut span = CachePositions::default();
    let [key_floats, value_floats] = &mut storage;
    let (dim, width) = (keys.cols, values.cols);
    let mut cache = KvCacheMut::new(key_floats, value_floats, dim, width, &mut span).unwrap();
    let (past_keys, new_keys) = keys.view().split_rows(problem.past_len()).unwrap();
    let (past_values, new_values) = values.view().split_rows(problem.past_len()).unwrap();
    cache.append(past_keys, past_values).unwrap();
    cache.append(new_keys, new_values).unwrap();
    let mut workspace = vec![f32::NAN; Attention::workspace(dim, width)];
    for head in key_head * problem.group()..(key_head + 1) * problem.group() {
        let all = problem.heads[0].view(problem.queries.batch(batch));
        let queries = all.head(head).unwrap();
        let options = problem.options(batch, head);
        let [mut want, mut got] = [0; 2].map(|_| Grid::zeros(queries.rows(), width));
        let (k, v, into) = (keys.view(), values.view(), want.view_mut());
        options.attention(backend).run(queries, k, v, into, &mut workspace).unwrap();
        // A cache counts from its newest positions, and here fewer queries than keys are new.
        let newest = (cache.len() - queries.rows()) as isize;
        let attention = options.attention(backend).query_offset(options.offset - newest);
        let into: MatrixMut<'_> = got.view_mut();
        cache.view().attend(&attention, queries, into, &mut workspace).unwrap();
        assert_same_bits(&problem.name, &got.data, &want.data);
    }
}

/// Each feature in the file names is found in the parsed cases, so that no attribute is misread.
#[test]
fn every_kind_of_case_is_present() {
    let problems = problems();
    let count = |has: &dyn Fn(&Problem) -> bool| problems.iter().filter(|case| has(case)).count();
    assert_eq!(count(&|case| case.past.is_some()), WITH_PAST);
    assert_eq!(count(&|case| case.name.contains("past")), WITH_PAST);
    for (word, has) in [
        ("_3d", (&|case: &Problem| !case.heads[0].stacked) as &dyn Fn(&Problem) -> bool),
        ("gqa", &|case| case.group() > 1),
        ("causal", &|case| case.causal),
        ("scaled", &|case| case.scale.is_some()),
        ("padded", &|case| case.key_counts.is_some()),
        ("diff_heads", &|case| case.heads[1].width != case.heads[2].width),
        ("bool", &|case| case.mask_is_keep),
        ("qk_matmul", &|case| case.outputs.get("qk_matmul_output").is_some()),
    ] {
        let named = problems.iter().filter(|case| match word {
            "_3d" => case.name.starts_with("test_attention_3d"),
            _ => case.name.contains(word),
        });
        let names: Vec<_> = named.map(|case| &case.name).collect();
        let found: Vec<_> =
            problems.iter().filter(|case| has(case)).map(|case| &case.name).collect();
        assert_eq!(found, names, "{word}");
    }
    for mode in 0..4 {
        assert!(count(&|case| case.grid_mode == mode) > 0, "mode {mode}");
    }
}
