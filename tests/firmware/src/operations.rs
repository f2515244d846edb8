//! The measured operations: each has its own symbol, and one call. A new operation is a new entry of the
//! list.

#![cfg_attr(standalone, allow(dead_code, reason = "used by the other operations"))]

use sdpa::{
    Attention, Bf16, CachePositions, Element, Error, F16, I8, KvCacheMut, MatrixMut, MatrixRef,
};

/// The cost of one call.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub instructions: u32,
    /// Bytes of stack.
    pub stack: usize,
}

/// An operation, the shape at which it is measured, and the measurement.
pub struct Operation {
    pub name: &'static str,
    pub shape: &'static str,
    #[cfg(target_os = "none")]
    pub measure: fn(&mut crate::Arena) -> Cost,
}

/// Defines the operations. Each entry has the arguments of a symbol, what it calls, and the shape and
/// arguments of one call, taken from the three inputs, the output and the caches.
macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),+) -> $result:ty: $call:expr, $shape:literal,
        |$a:pat_param, $b:pat_param, $c:pat_param, $out:pat_param $(, $caches:pat_param)?|
        ($($value:expr),+);)+) => {
        /// The symbols; the measurement includes everything that they call.
        pub mod symbols {
            use super::*;
            $(
                #[cfg_attr(all(target_os = "none", any(not(standalone), $name)), unsafe(no_mangle))]
                #[inline(never)]
                pub fn $name($($arg: $type),+) -> $result {
                    $call($($arg),+)
                }
            )+
        }

        pub const OPERATIONS: &[Operation] = &[$(#[cfg(any(not(standalone), $name))] Operation {
            name: stringify!($name),
            shape: $shape,
            #[cfg(target_os = "none")]
            measure: {
                #[inline(never)]
                fn measure(arena: &mut crate::Arena) -> Cost {
                    crate::machine::cost(
                        arena,
                        #[inline(always)]
                        |arena| {
                            let crate::Arena {
                                inputs: [$a, $b, $c], output: $out, $(caches: $caches,)? ..
                            } = arena;
                            // By address, so that the symbol cannot be specialized for the call.
                            core::hint::black_box(symbols::$name as fn($($type),+) -> $result)(
                                $($value),+
                            )
                        },
                    )
                }
                measure
            },
        }),+];
    };
}

