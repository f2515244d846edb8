//! The Attention cases of onnx 1.22 and those of 1.23 in 16 bits (`tests/data`), on every back end, through an
//! adapter that only reshapes; cases with past keys also through a cache. Keys and values of 16 bits are read as such,
//! queries and masks are widened.
//!
//! onnx has one row per query: masks and score grids are transposed. A tensor [batch][tokens][heads · dim]
//! has interleaved heads, [batch][heads][tokens][dim] stacked ones. Query i is at position i, or past + i
//! after `past` keys; of `nonpad_kv_seqlen` keys the queries are the newest.

use std::{fs, path::Path};

use crate::common::{
    self, assert_same_bits,
    bounds::{
        ATTENTION, ATTENTION_PATTERN, ATTENTION_SCORES, Case, ONNX_ATTENTION, ONNX_PATTERN,
        ONNX_SCORES, Worst,
    },
    grid::Grid,
    mask::Mask,
    options::Options,
    oracle::attention::{self, Truth},
};
use sdpa::{
    Attention, Backend, Bf16, CachePositions, Element, F16, HeadsMut, HeadsRef, KvCacheMut,
    MatrixMut, MatrixRef, narrow,
};
use serde_json::Value;

suite! { every_case, cases_with_a_past_from_a_cache }

/// The number of cases, in total and per feature.
const CASES: usize = 75;
const OF_16_BITS: usize = 13;
const WITH_PAST: usize = 20;

/// The folders, and how far the outputs of 16 bits are from exact ones, in ULP of the type: those of 1.22 are rounded
/// once, while 1.23 rounds scores and weights as well.
const FOLDERS: [(&str, Theirs); 2] =
    [("onnx-1.22", Theirs { f16: 0.5, bf16: 0.5 }), ("onnx-1.23", Theirs { f16: 1.5, bf16: 1.75 })];

#[derive(Clone, Copy)]
struct Theirs {
    f16: f64,
    bf16: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f32>,
}

impl Tensor {
    pub(crate) fn read(value: &Value) -> Option<Self> {
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
    pub(crate) fn batch(&self, index: usize) -> &[f32] {
        let len = self.data.len() / self.shape[0];
        &self.data[index * len..][..len]
    }
}

/// Views the heads of one batch: interleaved if the tensor has 3 dimensions, else stacked.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    stacked: bool,
    heads: usize,
    pub(crate) tokens: usize,
    width: usize,
}

impl Layout {
    pub(crate) fn of(tensor: &Tensor, heads: &Value) -> Self {
        match tensor.shape[..] {
            [_, heads, tokens, width] => Self { stacked: true, heads, tokens, width },
            [_, tokens, all] => {
                let heads = heads.as_u64().unwrap() as usize;
                Self { stacked: false, heads, tokens, width: all / heads }
            }
            _ => panic!("{:?}", tensor.shape),
        }
    }

    pub(crate) fn view(self, data: &[f32]) -> HeadsRef<'_> {
        let Self { stacked, heads, tokens, width } = self;
        match stacked {
            true => HeadsRef::stacked(data, heads, tokens, width).unwrap(),
            false => HeadsRef::interleaved(data, heads, tokens, width).unwrap(),
        }
    }

    pub(crate) fn view_mut(self, data: &mut [f32]) -> HeadsMut<'_> {
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

/// The elements of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    F32,
    F16,
    Bf16,
}

impl Of {
    fn read(tensor: &Value) -> Self {
        match tensor["dtype"].as_str().unwrap() {
            "f32" => Self::F32,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            other => panic!("{other}"),
        }
    }

    /// An ULP of this type is so many of `f32`.
    fn ulps(self) -> f64 {
        f64::from(match self {
            Self::F32 => 1,
            Self::F16 => 1 << (24 - 11),
            Self::Bf16 => 1 << (24 - 8),
        })
    }
}

/// A parsed case.
struct Problem {
    name: String,
    of: Of,
    /// How far an output of onnx is off, in ULP of `f32`, beside what [`ONNX_ATTENTION`] allows.
    theirs: f64,
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
    left: Option<usize>,
    grid_mode: i64,
    outputs: Value,
}

