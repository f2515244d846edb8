//! The library itself.

use std::hint::black_box;

use sdpa::{
    Attention, Backend, CachePositions, HeadsMut, HeadsRef, KEY_BLOCK, KvCacheMut, KvCacheRef,
    MatrixMut, MatrixRef,
};

use super::{Call, Kind, Peer, repeated};
use crate::{
    aligned::Aligned,
    jobs::{self, Along, Inputs, Job, Stored},
};

pub(crate) struct Ours {
    backend: Backend,
    kind: Kind,
}

impl Ours {
    pub(crate) fn best() -> Self {
        Self { backend: Backend::best(), kind: Kind::Ours }
    }

    /// None where it is the best, or not there.
    pub(crate) fn on_avx2() -> Option<Self> {
        let backend = Backend::by_name("avx2").filter(|&avx2| avx2 != Backend::best())?;
        Some(Self { backend, kind: Kind::OursOnAvx2 })
    }
}

impl Peer for Ours {
    fn name(&self) -> String {
        format!("sdpa, {}", self.backend.name())
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn prepare<'a>(&self, job: &Job, inputs: &'a Inputs, out: &'a mut [f32]) -> Option<Call<'a>> {
        let backend = self.backend;
        let [x, y, z] = inputs.operands();
        Some(match *job {
            Job::Dot { .. } => repeated(move || {
                out[0] = backend.dot(black_box(x), black_box(y)).expect("one length");
            }),
            Job::Scores { keys, queries, dim } => repeated(move || {
                let (keys, queries, out) =
                    (view(x, keys, dim), view(y, queries, dim), view_mut(out, keys, queries));
                backend.scores(keys, queries, Some(1.0), out).expect("sizes agree");
            }),
            Job::Softmax { rows: 1, along: Along::Rows, .. } => repeated(move || {
                backend.softmax(black_box(x), black_box(out)).expect("one length");
            }),
            Job::Softmax { rows, cols, along } => repeated(move || {
                let (x, out) = (view(x, rows, cols), view_mut(out, rows, cols));
                match along {
                    Along::Rows => backend.softmax_rows(x, out),
                    Along::Columns => backend.softmax_columns(x, out),
                }
                .expect("one shape");
            }),
            Job::Attention(of) if of.stored == Stored::Cache => cached(backend, of, [x, y, z], out),
            Job::Attention(of) => {
                let attention = attention(backend, of.causal);
                let mut workspace = Aligned::new(workspace(of.dim), 0.0);
                repeated(move || {
                    let [q, k, v] = [x, y, z].map(black_box);
                    let out = black_box(&mut *out);
                    run(&attention, of, [q, k, v], out, workspace.floats_mut());
                })
            }
        })
    }
}

/// What attention needs, and a whole number of cache lines.
fn workspace(dim: usize) -> usize {
    Attention::workspace(dim, dim).next_multiple_of(16)
}

fn attention(backend: Backend, causal: bool) -> Attention<'static> {
    let attention = Attention::new().on(backend);
    if causal { attention.causal() } else { attention }
}

/// One call for all heads.
fn run(
    attention: &Attention<'_>,
    of: jobs::Attention,
    [queries, keys, values]: [&[f32]; 3],
    out: &mut [f32],
    workspace: &mut [f32],
) {
    let jobs::Attention { heads, queries: tokens, keys: count, dim, stored, .. } = of;
    let of_keys = match stored {
        Stored::Rows | Stored::Cache => HeadsRef::stacked(keys, heads, count, dim),
        Stored::Columns { stride } => {
            HeadsRef::with_strides(keys, [heads, count, dim], [dim * stride, 1, stride])
        }
    };
    HeadsRef::stacked(queries, heads, tokens, dim)
        .and_then(|queries| {
            let values = HeadsRef::stacked(values, heads, count, dim)?;
            let out = HeadsMut::stacked(out, heads, tokens, dim)?;
            attention.run(queries, of_keys?, values, out, workspace)
        })
        .expect("sizes agree");
}

/// A cache for each head, filled beforehand.
fn cached<'a>(
    backend: Backend,
    of: jobs::Attention,
    [queries, keys, values]: [&'a [f32]; 3],
    out: &'a mut [f32],
) -> Call<'a> {
    let jobs::Attention { keys: count, dim, .. } = of;
    let room = count.next_multiple_of(KEY_BLOCK) * dim;
    let caches: Vec<_> = keys
        .chunks(count * dim)
        .zip(values.chunks(count * dim))
        .map(|(keys, values)| {
            let mut stored = [Aligned::new(room, 0.0), Aligned::new(room, 0.0)];
            let [to_keys, to_values] = &mut stored;
            let mut positions = CachePositions::default();
            KvCacheMut::new(to_keys.floats_mut(), to_values.floats_mut(), dim, dim, &mut positions)
                .and_then(|mut cache| {
                    cache.append(view(keys, count, dim), view(values, count, dim))
                })
                .expect("room");
            (stored, positions)
        })
        .collect();
    let attention = attention(backend, of.causal);
    let mut workspace = Aligned::new(workspace(dim), 0.0);
    repeated(move || {
        let queries = black_box(queries).chunks(dim).zip(out.chunks_mut(dim));
        for (([keys, values], positions), (query, out)) in caches.iter().zip(queries) {
            KvCacheRef::new(keys.floats(), values.floats(), dim, dim, *positions)
                .and_then(|cache| {
                    let (query, out) = (view(query, 1, dim), view_mut(out, 1, dim));
                    cache.attend(&attention, query, out, workspace.floats_mut())
                })
                .expect("sizes agree");
        }
    })
}

fn view(x: &[f32], rows: usize, cols: usize) -> MatrixRef<'_> {
    MatrixRef::new(black_box(x), rows, cols).expect("shape")
}

fn view_mut(x: &mut [f32], rows: usize, cols: usize) -> MatrixMut<'_> {
    MatrixMut::new(black_box(x), rows, cols).expect("shape")
}
