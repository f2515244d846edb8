//! Invalid attention calls: they return an error and leave outputs, log-sum-exps and workspace unchanged; on
//! every back end.

use crate::common::{
    self,
    grid::{CANARY, Grid, is_untouched},
};
use sdpa::{Attention, Backend, Error, HeadsMut, HeadsRef, KvCache, MatrixMut, MatrixRef};

suite! {
    sizes_that_disagree,
    sizes_of_zero,
    heads_that_do_not_divide,
    masks_of_another_shape,
    slopes_of_another_number,
    sinks_of_another_number,
    logarithms_of_another_number,
    a_short_workspace,
    options_out_of_range,
    grids_of_another_shape,
    grids_of_heads_of_another_shape,
    two_errors_give_one_of_them,
}

/// Sizes of a call: heads, rows and columns of each operand; logarithms and workspace.
#[derive(Clone, Copy)]
struct Call {
    queries: [usize; 3],
    keys: [usize; 3],
    values: [usize; 3],
    out: [usize; 3],
    logarithms: usize,
    workspace: usize,
}

/// 4 heads of 5 queries over 2 of 7 keys; dim 3, width 2.
fn right() -> Call {
    Call {
        queries: [4, 5, 3],
        keys: [2, 7, 3],
        values: [2, 7, 2],
        out: [4, 5, 2],
        logarithms: 20,
        workspace: Attention::workspace(3, 2),
    }
}

fn len(sizes: [usize; 3]) -> usize {
    sizes.iter().product()
}

fn heads(floats: &[f32], sizes: [usize; 3]) -> HeadsRef<'_> {
    let [heads, rows, cols] = sizes;
    HeadsRef::stacked(floats, heads, rows, cols).expect("dense")
}

/// Makes the call; fails if an invalid call has written anything.
#[track_caller]
fn result(backend: Backend, attention: Attention<'_>, call: Call) -> Result<(), Error> {
    let attention = attention.on(backend);
    let [q, k, v] = [call.queries, call.keys, call.values].map(|sizes| vec![1.0; len(sizes)]);
    let mut results = Vec::new();
    for with_logarithms in [true, false] {
        let mut out = vec![CANARY; len(call.out)];
        let mut logarithms = vec![CANARY; call.logarithms];
        let mut workspace = vec![CANARY; call.workspace];
        let [h, rows, cols] = call.out;
        let into = HeadsMut::stacked(&mut out, h, rows, cols).expect("dense");
        let (q, k, v) = (heads(&q, call.queries), heads(&k, call.keys), heads(&v, call.values));
        let result = if with_logarithms {
            attention.run_with_log_sum_exp(q, k, v, into, &mut logarithms, &mut workspace)
        } else {
            attention.run(q, k, v, into, &mut workspace)
        };
        if result.is_err() {
            for floats in [&out, &logarithms, &workspace] {
                assert!(is_untouched(floats), "an error wrote");
            }
        }
        results.push(result);
    }
    // Without log-sum-exps their number does not matter.
    if call.logarithms == call.out[0] * call.out[1] {
        assert_eq!(results[0], results[1]);
    }
    results[0]
}

#[track_caller]
fn refused(backend: Backend, error: Error, attention: Attention<'_>, call: Call) {
    assert_eq!(result(backend, attention, right()), Ok(()), "without the flaw");
    assert_eq!(result(backend, attention, call), Err(error));
}

fn sizes_that_disagree(backend: Backend) {
    let plain = Attention::new();
    // Every size of every operand, one more and one less. Query heads come in groups.
    for axis in 0..3 {
        for by in [1_isize, -1] {
            let change = |sizes: [usize; 3]| {
                let mut sizes = sizes;
                sizes[axis] = sizes[axis].wrapping_add_signed(by);
                sizes
            };
            let call = right();
            for call in [
                Call { queries: change(call.queries), ..call },
                Call { keys: change(call.keys), ..call },
                Call { values: change(call.values), ..call },
                Call { out: change(call.out), ..call },
            ] {
                refused(backend, Error::Shape, plain, call);
            }
        }
    }
}

fn sizes_of_zero(backend: Backend) {
    let plain = Attention::new();
    let call = right();
    let no_dim = Call { queries: [4, 5, 0], keys: [2, 7, 0], ..call };
    refused(backend, Error::Shape, plain, no_dim);
    let no_width = Call { values: [2, 7, 0], out: [4, 5, 0], ..call };
    refused(backend, Error::Shape, plain, no_width);
    // Also without queries, and without keys.
    for (tokens, keys) in [(0, 7), (5, 0), (0, 0)] {
        let logarithms = 4 * tokens;
        let fits = Call {
            queries: [4, tokens, 3],
            keys: [2, keys, 3],
            values: [2, keys, 2],
            out: [4, tokens, 2],
            logarithms,
            ..call
        };
        assert_eq!(result(backend, plain, fits), Ok(()));
        let no_dim = Call { queries: [4, tokens, 0], keys: [2, keys, 0], ..fits };
        refused(backend, Error::Shape, plain, no_dim);
        let no_width = Call { values: [2, keys, 0], out: [4, tokens, 0], ..fits };
        refused(backend, Error::Shape, plain, no_width);
    }
}