impl Problem {
    fn read(case: &Value, theirs: Theirs) -> Self {
        let of = Of::read(&case["inputs"]["Q"]);
        let (inputs, attributes) = (&case["inputs"], &case["attributes"]);
        let tensor = |name: &str| Tensor::read(&inputs[name]);
        let [queries, keys, values] = ["Q", "K", "V"].map(|name| tensor(name).unwrap());
        let heads = ["q_num_heads", "kv_num_heads"].map(|name| &attributes[name]);
        let counts = inputs["nonpad_kv_seqlen"]["data"].as_array();
        Self {
            name: case["name"].as_str().unwrap().to_owned(),
            of,
            theirs: match of {
                Of::F32 => 0.0,
                Of::F16 => theirs.f16 * of.ulps(),
                Of::Bf16 => theirs.bf16 * of.ulps(),
            },
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
            left: attributes["left_window_size"].as_u64().map(|left| left as usize),
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

    /// Returns the options of all heads. A mask of 2, 3 or 4 dimensions is broadcast along axes of size 1; keys
    /// past its end are masked.
    fn options(&self, batch: usize) -> Options {
        let [queries, keys, _] = self.heads;
        let total = self.past_len() + keys.tokens;
        let count = self.key_counts.as_ref().map_or(total, |counts| counts[batch]);
        let mask = self.mask.as_ref().map(|mask| {
            let [rows, cols] = mask.shape[mask.shape.len() - 2..] else { unreachable!() };
            assert!(rows == 1 || rows == queries.tokens);
            let outer = &mask.shape[..mask.shape.len() - 2];
            let (batches, heads) = match *outer {
                [] => (1, 1),
                [heads] => (1, heads),
                [batches, heads] => (batches, heads),
                _ => panic!("{:?}", mask.shape),
            };
            assert!(heads == 1 || heads == queries.heads);
            Mask::from_fn(heads, |head| {
                let first = (batch % batches * heads + head) * rows * cols;
                Grid::from_fn(total, queries.tokens, |key, query| match key < cols {
                    true => mask.data[first + query % rows * cols + key],
                    false => f32::NEG_INFINITY,
                })
            })
        });
        let keep = self.mask_is_keep.then(|| {
            let mask = mask.as_ref().unwrap();
            mask.map(|mask| {
                let kept = |key, query| u8::from(mask.at(key, query) > 0.0);
                Grid::from_fn(total, queries.tokens, kept)
            })
        });
        let padding = (count < total)
            .then(|| Grid::from_fn(total, queries.tokens, |key, _| u8::from(key < count)).into());
        Options {
            scale: self.scale,
            softcap: self.softcap,
            bias: mask.filter(|_| !self.mask_is_keep),
            keep: keep.or(padding),
            causal: self.causal,
            offset: match self.key_counts {
                Some(_) => count as isize - queries.tokens as isize,
                None => self.past_len() as isize,
            },
            window: [self.left.unwrap_or(usize::MAX), usize::MAX],
            ..Options::new()
        }
    }
}

fn problems() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (folder, theirs) in FOLDERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
        let mut files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let cases = files
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
            .filter(|case: &Value| case["op"] == "Attention");
        problems.extend(cases.map(|case| Problem::read(&case, theirs)));
    }
    problems
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
    let mut of_16_bits = Checks {
        out: Worst::new(&ATTENTION),
        scores: Worst::new(&ATTENTION_SCORES),
        pattern: Worst::new(&ATTENTION_PATTERN),
    };
    let problems = problems();
    assert_eq!(problems.len(), CASES);
    for problem in &problems {
        let checks = if problem.of == Of::F32 { &mut checks } else { &mut of_16_bits };
        checks.run(backend, problem);
        println!("{}: {}: passed", backend.name(), problem.name);
    }
    checks.out.finish(backend.name());
    checks.scores.finish(backend.name());
    checks.pattern.finish(backend.name());
    of_16_bits.out.finish(backend.name());
    of_16_bits.pattern.finish(backend.name());
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
            let mut narrow = vec![f32::NAN; out.len()];
            let to = out_layout.view_mut(&mut narrow);
            match problem.of {
                Of::F32 => attend_elements::<f32>(backend, problem, batch, &joined, to),
                Of::F16 => attend_elements::<F16>(backend, problem, batch, &joined, to),
                Of::Bf16 => attend_elements::<Bf16>(backend, problem, batch, &joined, to),
            }
            assert_same_bits(&problem.name, &narrow, &out);
            let (got, want) = (out_layout.view(&out), out_layout.view(want.batch(batch)));
            for head in 0..queries.heads {
                let options = problem.options(batch).of_head(head);
                let query = grid(queries.view(problem.queries.batch(batch)).head(head).unwrap());
                let key_head = head / problem.group();
                let operands = [&query, &joined[0][key_head], &joined[1][key_head]];
                let truth = attention::attention(&options, 0, operands);
                let [got, want] = [got, want].map(|heads| grid(heads.head(head).unwrap()));
                let count = operands[1].rows;
                check_all(&mut self.out, problem.theirs, &got, &want, &truth.out, count);
                if let Some(grids) = &grids {
                    let len = queries.tokens * count;
                    let want = &grids.batch(batch)[head * len..][..len];
                    self.check_grid(backend, problem, &options, operands, want);
                }
            }
        }
    }

    /// Modes of the score output: 0 scaled, 1 capped, 2 biased and masked, 3 the pattern.
    #[track_caller]
    fn check_grid(
        &mut self,
        backend: Backend,
        problem: &Problem,
        options: &Options,
        [queries, keys, values]: [&Grid; 3],
        want: &[f32],
    ) {
        let plain = Options { scale: options.scale, ..Options::new() };
        let (mode, theirs) = (problem.grid_mode, problem.theirs);
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
            check_all(&mut self.pattern, theirs, &got, &want, &truth.t(), keys.rows);
        } else {
            attention.scores(queries.view(), keys.view(), transposed).unwrap();
            let truth = attention::scores(options, queries, keys).t();
            let count = attention::roundings(options, keys.cols);
            for ((&got, &want), &truth) in got.data.iter().zip(&want.data).zip(&truth.data) {
                match truth {
                    Some(sum) => {
                        let truth = Truth { sum, propagated: 0.0 };
                        check(&mut self.scores, theirs, got, want, truth, count);
                    }
                    None => assert!(got == f32::NEG_INFINITY && want == got, "{got}, {want}"),
                }
            }
        }
    }
}

