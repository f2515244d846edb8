//! Calls every public function of `sdpa` with sizes and values unknown at compile time. `run.sh` links it,
//! drops unreachable code, and searches the image for panics.

#![no_std]
#![no_main]

use core::hint::black_box;

use sdpa::{
    Attention, Backend, Bf16, CachePositions, Element, F16, I8, KvCacheMut, Matrix, MatrixMut,
    MatrixRef, Pairs, RotaryTable, narrow, project_elements,
};

/// Must be unreachable: `run.sh` fails if it is linked.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The entry point of the image.
#[unsafe(no_mangle)] // SAFETY: the image has no other symbol of this name
extern "C" fn probe() {
    let floats = black_box([0.5f32; 64]);
    let (x, sizes) = (floats.as_slice(), black_box([2usize, 3, 4, 5, 6]));
    let view = || {
        MatrixRef::with_strides(x, sizes[0], sizes[1], sizes[2], sizes[3])
            .or_else(|_| MatrixRef::new(x, sizes[0], sizes[1]))
            .unwrap_or(MatrixRef::from_row(x))
    };
    let mut buffer = black_box([0.0f32; 64]);
    let mut views = black_box(Matrix::<4, 4>::ZERO);
    for backend in [Backend::best(), Backend::SCALAR, Backend::PORTABLE] {
        report(backend.name().len());
        report(backend.dot(x, black_box(x)));
        report(backend.softmax(x, black_box(&mut buffer)));
        backend.softmax_in_place(black_box(&mut buffer));
        let out = || black_box([0.0f32; 64]);
        let (mut a, mut b, mut c, mut d, mut e) = (out(), out(), out(), out(), out());
        report(
            MatrixMut::new(&mut a, sizes[0], sizes[1])
                .map(|out| backend.project(view(), view().t(), black_box(Some(x)), out)),
        );
        report(
            MatrixMut::with_strides(&mut b, sizes[0], sizes[1], sizes[2], sizes[3])
                .map(|out| backend.scores(view(), view(), black_box(None), out)),
        );
        report(
            MatrixMut::new(&mut c, sizes[0], sizes[1])
                .map(|out| backend.weighted_sum(view(), view(), out)),
        );
        report(
            MatrixMut::new(&mut d, sizes[0], sizes[1])
                .map(|out| report(backend.softmax_rows(view(), out))),
        );
        report(
            MatrixMut::new(&mut e, sizes[0], sizes[1])
                .map(|out| report(backend.softmax_columns(view(), out.t()))),
        );
        let (mut f, mut g, mut workspace) = (out(), out(), black_box([0.0f32; 4096]));
        let log_sum_exp = f.get_mut(..sizes[1]).unwrap_or_default();
        report(
            MatrixMut::new(&mut g, sizes[0], sizes[1])
                .map(|out| backend.merge(out, log_sum_exp, view(), black_box(x))),
        );
        let (mut h, mut i, positions) = (out(), out(), black_box(3..7));
        let table = if black_box(true) {
            RotaryTable::new(black_box(1e4), sizes[4], positions, &mut h)
        } else {
            RotaryTable::with_frequencies(black_box(x), positions, &mut h)
        };
        report(table.map(|table| {
            let (position, pairs) = black_box((5, Pairs::Interleaved));
            let table =
                RotaryTable::from_parts(view(), table.sines(), sizes[0] as u64).unwrap_or(table);
            report(table.positions());
            report(
                MatrixMut::new(&mut i, sizes[0], sizes[1])
                    .map(|out| backend.rotate(view(), &table, position, pairs, out)),
            );
            report(
                MatrixMut::with_strides(&mut i, sizes[0], sizes[1], sizes[2], sizes[3])
                    .map(|x| backend.rotate_in_place(x, &table, position, pairs)),
            );
        }));
        black_box(&i);
        let attention = Attention::new().on(backend).softcap(black_box(3.0)).sink(black_box(1.0));
        let attention = attention.bias(view()).slopes(black_box(x)).keep_first(black_box(3));
        report(MatrixMut::new(&mut g, sizes[0], sizes[1]).map(|out| {
            let (queries, keys) = (view(), view());
            attention.run_with_log_sum_exp(queries, keys, view(), out, &mut f, &mut workspace)
        }));
        report(
            MatrixMut::new(&mut g, sizes[0], sizes[1])
                .map(|out| attention.mean_pattern(view(), view(), out, &mut workspace)),
        );
        report(
            MatrixMut::new(&mut g, sizes[0], sizes[1])
                .map(|out| attention.pattern(view(), view(), out)),
        );
        report(MatrixMut::new(&mut g, sizes[0], sizes[1]).map(|out| {
            let lengths = [[sizes[0], sizes[1]], [sizes[1], sizes[0]]];
            let (queries, keys, logs) = (view(), view(), black_box(Some(&mut f[..])));
            attention.run_packed(queries, keys, view(), &lengths, out, logs, &mut workspace)
        }));
        let (queries, keys, first_key) = (view(), view(), black_box(1024));
        let mut states = black_box([0.0f32; 4096]);
        let len = black_box(40);
        let states = states.get_mut(..len).unwrap_or_default();
        report(attention.run_spans(queries, keys, view(), first_key, states, &mut workspace));
        report(
            MatrixMut::new(&mut g, sizes[0], sizes[1])
                .map(|out| attention.join(states, out, black_box(Some(&mut f)))),
        );
        backend.softmax_rows_in_place(views.view_mut());
        backend.softmax_columns_in_place(views.view_mut());
        black_box((&a, &b, &c, &d, &e, &f, &g));
    }
    elements::<F16, Bf16>(x, &[]);
    elements::<I8, f32>(x, x);
    elements::<Bf16, I8>(x, &[]);
    report(Backend::by_name(black_box("scalar")).map(Backend::family));
    report(view().split_rows(sizes[4]).map(|(above, below)| {
        (above.get(sizes[0], sizes[1]), below.t().row(sizes[2]).map(<[f32]>::len))
    }));
    report(views.view_mut().split_columns(sizes[4]).map(|(mut left, right)| {
        report(left.get_mut(sizes[0], sizes[1]).copied());
        report(left.row_mut(sizes[2]).map(|row| row.len()));
        report(right.split_rows(sizes[3]).map(|(above, _)| above.rows()));
    }));
    #[cfg(feature = "deliberate")]
    report(x[sizes[4]]);
}

