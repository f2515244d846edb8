//! The options of attention.

use sdpa::{Attention, Backend, MatrixRef};

use crate::{
    region::{Place, Strided, array, check_apart},
    status::{
        Checked, Failure, SDPA_ERROR_OPTION, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_BIAS,
        SDPA_ERROR_SHAPE_OUT, sdpa_status,
    },
    views::{sdpa_matrix, slice, strides},
};

/// A query sees the keys up to its own position.
pub const SDPA_CAUSAL: u32 = 1;
/// A query at position p sees the keys from p - window_left to p + window_right.
pub const SDPA_WINDOW: u32 = 2;

/// The options of attention. All zero, as NULL in its place, is the default: every query sees
/// every key, the scale is 1 / sqrt(dim). They are applied in the order scale, softcap, bias,
/// masks. Query i sits at position query_offset + i, key j at j; from a cache 0 is where the
/// newest queries sit. Fields that later versions add go behind the last, and 0 means what there was
/// before: set the whole structure to zero, then what is wanted.
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
    /// With SDPA_WINDOW: 4 shows five keys, the own one included. SIZE_MAX: no limit. Without that
    /// flag 0, or it is SDPA_ERROR_OPTION.
    pub window_left: usize,
    /// The same to the right. With SDPA_CAUSAL no query sees beyond its own position.
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

/// The place of one that may be NULL.
fn optional<T>(one: *const T) -> Checked<Place<'static>> {
    array(one, usize::from(!one.is_null()))
}

// Not inlined, so that the frame of what calls them stays small.