/// Computes the output of one batch by one call for all heads.
fn attend(
    backend: Backend,
    problem: &Problem,
    batch: usize,
    [keys, values]: &[Vec<f32>; 2],
    out: HeadsMut<'_>,
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
    let options = problem.options(batch);
    options.attention(backend).run(queries, keys, values, out, &mut workspace).unwrap();
}

/// [`attend`] over keys and values of a type, one call per head.
fn attend_elements<E: Element<Scale = ()>>(
    backend: Backend,
    problem: &Problem,
    batch: usize,
    joined: &[Vec<Grid>; 2],
    mut out: HeadsMut<'_>,
) {
    let queries = problem.heads[0].view(problem.queries.batch(batch));
    for head in 0..queries.heads() {
        let [keys, values] = [0, 1].map(|which| &joined[which][head / problem.group()]);
        let (key_elements, value_elements) = (elements::<E>(keys), elements::<E>(values));
        let view = |of, grid: &Grid| MatrixRef::<E>::new(of, grid.rows, grid.cols).unwrap();
        let [k, v] = [(&key_elements[..], keys), (&value_elements[..], values)]
            .map(|(of, grid)| view(of, grid));
        let mut workspace = vec![f32::NAN; Attention::elements_workspace(keys.cols, values.cols)];
        let (q, into) = (queries.head(head).unwrap(), out.head_mut(head).unwrap());
        let options = problem.options(batch).of_head(head);
        options
            .attention(backend)
            .run_elements(q, k.into(), v.into(), into, None, &mut workspace)
            .unwrap();
    }
}

/// Floats that are numbers of the type.
fn elements<E: Element<Scale = ()>>(floats: &Grid) -> Vec<E> {
    let mut to = vec![E::ZERO; floats.data.len()];
    narrow(floats.view(), &mut to, &mut []).unwrap();
    to
}