fn heads_that_do_not_divide(backend: Backend) {
    let call = right();
    for (queries, keys) in [(3, 2), (1, 2), (5, 2), (4, 3), (4, 0), (0, 0), (2, 4)] {
        let call = Call {
            queries: [queries, 5, 3],
            out: [queries, 5, 2],
            keys: [keys, 7, 3],
            values: [keys, 7, 2],
            logarithms: 5 * queries,
            ..call
        };
        refused(backend, Error::Shape, Attention::new(), call);
    }
    let no_queries = Call { queries: [0, 5, 3], out: [0, 5, 2], logarithms: 0, ..call };
    assert_eq!(result(backend, Attention::new(), no_queries), Ok(()));
    for (keys, values) in [(2, 1), (1, 2), (4, 2), (2, 4)] {
        let call = Call { keys: [keys, 7, 3], values: [values, 7, 2], ..call };
        refused(backend, Error::Shape, Attention::new(), call);
    }
}

fn masks_of_another_shape(backend: Backend) {
    let (floats, bytes) = ([0.0; 99], [1; 99]);
    let bias = |rows, cols| MatrixRef::new(&floats, rows, cols).unwrap();
    let keep = |rows, cols| MatrixRef::new(&bytes, rows, cols).unwrap();
    assert_eq!(
        result(backend, Attention::new().bias(bias(7, 5)).keep(keep(7, 5)), right()),
        Ok(())
    );
    for (rows, cols) in [(5, 7), (7, 4), (7, 6), (6, 5), (8, 5), (7, 0), (0, 5), (1, 5), (7, 1)] {
        for attention in [
            Attention::new().bias(bias(rows, cols)),
            Attention::new().keep(keep(rows, cols)),
            Attention::new().bias(bias(7, 5)).keep(keep(rows, cols)),
        ] {
            assert_eq!(result(backend, attention, right()), Err(Error::Shape), "{rows} x {cols}");
        }
    }
    let (floats, bytes) = ([0.0; 175], [1; 175]);
    for heads in 0..6 {
        let want = if [1, 4].contains(&heads) { Ok(()) } else { Err(Error::Shape) };
        let bias = HeadsRef::stacked(&floats, heads, 7, 5).unwrap();
        let keep = HeadsRef::stacked(&bytes, heads, 7, 5).unwrap();
        assert_eq!(result(backend, Attention::new().bias(bias), right()), want, "{heads}");
        assert_eq!(result(backend, Attention::new().keep(keep), right()), want, "{heads}");
    }
}

fn slopes_of_another_number(backend: Backend) {
    let slopes = [0.0; 9];
    assert_eq!(result(backend, Attention::new().slopes(&slopes[..4]), right()), Ok(()));
    for count in [0, 1, 2, 3, 5, 8] {
        let attention = Attention::new().slopes(&slopes[..count]);
        assert_eq!(result(backend, attention, right()), Err(Error::Shape), "{count}");
    }
}

fn sinks_of_another_number(backend: Backend) {
    let sinks = [0.0; 9];
    assert_eq!(result(backend, Attention::new().sinks(&sinks[..4]), right()), Ok(()));
    for count in [0, 1, 2, 3, 5, 8] {
        let attention = Attention::new().sinks(&sinks[..count]);
        assert_eq!(result(backend, attention, right()), Err(Error::Shape), "{count}");
    }
}

fn logarithms_of_another_number(backend: Backend) {
    for logarithms in [0, 4, 5, 19, 21, 40] {
        refused(backend, Error::Shape, Attention::new(), Call { logarithms, ..right() });
    }
}

fn a_short_workspace(backend: Backend) {
    let full = right().workspace;
    for workspace in [0, 1, full - 1] {
        refused(backend, Error::Workspace, Attention::new(), Call { workspace, ..right() });
    }
    for workspace in [full + 1, 2 * full] {
        assert_eq!(result(backend, Attention::new(), Call { workspace, ..right() }), Ok(()));
    }
}

