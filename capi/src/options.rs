//! The options of attention.

use sdpa::{Attention, MatrixRef};

use crate::{
    region::Region,
    status::{Checked, Failure, SDPA_ERROR_OPTION},
    views::{sdpa_matrix, slice, strides},
};

/// A query sees the keys up to its own position.
pub const SDPA_CAUSAL: u32 = 1;
/// A query at position p sees the keys from p - window_left to p + window_right.
pub const SDPA_WINDOW: u32 = 2;

/// The options of attention. All zero, as NULL in its place, is the default: every query sees
/// every key, the scale is 1 / sqrt(dim). They are applied in the order scale, softcap, bias,
/// masks. Query i sits at position query_offset + i, key j at j; from a cache 0 is where the
/// newest queries sit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sdpa_options {
    /// SDPA_CAUSAL, SDPA_WINDOW; other bits are SDPA_ERROR_OPTION.
    pub flags: u32,
    /// Finite; 0: 1 / sqrt(dim).
    pub scale: f32,
    /// A score s becomes softcap * tanh(s / softcap): finite, not negative; 0: none.
    pub softcap: f32,
    /// The position of query 0 among the keys.
    pub query_offset: isize,
    /// Read with SDPA_WINDOW: 4 shows five keys, the own one included. SIZE_MAX: no limit.
    pub window_left: usize,
    /// The same to the right. With SDPA_CAUSAL it is 0.
    pub window_right: usize,
    /// Keys x queries, added to the scores; -INFINITY masks. data NULL: none.
    pub bias: sdpa_matrix,
    /// Keys x queries, one byte each, 0: masked. NULL: none.
    pub keep: *const u8,
    /// In bytes; both strides 0: dense. A padding mask, one byte a key: 1 and 0.
    pub keep_row_stride: usize,
    /// See keep_row_stride.
    pub keep_col_stride: usize,
    /// ONE float for all queries: one more logit in the denominator, finite or -INFINITY.
    /// NULL: none.
    pub sink: *const f32,
}

/// The options as the crate has them, and where they lie.
pub(crate) struct Options<'a> {
    pub(crate) attention: Attention<'a>,
    pub(crate) regions: [Region; 5],
}

/// Reads the options of a call of `heads` query heads whose grid is `keys` x `queries`; `sinks`
/// has a float a head, or is NULL.
///
/// # Safety
///
/// Each pointer is NULL, or what it points to may be read for `'a` and is written by nobody.
pub(crate) unsafe fn read<'a>(
    options: *const sdpa_options,
    sinks: *const f32,
    heads: usize,
    [keys, queries]: [usize; 2],
) -> Checked<Options<'a>> {
    let mut attention = Attention::new();
    let mut regions = [Region::EMPTY; 5];
    let [at_options, at_bias, at_keep, at_sink, at_sinks] = &mut regions;
    if !options.is_null() {
        *at_options = Region::array(options.cast::<u8>(), size_of::<sdpa_options>())?;
        // SAFETY: as the caller promises.
        let options = unsafe { options.read() };
        if options.flags & !(SDPA_CAUSAL | SDPA_WINDOW) != 0 {
            return Err(Failure(SDPA_ERROR_OPTION));
        }
        if options.flags & SDPA_WINDOW != 0 {
            attention = attention.window(options.window_left, options.window_right);
        }
        if options.flags & SDPA_CAUSAL != 0 {
            attention = attention.causal();
        }
        if options.scale != 0.0 {
            attention = attention.scale(options.scale);
        }
        if options.softcap != 0.0 {
            attention = attention.softcap(options.softcap);
        }
        attention = attention.query_offset(options.query_offset);
        if !options.bias.data.is_null() {
            *at_bias = options.bias.region()?;
            // SAFETY: as the caller promises.
            attention = attention.bias(unsafe { options.bias.view() }?);
        }
        let keep = options.keep;
        if !keep.is_null() {
            let [row, col] = strides(queries, options.keep_row_stride, options.keep_col_stride);
            *at_keep = Region::new(keep, [1, keys, queries], [0, row, col])?;
            // SAFETY: as the caller promises.
            let keep = unsafe { MatrixRef::from_raw_parts(keep, keys, queries, row, col) };
            attention = attention.keep(keep?);
        }
        if !options.sink.is_null() {
            *at_sink = Region::array(options.sink, 1)?;
            // SAFETY: as the caller promises.
            attention = attention.sink(unsafe { options.sink.read() });
            if !sinks.is_null() {
                return Err(Failure(SDPA_ERROR_OPTION));
            }
        }
    }
    if !sinks.is_null() {
        *at_sinks = Region::array(sinks, heads)?;
        // SAFETY: as the caller promises.
        attention = attention.sinks(unsafe { slice(sinks, heads) });
    }
    Ok(Options { attention, regions })
}