#[track_caller]
fn check_all(
    worst: &mut Worst,
    theirs: f64,
    got: &Grid,
    want: &Grid,
    truth: &Grid<Truth>,
    n: usize,
) {
    assert_eq!((got.data.len(), want.data.len()), (truth.data.len(), truth.data.len()));
    for ((&got, &want), &truth) in got.data.iter().zip(&want.data).zip(&truth.data) {
        check(worst, theirs, got, want, truth, n);
    }
}

/// Compares with the output of onnx, which is off by `theirs` ULP; the bound comes from the oracle.
#[track_caller]
fn check(worst: &mut Worst, theirs: f64, got: f32, want: f32, truth: Truth, n: usize) {
    let want = f64::from(want);
    let sum = common::oracle::Sum { value: want, ..truth.sum };
    let propagated = truth.propagated + theirs * common::oracle::ulp(want);
    worst.check(got, Case { fma: false, n, truth: sum, propagated });
}

/// Past and new keys appended to one cache per KV head: attention has the bits of the plain call.
fn cases_with_a_past_from_a_cache(backend: Backend) {
    let problems: Vec<_> = problems().into_iter().filter(|case| case.past.is_some()).collect();
    assert_eq!(problems.len(), WITH_PAST);
    for problem in problems {
        for batch in 0..problem.batches() {
            for key_head in 0..problem.heads[1].heads {
                match problem.of {
                    Of::F32 => from_a_cache::<f32>(backend, &problem, batch, key_head),
                    Of::F16 => from_a_cache::<F16>(backend, &problem, batch, key_head),
                    Of::Bf16 => from_a_cache::<Bf16>(backend, &problem, batch, key_head),
                }
            }
        }
    }
}

#[track_caller]
fn from_a_cache<E: Element<Scale = ()>>(
    backend: Backend,
    problem: &Problem,
    batch: usize,
    key_head: usize,
) {
    let [keys, values] = [0, 1].map(|which| problem.joined(which, batch, key_head));
    let mut storage = [keys.cols, values.cols].map(|cols| vec![E::ZERO; cols * 64]);
    let mut span = CachePositions::default();
    let [to_keys, to_values] = &mut storage;
    let (dim, width) = (keys.cols, values.cols);
    let mut cache = KvCacheMut::<E>::new(to_keys, to_values, dim, width, &mut span).unwrap();
    let (past_keys, new_keys) = keys.view().split_rows(problem.past_len()).unwrap();
    let (past_values, new_values) = values.view().split_rows(problem.past_len()).unwrap();
    cache.append(past_keys, past_values).unwrap();
    cache.append(new_keys, new_values).unwrap();
    let mut workspace = vec![f32::NAN; Attention::elements_workspace(dim, width)];
    for head in key_head * problem.group()..(key_head + 1) * problem.group() {
        let all = problem.heads[0].view(problem.queries.batch(batch));
        let queries = all.head(head).unwrap();
        let options = problem.options(batch).of_head(head);
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
    assert_eq!(count(&|case| case.of != Of::F32), OF_16_BITS);
    for (word, has) in [
        ("_3d", (&|case: &Problem| !case.heads[0].stacked) as &dyn Fn(&Problem) -> bool),
        ("gqa", &|case| case.group() > 1),
        ("causal|local_window", &|case| case.causal),
        ("local_window", &|case| case.left.is_some()),
        ("scaled", &|case| case.scale.is_some()),
        ("padded|nonpad|ext_cache", &|case| case.key_counts.is_some()),
        ("diff_heads", &|case| case.heads[1].width != case.heads[2].width),
        ("bool|softmax_precision", &|case| case.mask_is_keep),
        ("fp16|float16|softmax_precision", &|case| case.of == Of::F16),
        ("bf16", &|case| case.of == Of::Bf16),
        ("qk_matmul", &|case| case.outputs.get("qk_matmul_output").is_some()),
    ] {
        let named = problems.iter().filter(|case| match word {
            "_3d" => case.name.starts_with("test_attention_3d"),
            _ => word.split('|').any(|word| case.name.contains(word)),
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