/// Rounds floats to elements, caches them, and attends and projects with them.
fn elements<K: Element, V: Element>(x: &[f32], of_keys: &[K::Scale])
where
    K::Scale: Default,
    V::Scale: Default,
{
    let sizes = black_box([2usize, 3, 4]);
    let view = || MatrixRef::new(x, sizes[0], sizes[1]).unwrap_or(MatrixRef::from_row(x));
    let mut out = black_box([0.0f32; 64]);
    let mut workspace = black_box([0.0f32; 4096]);
    let (mut keys, mut values) = (black_box([K::ZERO; 64]), black_box([V::ZERO; 64]));
    let mut scales = (black_box([K::Scale::default(); 64]), black_box([V::Scale::default(); 64]));
    report(narrow(view(), &mut keys, black_box(&mut scales.0)));
    report(MatrixRef::new(&keys, sizes[1], sizes[2]).map(|w| {
        let out = MatrixMut::from_row(&mut out);
        project_elements(view(), w, black_box(of_keys), black_box(None), out)
    }));
    let mut positions = black_box(CachePositions::default());
    let cache = KvCacheMut::with_scales(
        &mut keys,
        &mut values,
        (&mut scales.0, &mut scales.1),
        [sizes[0], sizes[1]],
        &mut positions,
    );
    report(cache.map(|mut cache| {
        report(cache.append(view(), view()));
        report(cache.keep_first(sizes[2]));
        cache.slide(sizes[2]);
        report(cache.truncate(sizes[0]));
        let attention = Attention::new().softcap(black_box(3.0));
        let to = MatrixMut::from_row(&mut out);
        report(cache.view().attend(&attention, view(), to, &mut workspace));
        let to = MatrixMut::from_row(&mut out);
        report(cache.view().pattern(&attention, view(), to, &mut workspace));
        let to = MatrixMut::from_row(&mut out);
        report(cache.view().mean_pattern(&attention, view(), to, &mut workspace));
        report(cache.view().run_spans(
            &attention,
            view(),
            black_box(&mut [0.0; 64]),
            &mut workspace,
        ));
    }));
    report(&out);
}

/// Uses a result.
fn report<T>(result: T) {
    black_box(result);
}
