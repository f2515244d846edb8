//! The floors of attention: many queries, causal, one query, a handful.

use std::hint::black_box;

use sdpa::{
    Attention, Backend, Bf16, CachePositions, Element, F16, HeadsMut, HeadsRef, I8, KvCacheMut,
    KvCacheRef, MatrixMut, MatrixRef,
};

use crate::{
    aligned::Aligned,
    limits::{PEAK_FLOP, load_both, peak},
    measure::{Floor, Limit, yardstick_and_call},
};

pub(crate) fn floors(backend: Backend) -> Vec<Floor<'static>> {
    let wide = backend.name() == "avx512";
    let share_of_peak = if wide { 0.65 } else { 0.78 };
    let mut floors: Vec<Floor<'static>> = [(512, 64), (512, 128), (2048, 64), (2048, 128)]
        .into_iter()
        .map(|(tokens, dim)| Floor {
            what: format!("attention {tokens} x {tokens} x {dim}: share of the peak"),
            limit: Limit::AtLeast(share_of_peak),
            ratio: Box::new(move || share(backend, [tokens, tokens, dim])),
        })
        .collect();
    floors.push(Floor {
        what: "attention 2048 x 2048 x 64, causal: times full".into(),
        limit: Limit::AtMost(0.58),
        ratio: Box::new(move || causal_of_full(backend)),
    });
    floors.push(Floor {
        what: "attention 8 x 8 x 64: times its operations at the peak".into(),
        limit: Limit::AtMost(4.0),
        // The operations themselves take some 60 ns, and what is around them 250.
        ratio: Box::new(move || 1.0 / share(backend, [8, 8, 64])),
    });
    floors.push(Floor {
        what: "one query, 8192 keys of 128, cached: share of the rate of loads".into(),
        limit: Limit::AtLeast(0.85),
        ratio: Box::new(move || lone_of_loads(backend, true)),
    });
    floors.push(Floor {
        what: "one query, 8192 keys of 128, arrays: share of the rate of loads".into(),
        limit: Limit::AtLeast(0.80),
        ratio: Box::new(move || lone_of_loads(backend, false)),
    });
    for (name, one, many, ratio) in [
        ("F16", 0.58, 1.12, of_floats::<F16> as fn(Backend, [usize; 3]) -> f64),
        ("Bf16", 0.58, 1.12, of_floats::<Bf16>),
        ("I8", 0.62, 1.18, of_floats::<I8>),
    ] {
        floors.push(Floor {
            what: format!("one query, 8192 keys of 128, cached as {name}: times f32"),
            limit: Limit::AtMost(one),
            ratio: Box::new(move || ratio(backend, [1, 8192, 128])),
        });
        floors.push(Floor {
            what: format!("attention 512 x 512 x 64, cached as {name}: times f32"),
            limit: Limit::AtMost(many),
            ratio: Box::new(move || ratio(backend, [512, 512, 64])),
        });
    }
    floors.push(Floor {
        what: "one query of 8 heads, 1024 keys of 128: in turns, times one by one".into(),
        limit: Limit::AtMost(1.4),
        ratio: Box::new(move || in_turns_of_one_by_one(backend)),
    });
    floors
}

/// Operands of queries, keys and dim, the values as wide as the keys.
struct Operands {
    sizes: [usize; 3],
    queries: Aligned,
    keys: Aligned,
    values: Aligned,
    out: Aligned,
    workspace: Vec<f32>,
}

impl Operands {
    fn new(sizes @ [queries, keys, dim]: [usize; 3]) -> Self {
        Self {
            sizes,
            queries: Aligned::new(queries * dim, 1.0),
            keys: Aligned::new(keys * dim, 1.0),
            values: Aligned::new(keys * dim, 1.0),
            out: Aligned::new(queries * dim, 0.0),
            workspace: vec![0.0; Attention::workspace(dim, dim)],
        }
    }

    fn run(&mut self, attention: &Attention<'_>) {
        let [queries, keys, dim] = self.sizes;
        attention
            .run(
                view(&self.queries, queries, dim),
                view(&self.keys, keys, dim),
                view(&self.values, keys, dim),
                view_mut(&mut self.out, queries, dim),
                &mut self.workspace,
            )
            .expect("sizes agree");
    }
}

fn share(backend: Backend, sizes: [usize; 3]) -> f64 {
    let [queries, keys, dim] = sizes;
    let mut operands = Operands::new(sizes);
    let attention = Attention::new().on(backend);
    let [peak, time] = yardstick_and_call(&mut || peak(backend), &mut || operands.run(&attention));
    ((4 * queries * keys * dim) as f64 / time) / (PEAK_FLOP / peak)
}

fn causal_of_full(backend: Backend) -> f64 {
    let (mut all, mut half) = (Operands::new([2048, 2048, 64]), Operands::new([2048, 2048, 64]));
    let attention = Attention::new().on(backend);
    let [full, causal] = yardstick_and_call(&mut || all.run(&attention), &mut || {
        half.run(&attention.causal());
    });
    causal / full
}

