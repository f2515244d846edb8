//! `sdpa_options`: the options of attention.

use sdpa::{Attention, Backend, HeadsRef};

use crate::{
    region::{Region, Span, Strided, array, check_disjoint},
    status::{
        Checked, Failure, SDPA_ERROR_OPTION, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_BIAS,
        SDPA_ERROR_SHAPE_OUT, sdpa_status,
    },
    views::{sdpa_matrix, slice, strides},
};

/// Causal mask: a query sees the keys at its own position and before.
pub const SDPA_CAUSAL: u32 = 1;
/// Sliding window: a query at position p sees the keys from p - window_left to p + window_right.
pub const SDPA_WINDOW: u32 = 2;

/// The options of attention. A structure of zeros, or a NULL pointer to one, means the defaults:
/// every query sees every key, and the scale is 1 / sqrt(dim). The options are applied in the order
/// scale, softcap, bias, slopes, masks. Query i is at position query_offset + i, key j at position j;
/// over a cache the queries are at the newest positions if query_offset is 0. Later versions add
/// fields at the end, and their 0 means the earlier behavior: set the whole structure to zero, then the
/// fields that you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sdpa_options {
    /// SDPA_CAUSAL, SDPA_WINDOW or both; any other bit is SDPA_ERROR_OPTION.
    pub flags: u32,
    /// Finite; 0 means 1 / sqrt(dim).
    pub scale: f32,
    /// Softcap: a score s becomes softcap * tanh(s / softcap). Finite and not negative; 0:
    /// no capping.
    pub softcap: f32,
    /// The position of query 0, where key 0 is at position 0; over a cache, the number of positions
    /// added to the default.
    pub query_offset: isize,
    /// With SDPA_WINDOW: the number of visible keys before the query's position; with window_right 0,
    /// a window_left of 4 shows five keys. SIZE_MAX: no limit. Without SDPA_WINDOW it must be 0 (else
    /// SDPA_ERROR_OPTION).
    pub window_left: usize,
    /// The number of visible keys after the query's position, under the same rules. With SDPA_CAUSAL
    /// it has no effect: no query sees beyond its own position.
    pub window_right: usize,
    /// Additive mask (bias): keys x queries, added to the scores; -INFINITY masks. data NULL: none.
    pub bias: sdpa_matrix,
    /// Boolean mask: keys x queries, one byte each; 0 masks, any other value keeps. NULL: none.
    pub keep: *const u8,
    /// In elements of keep, which are bytes. Both strides 0 means contiguous. For a padding mask of
    /// one byte per key, set keep_row_stride to 1 and keep_col_stride to 0.
    pub keep_row_stride: usize,
    /// See keep_row_stride.
    pub keep_col_stride: usize,
    /// Attention sink: ONE float for all queries, an additional score in the softmax denominator only;
    /// finite or -INFINITY. NULL: none.
    pub sink: *const f32,
    /// The floats from the bias of a query head to that of the next. 0: one bias for all heads.
    pub bias_head_stride: usize,
    /// The bytes from the keep of a query head to that of the next. 0: one keep for all heads.
    pub keep_head_stride: usize,
    /// Linear biases (ALiBi): one slope per query head, from -2^97 to 2^97; a score s becomes
    /// s - slope * |position of the query - position of the key|. The distance is rounded to a float,
    /// exact up to 2^24, and counts up to 2^30. NULL: none.
    pub slopes: *const f32,
    /// Kept keys (attention sinks): keys at positions less than keep_first are visible before the window
    /// too. 0: none. Over a cache 0, or as many as sdpa_cache_keep_first has set: else
    /// SDPA_ERROR_OPTION. 0 on microcontrollers, but for a library that was made with FEATURES=keep-first.
    pub keep_first: usize,
}

/// Returns the span of one element, or an empty span if the pointer is NULL.
fn optional<T>(element: *const T) -> Checked<Span> {
    array(element, usize::from(!element.is_null()))
}

// Not inlined on microcontrollers, so that the stack frames of their callers stay small.