operations! {
    dot(a: &[f32], b: &[f32]) -> Result<f32, Error>: sdpa::dot, "n = 1024",
        |a, b, _, _| (&a[..1024], &b[..1024]);
    softmax(x: &[f32], out: &mut [f32]) -> Result<(), Error>: sdpa::softmax, "n = 1024",
        |a, _, _, out| (&a[..1024], &mut out[..1024]);
    softmax_rows(x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error>: sdpa::softmax_rows,
        "8 × 128", |a, _, _, out| (matrix::<8, 128>(a), matrix_mut::<8, 128>(out));
    softmax_columns(x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error>: sdpa::softmax_columns,
        "128 × 8", |a, _, _, out| (matrix::<128, 8>(a), matrix_mut::<128, 8>(out));
    project(x: MatrixRef<'_>, w: MatrixRef<'_>, bias: Option<&[f32]>, out: MatrixMut<'_>)
        -> Result<(), Error>: sdpa::project, "8 × 64 × 32", |a, b, _, out|
        (matrix::<8, 64>(a), matrix::<64, 32>(b), Some(&a[..32]), matrix_mut::<8, 32>(out));
    scores(keys: MatrixRef<'_>, queries: MatrixRef<'_>, scale: Option<f32>, out: MatrixMut<'_>)
        -> Result<(), Error>: sdpa::scores, "8 × 8 × 64", |a, b, _, out|
        (matrix::<8, 64>(a), matrix::<8, 64>(b), None, matrix_mut::<8, 8>(out));
    weighted_sum(pattern: MatrixRef<'_>, values: MatrixRef<'_>, out: MatrixMut<'_>)
        -> Result<(), Error>: sdpa::weighted_sum, "8 × 8 × 64", |a, b, _, out|
        (matrix::<8, 8>(a), matrix::<8, 64>(b), matrix_mut::<8, 64>(out));
    attention(window: [usize; 2], of: [MatrixRef<'_>; 3], out: MatrixMut<'_>, workspace: &mut [f32])
        -> Result<(), Error>: attend, "8 × 8 × 64", |a, b, workspace, out|
        ([usize::MAX; 2], heads(a, b), matrix_mut::<8, 64>(out), workspace);
    attention_with_all(
        options: Options<'_>, of: [MatrixRef<'_>; 3], out: MatrixMut<'_>, log_sum_exp: &mut [f32],
        workspace: &mut [f32]
    ) -> Result<(), Error>: attend_with_all, "8 × 8 × 64", |a, b, workspace, out|
        (Options::of(a), heads(a, b), matrix_mut::<8, 64>(out), &mut [0.0; 8], workspace);
    attention_cached(
        keys: &mut [f32], values: &mut [f32], token: MatrixRef<'_>, out: MatrixMut<'_>,
        workspace: &mut [f32]
    ) -> Result<(), Error>: append_and_attend, "1 × 64 × 64", |keys, values, workspace, out|
        (keys, values, MatrixRef::from_row(&TOKEN), matrix_mut::<1, 64>(out), workspace);
    attention_cached_f16(
        cache: &mut Cache<F16>, token: MatrixRef<'_>, out: MatrixMut<'_>, workspace: &mut [f32]
    ) -> Result<(), Error>: append_and_attend_of, "1 × 64 × 64", |_, _, workspace, out, caches|
        (&mut caches.0, MatrixRef::from_row(&TOKEN), matrix_mut::<1, 64>(out), workspace);
    attention_cached_bf16(
        cache: &mut Cache<Bf16>, token: MatrixRef<'_>, out: MatrixMut<'_>, workspace: &mut [f32]
    ) -> Result<(), Error>: append_and_attend_of, "1 × 64 × 64", |_, _, workspace, out, caches|
        (&mut caches.1, MatrixRef::from_row(&TOKEN), matrix_mut::<1, 64>(out), workspace);
    attention_cached_i8(
        cache: &mut Cache<I8>, token: MatrixRef<'_>, out: MatrixMut<'_>, workspace: &mut [f32]
    ) -> Result<(), Error>: append_and_attend_of, "1 × 64 × 64", |_, _, workspace, out, caches|
        (&mut caches.2, MatrixRef::from_row(&TOKEN), matrix_mut::<1, 64>(out), workspace);
}

/// The storage of a cache of 64 tokens of 64 columns.
pub struct Cache<E: Element> {
    keys: [E; 64 * 64],
    values: [E; 64 * 64],
    key_scales: [E::Scale; 64],
    value_scales: [E::Scale; 64],
}

impl<E: Element> Cache<E> {
    const NEW: Self = Self {
        keys: [E::ZERO; 64 * 64],
        values: [E::ZERO; 64 * 64],
        key_scales: [E::NO_SCALE; 64],
        value_scales: [E::NO_SCALE; 64],
    };

    fn view<'a>(&'a mut self, span: &'a mut CachePositions) -> Result<KvCacheMut<'a, E>, Error> {
        let scales = (&mut self.key_scales[..], &mut self.value_scales[..]);
        KvCacheMut::with_scales(&mut self.keys, &mut self.values, scales, [64, 64], span)
    }

    fn fill(&mut self, keys: &[f32], values: &[f32]) -> Result<(), Error> {
        let mut span = CachePositions::default();
        let rows = |floats| MatrixRef::new(floats, 64, 64);
        self.view(&mut span)?.append(rows(keys)?, rows(values)?)
    }
}

/// A cache of each type of element.
pub struct Caches(Cache<F16>, Cache<Bf16>, Cache<I8>);

impl Caches {
    pub const NEW: Self = Self(Cache::NEW, Cache::NEW, Cache::NEW);

    /// Fills all of them with the same keys and the same values.
    pub fn fill(&mut self, keys: &[f32], values: &[f32]) -> Result<(), Error> {
        self.0.fill(keys, values)?;
        self.1.fill(keys, values)?;
        self.2.fill(keys, values)
    }
}

/// Attention through the C library, as [`attention`](symbols::attention): measured alone, where run.sh links it.
pub const C_OPERATIONS: &[&str] =
    &["sdpa_attention_plain", "sdpa_attention_heads_plain", "sdpa_attention"];

/// Measures that of the image.
#[cfg(c_operation)]
pub fn measure_c(arena: &mut crate::Arena) -> (&'static str, Cost) {
    use core::ptr;

    #[cfg(not(sdpa_attention_heads_plain))]
    #[repr(C)]
    struct Matrix {
        data: *const f32,
        shape: [usize; 2],
        strides: [usize; 2],
    }
    #[cfg(sdpa_attention_heads_plain)]
    #[repr(C)]
    struct Heads {
        data: *const f32,
        shape: [usize; 3],
        strides: [usize; 3],
    }
    // What is written has the layout of what is read.
    unsafe extern "C" {
        #[cfg(sdpa_attention_plain)]
        fn sdpa_attention_plain(
            _: Matrix,
            _: Matrix,
            _: Matrix,
            options: *const u8,
            _: Matrix,
            workspace: *mut f32,
            _: usize,
        ) -> i32;
        #[cfg(sdpa_attention_heads_plain)]
        fn sdpa_attention_heads_plain(
            _: Heads,
            _: Heads,
            _: Heads,
            options: *const u8,
            _: Heads,
            workspace: *mut f32,
            _: usize,
        ) -> i32;
        #[cfg(sdpa_attention)]
        fn sdpa_attention(
            _: Matrix,
            _: Matrix,
            _: Matrix,
            options: *const u8,
            _: Matrix,
            log_sum_exp: *mut f32,
            workspace: *mut f32,
            _: usize,
        ) -> i32;
    }
    let cost = crate::machine::cost(
        arena,
        #[inline(always)]
        |arena| {
            let crate::Arena { inputs: [a, b, workspace], output, .. } = arena;
            #[cfg(not(sdpa_attention_heads_plain))]
            let view = |data: *const f32| Matrix { data, shape: [8, 64], strides: [0; 2] };
            #[cfg(sdpa_attention_heads_plain)]
            let view = |data: *const f32| Heads { data, shape: [1, 8, 64], strides: [0; 3] };
            let of = [a.as_ptr(), b.as_ptr(), a.as_ptr(), output.as_mut_ptr().cast_const()];
            let [q, k, v, out] = of.map(view);
            let (workspace, len) = (workspace.as_mut_ptr(), workspace.len());
            // SAFETY: as sdpa.h asks.
            #[cfg(sdpa_attention_plain)]
            let status = unsafe { sdpa_attention_plain(q, k, v, ptr::null(), out, workspace, len) };
            // SAFETY: as sdpa.h asks.
            #[cfg(sdpa_attention_heads_plain)]
            let status =
                unsafe { sdpa_attention_heads_plain(q, k, v, ptr::null(), out, workspace, len) };
            // SAFETY: as sdpa.h asks.
            #[cfg(sdpa_attention)]
            let status = unsafe {
                sdpa_attention(q, k, v, ptr::null(), out, ptr::null_mut(), workspace, len)
            };
            if status == 0 { Ok(()) } else { Err(status) }
        },
    );
    let name = if cfg!(sdpa_attention) {
        "sdpa_attention"
    } else if cfg!(sdpa_attention_heads_plain) {
        "sdpa_attention_heads_plain"
    } else {
        "sdpa_attention_plain"
    };
    (name, cost)
}

/// Attention that links these options only.
fn attend(
    [left, right]: [usize; 2],
    [queries, keys, values]: [MatrixRef<'_>; 3],
    out: MatrixMut<'_>,
    workspace: &mut [f32],
) -> Result<(), Error> {
    let attention = Attention::new().window(left, right);
    attention.run(queries, keys, values, out, workspace)
}

/// All options that have code of their own. The caller provides the log-sum-exp array: zeroing it in the
/// symbol would link a `memclr` of 174 bytes.
pub struct Options<'a> {
    softcap: f32,
    bias: MatrixRef<'a>,
    keep: MatrixRef<'a, u8>,
    sinks: &'a [f32],
}

fn attend_with_all(
    options: Options<'_>,
    [queries, keys, values]: [MatrixRef<'_>; 3],
    out: MatrixMut<'_>,
    log_sum_exp: &mut [f32],
    workspace: &mut [f32],
) -> Result<(), Error> {
    let Options { softcap, bias, keep, sinks } = options;
    let attention = Attention::new().softcap(softcap).bias(bias).keep(keep).sinks(sinks);
    attention.causal().run_with_log_sum_exp(queries, keys, values, out, log_sum_exp, workspace)
}

/// One decoding step: appends the newest of 64 keys and attends with its query.
fn append_and_attend(
    keys: &mut [f32],
    values: &mut [f32],
    token: MatrixRef<'_>,
    out: MatrixMut<'_>,
    workspace: &mut [f32],
) -> Result<(), Error> {
    let mut span = CachePositions::new(63, 0)?;
    let mut cache = KvCacheMut::new(keys, values, 64, 64, &mut span)?;
    cache.append(token, token)?;
    cache.view().attend(&Attention::new(), token, out, workspace)
}

/// [`append_and_attend`] over elements.
fn append_and_attend_of<E: Element>(
    cache: &mut Cache<E>,
    token: MatrixRef<'_>,
    out: MatrixMut<'_>,
    workspace: &mut [f32],
) -> Result<(), Error> {
    let mut span = CachePositions::new(63, 0)?;
    let mut cache = cache.view(&mut span)?;
    cache.append(token, token)?;
    cache.view().attend(&Attention::new(), token, out, workspace)
}

/// Queries, keys and values.
#[cfg(target_os = "none")]
#[inline(always)]
fn heads<'a>(a: &'a [f32; crate::FLOATS], b: &'a [f32; crate::FLOATS]) -> [MatrixRef<'a>; 3] {
    [matrix::<8, 64>(a), matrix::<8, 64>(b), matrix::<8, 64>(a)]
}

#[cfg(target_os = "none")]
impl<'a> Options<'a> {
    #[inline(always)]
    fn of(a: &'a [f32; crate::FLOATS]) -> Self {
        static KEEP: [[u8; 8]; 8] = [[1; 8]; 8];
        Self {
            softcap: 30.0,
            bias: matrix::<8, 8>(a),
            keep: MatrixRef::from(KEEP.as_slice()),
            sinks: &a[..1],
        }
    }
}

#[cfg(target_os = "none")]
static TOKEN: [f32; 64] = [0.5; 64];

/// Views the first floats of a buffer as a contiguous matrix.
#[cfg(target_os = "none")]
#[inline(always)]
fn matrix<const R: usize, const C: usize>(buffer: &[f32; crate::FLOATS]) -> MatrixRef<'_> {
    MatrixRef::from(&buffer.as_chunks::<C>().0[..R])
}

/// Views the first floats of a buffer as a mutable contiguous matrix.
#[cfg(target_os = "none")]
#[inline(always)]
fn matrix_mut<const R: usize, const C: usize>(buffer: &mut [f32; crate::FLOATS]) -> MatrixMut<'_> {
    MatrixMut::from(&mut buffer.as_chunks_mut::<C>().0[..R])
}
