//! Sequences that are laid one after another: the bits of a call for each; on every back end.

use crate::common::{
    assert_same_bits,
    cases::{Kind, Rng},
    elements::{Elements, Tested},
    grid::Grid,
    options::{Options, part},
};
use sdpa::{Attention, Backend, Bf16, Error, HeadsMut, HeadsRef, I8};

suite! {
    each_sequence_has_the_bits_of_its_own_call,
    elements_too,
    refused_calls_write_nothing,
}

const DIM: usize = 5;
const WIDTH: usize = 3;

struct Case {
    heads: usize,
    kv_heads: usize,
    lengths: Vec<[usize; 2]>,
    queries: Vec<f32>,
    keys: Grid,
    values: Grid,
    options: Options,
}

impl Case {
    fn random(rng: &mut Rng, kv_heads: usize) -> Self {
        let heads = kv_heads * (1 + rng.below(3));
        let lengths: Vec<_> = (0..1 + rng.below(5))
            .map(|_| {
                let (any, many) = (rng.below(9), rng.below(150));
                [rng.pick(&[0, 1, any, many]), rng.pick(&[0, 1, any, many, many])]
            })
            .collect();
        let [tokens, keys] = [0, 1].map(|side| lengths.iter().map(|length| length[side]).sum());
        let options = Options::random(rng, heads, keys, tokens);
        let grid = |rng: &mut Rng, rows, cols| Grid::random(rng, Kind::Ordinary, rows, cols);
        Self {
            heads,
            kv_heads,
            queries: grid(rng, heads * tokens, DIM).data,
            keys: grid(rng, kv_heads * keys, DIM),
            values: grid(rng, kv_heads * keys, WIDTH),
            lengths,
            options,
        }
    }

    fn tokens(&self) -> [usize; 2] {
        [0, 1].map(|side| self.lengths.iter().map(|length| length[side]).sum())
    }

    /// The floats of these rows of every head.
    fn rows(of: &[f32], heads: usize, cols: usize, [from, to]: [usize; 2]) -> Vec<f32> {
        let all = of.len() / heads.max(1);
        let head = |head: usize| &of[head * all..][from * cols..to * cols];
        (0..heads).flat_map(head).copied().collect()
    }

    /// Outputs, as heads × queries × width, and log-sum-exps, by a call for each sequence.
    fn one_by_one(&self, backend: Backend) -> (Vec<f32>, Vec<f32>) {
        let Self { heads, kv_heads, .. } = *self;
        let [tokens, _] = self.tokens();
        let (mut all, mut logs) = (vec![0.0; heads * tokens * WIDTH], Vec::new());
        let ([mut query, mut key], mut workspace) =
            ([0; 2], vec![0.0; Attention::workspace(DIM, WIDTH)]);
        for &[queries, keys] in &self.lengths {
            let (columns, rows) = ([query, query + queries], [key, key + keys]);
            let own = Options { offset: self.options.offset, ..self.options.part(rows, columns) };
            let q = Self::rows(&self.queries, heads, DIM, columns);
            let k = Self::rows(&self.keys.data, kv_heads, DIM, rows);
            let v = Self::rows(&self.values.data, kv_heads, WIDTH, rows);
            let (mut out, mut own_logs) =
                (vec![0.0; heads * queries * WIDTH], vec![0.0; heads * queries]);
            own.attention(backend)
                .run_with_log_sum_exp(
                    HeadsRef::stacked(&q, heads, queries, DIM).unwrap(),
                    HeadsRef::stacked(&k, kv_heads, keys, DIM).unwrap(),
                    HeadsRef::stacked(&v, kv_heads, keys, WIDTH).unwrap(),
                    HeadsMut::stacked(&mut out, heads, queries, WIDTH).unwrap(),
                    &mut own_logs,
                    &mut workspace,
                )
                .unwrap();
            for head in 0..heads {
                let from = &out[head * queries * WIDTH..][..queries * WIDTH];
                all[(head * tokens + query) * WIDTH..][..from.len()].copy_from_slice(from);
            }
            logs.extend(own_logs);
            [query, key] = [query + queries, key + keys];
        }
        (all, logs)
    }
}