#[cfg_attr(microcontroller, inline(never))]
#[cfg_attr(not(microcontroller), inline(always))]
fn check_array<T>(outputs: &[Region<'_>], first: *const T, len: usize) -> Checked<()> {
    check_disjoint(outputs, array(first, len)?)
}

#[cfg_attr(microcontroller, inline(never))]
#[cfg_attr(not(microcontroller), inline(always))]
fn check_mask(outputs: &[Region<'_>], mask: &impl Strided) -> Checked<()> {
    check_disjoint(outputs, mask.region()?)
}

/// A mask: heads x keys x queries, with one head for all query heads or one each.
struct Mask<T> {
    first: *const T,
    counts: [usize; 3],
    strides: [usize; 3],
}

impl<T> Strided for Mask<T> {
    type Element = T;

    fn first(&self) -> *const T {
        self.first
    }

    fn counts(&self) -> [usize; 3] {
        self.counts
    }

    fn strides(&self) -> [usize; 3] {
        self.strides
    }
}

impl<T: Copy> Mask<T> {
    /// A mask of this shape and these strides; without a head stride the same for all of `heads`, and without
    /// elements if `first` is NULL.
    #[inline(always)]
    fn new(
        first: *const T,
        heads: usize,
        [rows, cols]: [usize; 2],
        [head_stride, row_stride, col_stride]: [usize; 3],
    ) -> Self {
        let heads = if head_stride == 0 { 1 } else { heads };
        let counts = if first.is_null() { [0; 3] } else { [heads, rows, cols] };
        let [row_stride, col_stride] = strides(cols, row_stride, col_stride);
        Self { first, counts, strides: [head_stride, row_stride, col_stride] }
    }

    /// # Safety
    ///
    /// As [`sdpa_matrix::view`].
    #[inline(always)]
    unsafe fn view<'a>(&self) -> HeadsRef<'a, T> {
        // SAFETY: as the caller promises.
        unsafe { HeadsRef::from_checked_parts(self.first, self.counts, self.strides) }
    }
}

/// Whether calls may keep their first keys.
const KEEPS_FIRST: bool = cfg!(any(not(microcontroller), feature = "keep-first"));

impl sdpa_options {
    #[inline(always)]
    pub(crate) fn has_valid_flags(&self) -> bool {
        let has_window = self.window_left != 0 || self.window_right != 0;
        self.flags & !(SDPA_CAUSAL | SDPA_WINDOW) == 0
            && (!has_window || self.flags & SDPA_WINDOW != 0)
            && (KEEPS_FIRST || self.keep_first == 0)
    }

    /// Sets the options that are numbers and need no code of their own.
    #[inline(always)]
    pub(crate) fn read_numbers(&self, attention: &mut Attention<'_>) {
        // Causal is a window that ends at the query's position.
        let has = |flag| self.flags & flag != 0;
        let (left, right) = (self.window_left, self.window_right);
        let [left, right] = if has(SDPA_WINDOW) { [left, right] } else { [usize::MAX; 2] };
        let right = if has(SDPA_CAUSAL) { 0 } else { right };
        if KEEPS_FIRST {
            *attention = attention.keep_first(self.keep_first);
        }
        *attention = attention.window(left, right).query_offset(self.query_offset);
        if self.scale != 0.0 {
            *attention = attention.scale(self.scale);
        }
    }

    /// Returns the additive mask of `heads` heads.
    #[inline(always)]
    fn bias(&self, heads: usize) -> Mask<f32> {
        let sdpa_matrix { data, rows, cols, row_stride, col_stride } = self.bias;
        Mask::new(data, heads, [rows, cols], [self.bias_head_stride, row_stride, col_stride])
    }

    /// Returns the boolean mask of `heads` heads for score grids of shape `grid`.
    #[inline(always)]
    fn keep(&self, heads: usize, grid: [usize; 2]) -> Mask<u8> {
        let Self { keep_head_stride, keep_row_stride, keep_col_stride, .. } = *self;
        Mask::new(self.keep, heads, grid, [keep_head_stride, keep_row_stride, keep_col_stride])
    }
}

/// Fails if options are set that need code of their own.
///
/// # Safety
///
/// What `options` points to may be read.
pub(crate) unsafe fn check_plain(options: *const sdpa_options) -> Checked<()> {
    optional(options)?;
    // SAFETY: aligned, and as the caller promises.
    let options = unsafe { options.as_ref() };
    let is_plain = options.is_none_or(|options| {
        options.has_valid_flags()
            && options.softcap == 0.0
            && options.bias.data.is_null()
            && options.keep.is_null()
            && options.sink.is_null()
            && options.slopes.is_null()
    });
    if is_plain { Ok(()) } else { Err(Failure(SDPA_ERROR_OPTION)) }
}

/// Whether all calls have passed [`check_plain`], without sinks and log-sum-exps: the code of the other options is
/// then dropped.
pub(crate) const ALL_ARE_PLAIN: bool = cfg!(feature = "plain-heads");

/// The options of a call.
pub(crate) struct Options<'a> {
    options: Option<&'a sdpa_options>,
    /// One float per query head, or NULL.
    sinks: *const f32,
    /// The number of query heads.
    heads: usize,
    /// The shape of the score grid: keys, queries.
    grid: [usize; 2],
}

impl<'a> Options<'a> {
    /// The options of a call with `heads` query heads and a score grid of shape `grid`.
    ///
    /// # Safety
    ///
    /// For `'a` what `options` points to may be read and nobody writes it.
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
    /// As [`new`](Self::new), which has returned `Ok` for the same arguments.
    pub(crate) unsafe fn checked(
        options: *const sdpa_options,
        sinks: *const f32,
        heads: usize,
        grid: [usize; 2],
    ) -> Self {
        // SAFETY: aligned, and as the caller promises.
        Self { options: unsafe { options.as_ref() }, sinks, heads, grid }
    }

    /// The number of floats of an array that has one per query head, or is NULL.
    fn per_head(&self, array: *const f32) -> usize {
        if array.is_null() { 0 } else { self.heads }
    }

    /// Fails if the options are invalid, or if an output overlaps the options or anything they point to.
    #[inline(always)]
    pub(crate) fn check(&self, outputs: &[Region<'_>]) -> Checked<()> {
        let Self { sinks, heads, .. } = *self;
        if !ALL_ARE_PLAIN {
            check_array(outputs, sinks, self.per_head(sinks))?;
        }
        let Some(options) = self.options else { return Ok(()) };
        check_array(outputs, options, 1)?;
        if ALL_ARE_PLAIN {
            return Ok(());
        }
        if !options.has_valid_flags() || !(options.sink.is_null() || sinks.is_null()) {
            return Err(Failure(SDPA_ERROR_OPTION));
        }
        if !options.bias.data.is_null() {
            check_mask(outputs, &options.bias(heads))?;
        }
        if !options.keep.is_null() {
            check_mask(outputs, &options.keep(heads, self.grid))?;
        }
        check_array(outputs, options.slopes, self.per_head(options.slopes))?;
        check_array(outputs, options.sink, usize::from(!options.sink.is_null()))
    }

    /// [`check`](Self::check) of a call that reads nothing but the sinks.
    pub(crate) fn check_sinks(&self, outputs: &[Region<'_>]) -> Checked<()> {
        let sinks = self.sinks;
        check_array(outputs, sinks, self.per_head(sinks))?;
        let Some(options) = self.options else { return Ok(()) };
        check_array(outputs, options, 1)?;
        if !(options.sink.is_null() || sinks.is_null()) {
            return Err(Failure(SDPA_ERROR_OPTION));
        }
        check_array(outputs, options.sink, usize::from(!options.sink.is_null()))
    }

    /// Returns the status that names the argument of wrong shape: the bias, or the output of shape `out` that
    /// should have shape `want`.
    pub(crate) fn shape_status(&self, want: [usize; 3], out: [usize; 3]) -> sdpa_status {
        let bias = self.options.map(|options| options.bias).filter(|bias| !bias.data.is_null());
        if !ALL_ARE_PLAIN && bias.is_some_and(|bias| bias.shape() != self.grid) {
            SDPA_ERROR_SHAPE_BIAS
        } else if out != want {
            SDPA_ERROR_SHAPE_OUT
        } else {
            SDPA_ERROR_SHAPE
        }
    }

    /// Converts the sinks to options of the crate.
    ///
    /// # Safety
    ///
    /// The sinks have been checked; for `'a` they may be read and nobody writes them.
    #[inline(always)]
    pub(crate) unsafe fn read_sinks(&self, on: Backend) -> Attention<'a> {
        let Self { options, sinks, heads, .. } = *self;
        let mut attention = Attention::new().on(on);
        // SAFETY: as the caller promises.
        let sink = options.and_then(|options| unsafe { options.sink.as_ref() });
        if let Some(&sink) = sink {
            attention = attention.sink(sink);
        }
        if !sinks.is_null() {
            // SAFETY: as the caller promises.
            attention = attention.sinks(unsafe { slice(sinks, heads) });
        }
        attention
    }

    /// Writes the options to those of the crate, which are the defaults: by reference, so that there is one copy of them
    /// on the stack.
    ///
    /// # Safety
    ///
    /// The options have been checked; for `'a` what they point to may be read and nobody writes it.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, on: Backend, attention: &mut Attention<'a>) {
        // Two functions, whose frames are not on the stack at the same time.
        // SAFETY: as the caller promises.
        unsafe {
            self.read_scalars(on, attention);
            self.read_masks(attention);
        }
    }

    /// Writes all but the masks.
    ///
    /// # Safety
    ///
    /// As [`read`](Self::read).
    #[cfg_attr(microcontroller, inline(never))]
    #[cfg_attr(not(microcontroller), inline(always))]
    unsafe fn read_scalars(&self, on: Backend, attention: &mut Attention<'a>) {
        let Self { options, .. } = *self;
        if ALL_ARE_PLAIN {
            *attention = Attention::new().on(on);
            options.iter().for_each(|options| options.read_numbers(attention));
            return;
        }
        // SAFETY: as the caller promises.
        *attention = unsafe { self.read_sinks(on) };
        let Some(options) = options else { return };
        options.read_numbers(attention);
        if options.softcap != 0.0 {
            *attention = attention.softcap(options.softcap);
        }
    }

    /// Writes bias, slopes and keep.
    ///
    /// # Safety
    ///
    /// As [`read`](Self::read).
    #[cfg_attr(microcontroller, inline(never))]
    #[cfg_attr(not(microcontroller), inline(always))]
    unsafe fn read_masks(&self, attention: &mut Attention<'a>) {
        let Self { options: Some(options), heads, grid, .. } = *self else { return };
        if ALL_ARE_PLAIN {
            return;
        }
        if !options.bias.data.is_null() {
            // SAFETY: as the caller promises.
            *attention = attention.bias(unsafe { options.bias(heads).view() });
        }
        if !options.slopes.is_null() {
            // SAFETY: as the caller promises.
            *attention = attention.slopes(unsafe { slice(options.slopes, heads) });
        }
        if !options.keep.is_null() {
            // SAFETY: as the caller promises.
            *attention = attention.keep(unsafe { options.keep(heads, grid).view() });
        }
    }
}