fn options_out_of_range(backend: Backend) {
    let mut refused: Vec<Attention<'_>> = Vec::new();
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
        refused.push(Attention::new().scale(bad));
        refused.push(Attention::new().softcap(bad));
    }
    for bad in [-1.0, -f32::MIN_POSITIVE, f32::MIN, -f32::from_bits(1)] {
        refused.push(Attention::new().softcap(bad));
    }
    for bad in [f32::INFINITY, f32::NAN, -f32::NAN] {
        refused.push(Attention::new().sink(bad));
        let sinks = [0.0, 1.0, f32::NEG_INFINITY, bad];
        let attention = Attention::new().sinks(&sinks);
        assert_eq!(result(backend, attention, right()), Err(Error::Option), "{bad}");
    }
    let limit = 97_f32.exp2();
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, limit.next_up(), -limit.next_up()] {
        let slopes = [0.0, 1.0, -1.0, bad];
        let attention = Attention::new().slopes(&slopes);
        assert_eq!(result(backend, attention, right()), Err(Error::Option), "{bad}");
    }
    let grid = Grid::zeros(7, 3);
    for attention in refused {
        assert_eq!(result(backend, attention, right()), Err(Error::Option), "{attention:?}");
        for pattern in [true, false] {
            let call = grids(backend, attention, pattern);
            assert_eq!(untouched(7, 7, |out| call(&grid, &grid, out)), Err(Error::Option));
        }
    }
    for fine in [
        Attention::new().scale(f32::MAX).softcap(f32::MAX).sink(f32::MAX),
        Attention::new().scale(f32::MIN).softcap(f32::from_bits(1)).sink(f32::NEG_INFINITY),
        Attention::new().softcap(-0.0).sink(f32::MIN),
        // The last setting wins.
        Attention::new().scale(f32::NAN).scale(0.5).softcap(-1.0).softcap(2.0),
        Attention::new().sink(f32::NAN).sinks(&[0.0; 4]),
        Attention::new().sinks(&[f32::NAN; 4]).sink(0.0),
        Attention::new().slopes(&[f32::NAN; 4]).slopes(&[limit, -limit, 0.0, 1.0]),
    ] {
        assert_eq!(result(backend, fine, right()), Ok(()), "{fine:?}");
    }
}