fn each_sequence_has_the_bits_of_its_own_call(backend: Backend) {
    let mut rng = Rng::new(120);
    for _ in 0..150 {
        let kv_heads = 1 + rng.below(2);
        let case = Case::random(&mut rng, kv_heads);
        let (heads, [tokens, keys]) = (case.heads, case.tokens());
        let (want, want_logs) = case.one_by_one(backend);
        let attention = case.options.attention(backend);
        for with_logs in [false, true] {
            let (mut out, mut logs) =
                (vec![9.0; heads * tokens * WIDTH], vec![9.0; heads * tokens]);
            let result = attention.run_packed(
                HeadsRef::stacked(&case.queries, heads, tokens, DIM).unwrap(),
                HeadsRef::stacked(&case.keys.data, kv_heads, keys, DIM).unwrap(),
                HeadsRef::stacked(&case.values.data, kv_heads, keys, WIDTH).unwrap(),
                &case.lengths,
                HeadsMut::stacked(&mut out, heads, tokens, WIDTH).unwrap(),
                with_logs.then_some(&mut logs[..]),
                &mut vec![f32::NAN; Attention::workspace(DIM, WIDTH)],
            );
            let what = format!("{:?}, {:?}", case.lengths, case.options);
            assert_eq!(result, Ok(()), "{what}");
            assert_same_bits(&what, &out, &want);
            if with_logs {
                assert_same_bits(&format!("log-sum-exp: {what}"), &logs, &want_logs);
            }
        }
    }
}

fn elements_too(backend: Backend) {
    of_elements::<Bf16>(backend);
    of_elements::<I8>(backend);
}

fn of_elements<E: Tested>(backend: Backend) {
    let mut rng = Rng::new(121);
    for _ in 0..40 {
        let mut case = Case::random(&mut rng, 1);
        case.options.scale = None;
        let (heads, [tokens, keys]) = (case.heads, case.tokens());
        let (Some(k), Some(v)) = (E::near(&case.keys), E::near(&case.values)) else { continue };
        (case.keys, case.values) = (k, v);
        let (k, v) = (Elements::<E>::of(&case.keys), Elements::<E>::of(&case.values));
        let (want, want_logs) = case.one_by_one(backend);
        let (mut out, mut logs) = (vec![9.0; heads * tokens * WIDTH], vec![9.0; heads * tokens]);
        let result = case.options.attention(backend).run_elements_packed(
            HeadsRef::stacked(&case.queries, heads, tokens, DIM).unwrap(),
            k.heads(1),
            v.heads(1),
            &case.lengths,
            HeadsMut::stacked(&mut out, heads, tokens, WIDTH).unwrap(),
            Some(&mut logs),
            &mut vec![f32::NAN; Attention::elements_workspace(DIM, WIDTH)],
        );
        let what = format!("{keys} keys, {:?}, {:?}", case.lengths, case.options);
        assert_eq!(result, Ok(()), "{what}");
        assert_same_bits(&what, &out, &want);
        assert_same_bits(&format!("log-sum-exp: {what}"), &logs, &want_logs);
    }
}

fn refused_calls_write_nothing(backend: Backend) {
    let x = Grid::random(&mut Rng::new(122), Kind::Ordinary, 6, 2);
    let few = part(&x, [0, 5], [0, 2]);
    let short = Attention::workspace(2, 2) - 1;
    let attention = Attention::new().on(backend);
    let bias = Grid::zeros(6, 5);
    let good: &[[usize; 2]] = &[[1, 2], [5, 4]];
    let calls: [(_, &Grid, &[[usize; 2]], _, _, _); 7] = [
        (attention, &x, &[[1, 2], [4, 4]], 6, short + 1, Error::Shape),
        (attention, &x, &[[1, 2], [5, 5]], 6, short + 1, Error::Shape),
        (attention, &x, &[[usize::MAX, 2], [7, 4]], 6, short + 1, Error::Shape),
        (attention, &few, good, 6, short + 1, Error::Shape),
        (attention, &x, good, 5, short + 1, Error::Shape),
        (attention.bias(bias.view()), &x, good, 6, short + 1, Error::Shape),
        (attention, &x, good, 6, short, Error::Workspace),
    ];
    for (attention, values, lengths, logs, workspace, error) in calls {
        let (mut out, mut logs) = (Grid::zeros(6, 2), vec![0.0; logs]);
        let result = attention.run_packed(
            x.view(),
            x.view(),
            values.view(),
            lengths,
            out.view_mut(),
            Some(&mut logs),
            &mut vec![0.0; workspace],
        );
        assert_eq!(result, Err(error));
        assert!(out.data.iter().chain(&logs).all(|x| *x == 0.0));
    }
    let wrong = attention.scale(f32::NAN);
    let (mut out, mut workspace) = (Grid::zeros(6, 2), vec![0.0; short + 1]);
    let (x, out) = (x.view(), out.view_mut());
    assert_eq!(wrong.run_packed(x, x, x, good, out, None, &mut workspace), Err(Error::Option));
}