#[inline(never)]
fn check_array<T>(outputs: &[Place<'_>], first: *const T, len: usize) -> Checked<()> {
    check_apart(outputs, &array(first, len)?)
}

#[inline(never)]
fn check_mask(outputs: &[Place<'_>], mask: &impl Strided) -> Checked<()> {
    check_apart(outputs, &mask.place()?)
}

/// A mask of one byte a key and query.
struct Keep {
    first: *const u8,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl Strided for Keep {
    type Element = u8;

    fn first(&self) -> *const u8 {
        self.first
    }

    fn counts(&self) -> [usize; 3] {
        [1, self.shape[0], self.shape[1]]
    }

    fn strides(&self) -> [usize; 3] {
        [0, self.strides[0], self.strides[1]]
    }
}

impl Keep {
    /// # Safety
    ///
    /// As of `sdpa_matrix::view`.
    unsafe fn view<'a>(&self) -> MatrixRef<'a, u8> {
        let ([rows, cols], [row, col]) = (self.shape, self.strides);
        // SAFETY: as the caller promises.
        let view = unsafe { MatrixRef::from_raw_parts(self.first, rows, cols, row, col) };
        view.unwrap_or_else(|_| MatrixRef::from_row(&[])) // never: it has been checked
    }
}

impl sdpa_options {
    /// The mask, of a grid of `shape`; none where it is NULL.
    fn keep(&self, shape: [usize; 2]) -> Keep {
        let strides = strides(shape[1], self.keep_row_stride, self.keep_col_stride);
        let shape = if self.keep.is_null() { [0; 2] } else { shape };
        Keep { first: self.keep, shape, strides }
    }
}

/// The options of a call.
pub(crate) struct Options<'a> {
    options: Option<&'a sdpa_options>,
    /// A float a query head, or NULL and none.
    sinks: (*const f32, usize),
    /// Keys and queries.
    grid: [usize; 2],
}

impl<'a> Options<'a> {
    /// Of a call of `heads` query heads whose grid is of `grid`.
    ///
    /// # Safety
    ///
    /// What `options` points to may be read for `'a` and is written by nobody.
    pub(crate) unsafe fn new(
        options: *const sdpa_options,
        sinks: *const f32,
        heads: usize,
        grid: [usize; 2],
    ) -> Checked<Self> {
        optional(options)?;
        // SAFETY: aligned, and as the caller promises.
        Ok(unsafe { Self::checked(options, sinks, heads, grid) })
    }

    /// # Safety
    ///
    /// As [`new`](Self::new), which has had no complaint.
    pub(crate) unsafe fn checked(
        options: *const sdpa_options,
        sinks: *const f32,
        heads: usize,
        grid: [usize; 2],
    ) -> Self {
        let sinks = (sinks, if sinks.is_null() { 0 } else { heads });
        // SAFETY: aligned, and as the caller promises.
        Self { options: unsafe { options.as_ref() }, sinks, grid }
    }

    /// Fails where the options cannot be, or an output is not apart from all that they point to.
    #[inline(always)]
    pub(crate) fn check(&self, outputs: &[Place<'_>]) -> Checked<()> {
        let (sinks, heads) = self.sinks;
        check_array(outputs, sinks, heads)?;
        let Some(options) = self.options else { return Ok(()) };
        check_array(outputs, options, 1)?;
        let has_window = options.window_left != 0 || options.window_right != 0;
        if options.flags & !(SDPA_CAUSAL | SDPA_WINDOW) != 0
            || (has_window && options.flags & SDPA_WINDOW == 0)
            || !(options.sink.is_null() || sinks.is_null())
        {
            return Err(Failure(SDPA_ERROR_OPTION));
        }
        if !options.bias.data.is_null() {
            check_mask(outputs, &options.bias)?;
        }
        if !options.keep.is_null() {
            check_mask(outputs, &options.keep(self.grid))?;
        }
        check_array(outputs, options.sink, usize::from(!options.sink.is_null()))
    }

    /// Whose shape is wrong: that of the bias, or of an output which is to be of the shape `want`.
    pub(crate) fn whose(&self, want: [usize; 3], out: [usize; 3]) -> sdpa_status {
        let bias = self.options.map(|options| options.bias).filter(|bias| !bias.data.is_null());
        if bias.is_some_and(|bias| bias.shape() != self.grid) {
            SDPA_ERROR_SHAPE_BIAS
        } else if out != want {
            SDPA_ERROR_SHAPE_OUT
        } else {
            SDPA_ERROR_SHAPE
        }
    }

    /// The options as the crate has them.
    ///
    /// # Safety
    ///
    /// Of checked options; what they point to may be read for `'a` and is written by nobody.
    pub(crate) unsafe fn read(&self, on: Backend) -> Attention<'a> {
        let Self { options, sinks: (sinks, heads), grid } = *self;
        let attention = Attention::new().on(on);
        // SAFETY: as the caller promises.
        let sinks = (!sinks.is_null()).then(|| unsafe { slice(sinks, heads) });
        let Some(options) = options else {
            return sinks.map_or(attention, |sinks| attention.sinks(sinks));
        };
        // SAFETY: as the caller promises.
        let (bias, keep, sink) = unsafe {
            let bias = (!options.bias.data.is_null()).then(|| options.bias.view());
            let keep = (!options.keep.is_null()).then(|| options.keep(grid).view());
            (bias, keep, options.sink.as_ref())
        };
        // Causal is a window that ends at the own position.
        let has = |flag| options.flags & flag != 0;
        let (left, right) = (options.window_left, options.window_right);
        let [left, right] = if has(SDPA_WINDOW) { [left, right] } else { [usize::MAX; 2] };
        let right = if has(SDPA_CAUSAL) { 0 } else { right };
        let mut attention = attention.window(left, right).query_offset(options.query_offset);
        if options.scale != 0.0 {
            attention = attention.scale(options.scale);
        }
        if options.softcap != 0.0 {
            attention = attention.softcap(options.softcap);
        }
        if let Some(&sink) = sink {
            attention = attention.sink(sink);
        }
        if let Some(sinks) = sinks {
            attention = attention.sinks(sinks);
        }
        if let Some(bias) = bias {
            attention = attention.bias(bias);
        }
        if let Some(keep) = keep {
            attention = attention.keep(keep);
        }
        attention
    }
}