/// The yardstick loads as many bytes as the keys and values are, from two arrays in turns.
fn lone_of_loads(backend: Backend, cached: bool) -> f64 {
    let (keys, dim) = (8192, 128);
    let mut operands = Operands::new([1, keys, dim]);
    let [mut cache_keys, mut cache_values] = [(); 2].map(|()| Aligned::new(keys * dim, 0.0));
    let mut span = CachePositions::default();
    let (to_keys, to_values) = (cache_keys.floats_mut(), cache_values.floats_mut());
    let mut cache = KvCacheMut::new(to_keys, to_values, dim, dim, &mut span).expect("room");
    cache
        .append(view(&operands.keys, keys, dim), view(&operands.values, keys, dim))
        .expect("sizes agree");
    let (first, second) = (Aligned::new(keys * dim, 1.0), Aligned::new(keys * dim, 1.0));
    let attention = Attention::new().on(backend);
    let mut load = || load_both(&first, &second, backend.name() == "avx512");
    let [loads, time] = yardstick_and_call(&mut load, &mut || {
        if cached {
            let Operands { queries, out, workspace, .. } = &mut operands;
            let (query, out) = (view(queries, 1, dim), view_mut(out, 1, dim));
            cache.view().attend(&attention, query, out, workspace).expect("sizes agree");
        } else {
            operands.run(&attention);
        }
    });
    loads / time
}

/// Queries over a cache of these elements beside one of floats.
fn of_floats<E: Element>(backend: Backend, sizes: [usize; 3]) -> f64 {
    let mut calls = [cached_call::<f32>(backend, sizes), cached_call::<E>(backend, sizes)];
    let [floats, elements] = &mut calls;
    let [floats, elements] = yardstick_and_call(floats, elements);
    elements / floats
}

/// A call of queries over a cache.
fn cached_call<E: Element>(
    backend: Backend,
    sizes @ [count, keys, dim]: [usize; 3],
) -> Box<dyn FnMut()> {
    let mut operands = Operands::new(sizes);
    let mut elements = [(); 2].map(|()| vec![E::ZERO; keys * dim]);
    let mut scales = [(); 2].map(|()| vec![E::NO_SCALE; keys]);
    let (mut span, widths) = (CachePositions::default(), [dim, dim]);
    let [to_keys, to_values] = &mut elements;
    let [of_keys, of_values] = &mut scales;
    KvCacheMut::with_scales(to_keys, to_values, (of_keys, of_values), widths, &mut span)
        .and_then(|mut cache| {
            cache.append(view(&operands.keys, keys, dim), view(&operands.values, keys, dim))
        })
        .expect("room");
    operands.workspace = vec![0.0; Attention::elements_workspace(dim, dim)];
    let attention = Attention::new().on(backend);
    Box::new(move || {
        let Operands { queries, out, workspace, .. } = &mut operands;
        let ([keys, values], [of_keys, of_values]) = (&elements, &scales);
        KvCacheRef::with_scales(keys, values, (of_keys, of_values), widths, span)
            .and_then(|cache| {
                let (queries, out) = (view(queries, count, dim), view_mut(out, count, dim));
                cache.attend(&attention, queries, out, workspace)
            })
            .expect("sizes agree");
    })
}

/// Of as many bytes as the floors before: what is asked for ahead must be what comes next in either layout.
fn in_turns_of_one_by_one(backend: Backend) -> f64 {
    let (heads, keys, dim) = (8, 1024, 128);
    let mut apart = Operands::new([heads, heads * keys, dim]);
    let mut in_turns = Operands::new([heads, heads * keys, dim]);
    let attention = Attention::new().on(backend);
    let [apart, in_turns] = yardstick_and_call(
        &mut || {
            let [queries, k, v] = [(&apart.queries, 1), (&apart.keys, keys), (&apart.values, keys)]
                .map(|(x, rows)| HeadsRef::stacked(x.floats(), heads, rows, dim).expect("shape"));
            let out = HeadsMut::stacked(apart.out.floats_mut(), heads, 1, dim).expect("shape");
            attention.run(queries, k, v, out, &mut apart.workspace).expect("sizes agree");
        },
        &mut || {
            let Operands { queries, keys: k, values, out, workspace, .. } = &mut in_turns;
            let [queries, k, v] =
                [(&*queries, 1), (&*k, keys), (&*values, keys)].map(|(x, rows)| {
                    HeadsRef::interleaved(x.floats(), heads, rows, dim).expect("shape")
                });
            let out = HeadsMut::interleaved(out.floats_mut(), heads, 1, dim).expect("shape");
            attention.run(queries, k, v, out, workspace).expect("sizes agree");
        },
    );
    in_turns / apart
}

pub(crate) fn view(x: &Aligned, rows: usize, cols: usize) -> MatrixRef<'_> {
    MatrixRef::new(black_box(x.floats()), rows, cols).expect("shape")
}

pub(crate) fn view_mut(x: &mut Aligned, rows: usize, cols: usize) -> MatrixMut<'_> {
    MatrixMut::new(black_box(x.floats_mut()), rows, cols).expect("shape")
}