/// Calls `Attention::pattern` or `Attention::scores`.
fn grids<'a>(
    backend: Backend,
    attention: Attention<'a>,
    pattern: bool,
) -> impl Fn(&Grid, &Grid, MatrixMut<'_>) -> Result<(), Error> + 'a {
    let attention = attention.on(backend);
    move |queries, keys, out| match pattern {
        true => attention.pattern(queries.view(), keys.view(), out),
        false => attention.scores(queries.view(), keys.view(), out),
    }
}

#[track_caller]
fn untouched(
    rows: usize,
    cols: usize,
    call: impl FnOnce(MatrixMut<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut out = Grid::from_fn(rows, cols, |_, _| CANARY);
    let result = call(out.view_mut());
    assert!(result.is_ok() || is_untouched(&out.data), "an error wrote");
    result
}

fn grids_of_another_shape(backend: Backend) {
    let (q, k) = (Grid::zeros(5, 3), Grid::zeros(7, 3));
    let (wide, none, some) = (Grid::zeros(5, 4), Grid::zeros(5, 0), Grid::zeros(7, 0));
    let (floats, bytes, sinks) = ([0.0; 99], [1; 99], [0.0; 2]);
    let bias = MatrixRef::new(&floats, 5, 7).unwrap();
    let keep = MatrixRef::new(&bytes, 7, 6).unwrap();
    for pattern in [true, false] {
        let plain = grids(backend, Attention::new(), pattern);
        assert_eq!(untouched(7, 5, |out| plain(&q, &k, out)), Ok(()));
        for (rows, cols) in [(5, 7), (7, 4), (7, 6), (6, 5), (8, 5), (0, 5), (7, 0)] {
            assert_eq!(untouched(rows, cols, |out| plain(&q, &k, out)), Err(Error::Shape));
        }
        assert_eq!(untouched(7, 5, |out| plain(&wide, &k, out)), Err(Error::Shape));
        assert_eq!(untouched(7, 5, |out| plain(&none, &some, out)), Err(Error::Shape));
        for attention in [
            Attention::new().bias(bias),
            Attention::new().keep(keep),
            Attention::new().sinks(&sinks),
            Attention::new().sinks(&[]),
            Attention::new().slopes(&sinks),
            Attention::new().slopes(&[]),
            Attention::new().bias(HeadsRef::stacked(&floats, 2, 7, 5).unwrap()),
        ] {
            let call = grids(backend, attention, pattern);
            assert_eq!(untouched(7, 5, |out| call(&q, &k, out)), Err(Error::Shape));
        }
        let one = grids(backend, Attention::new().sinks(&sinks[..1]), pattern);
        assert_eq!(untouched(7, 5, |out| one(&q, &k, out)), Ok(()));
    }
}

/// The grids of heads, and their mean: shapes, and a workspace that is too short.
fn grids_of_heads_of_another_shape(backend: Backend) {
    let floats = [0.0; 4 * 7 * 3];
    let heads = |heads, rows, cols| {
        HeadsRef::stacked(&floats[..heads * rows * cols], heads, rows, cols).unwrap()
    };
    let attention = Attention::new().on(backend);
    let right = [[4, 5, 3], [2, 7, 3], [4, 7, 5]];
    let with = |attention: Attention<'_>, [q, k, o]: [[usize; 3]; 3], workspace: usize| {
        let (queries, keys) = (heads(q[0], q[1], q[2]), heads(k[0], k[1], k[2]));
        let mut out = vec![CANARY; o.iter().product()];
        let mut view = HeadsMut::stacked(&mut out, o[0], o[1], o[2]).unwrap();
        let scores = attention.scores(queries, keys, view.view_mut());
        let pattern = attention.pattern(queries, keys, view);
        assert_eq!(scores, pattern);
        assert!(pattern.is_ok() || is_untouched(&out), "an error wrote");
        let mut mean = vec![CANARY; o[1] * o[2]];
        let view = MatrixMut::new(&mut mean, o[1], o[2]).unwrap();
        let result = attention.mean_pattern(queries, keys, view, &mut vec![0.0; workspace]);
        assert!(result.is_ok() || is_untouched(&mean), "an error wrote");
        [pattern, result]
    };
    assert_eq!(with(attention, right, 35), [Ok(()); 2]);
    assert_eq!(with(attention, right, 34), [Ok(()), Err(Error::Workspace)]);
    let [q, k, o] = right;
    assert_eq!(with(attention, [q, k, [3, 7, 5]], 35), [Err(Error::Shape), Ok(())]);
    for sizes in [
        [q, [3, 7, 3], o],
        [q, [2, 7, 2], o],
        [q, [0, 7, 3], o],
        [[4, 5, 0], [2, 7, 0], o],
        [q, k, [4, 5, 7]],
        [q, k, [4, 7, 4]],
    ] {
        assert_eq!(with(attention, sizes, 35), [Err(Error::Shape); 2], "{sizes:?}");
    }
    assert_eq!(with(attention, [[0, 5, 3], k, [0, 7, 5]], 35), [Ok(()), Err(Error::Shape)]);
    let sinks = attention.sinks(&floats[..2]);
    assert_eq!(with(sinks, right, 35), [Err(Error::Shape); 2]);
    assert_eq!(with(attention.scale(f32::NAN), right, 35), [Err(Error::Option); 2]);
}

/// Two errors at once return one of the two.
fn two_errors_give_one_of_them(backend: Backend) {
    let call = Call { workspace: 0, queries: [4, 5, 2], ..right() };
    let attention = Attention::new().scale(f32::NAN);
    let error = result(backend, attention, call).unwrap_err();
    assert!([Error::Shape, Error::Workspace, Error::Option].contains(&error));
    let mut cache = KvCache::<3, 2, 1>::new();
    let (keys, values) = (Grid::zeros(65, 3), Grid::zeros(65, 2));
    assert_eq!(cache.append(keys.view(), values.view()), Err(Error::Capacity));
    assert!(cache.is_empty());
}

#[test]
fn workspace_sizes() {
    const ROOM: usize = Attention::workspace(64, 64);
    assert!(ROOM * size_of::<f32>() <= 24 << 10, "{ROOM}");
    assert!(Attention::workspace(1, 1) < Attention::workspace(2, 1));
    assert!(Attention::workspace(1, 1) < Attention::workspace(1, 2));
    // Sizes that no matrix can have saturate.
    assert_eq!(Attention::workspace(usize::MAX, 1), usize::MAX);
    assert_eq!(Attention::workspace(usize::MAX / 2, usize::MAX / 2), usize::MAX);
}

#[test]
fn the_functions_use_the_best_back_end() {
    let [q, k, v] = [5, 7, 7].map(|rows| Grid::from_fn(rows, 3, |r, c| (r * 3 + c) as f32 * 0.1));
    let run = |attention: Attention<'_>| {
        let mut out = Grid::zeros(5, 3);
        let mut workspace = vec![0.0; Attention::workspace(3, 3)];
        let into = out.view_mut();
        attention.run(q.view(), k.view(), v.view(), into, &mut workspace).unwrap();
        out.data
    };
    let best = run(Attention::new().on(Backend::best()));
    common::assert_same_bits("best", &run(Attention::default()), &best);
}
