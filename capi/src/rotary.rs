//! Rotary position embedding.

use sdpa::{Backend, Pairs, RotaryTable};

use crate::{
    library::{backend_of, operation, sdpa_backend_t},
    region::{Strided, array, check_disjoint},
    status::{
        Checked, Failure, SDPA_ERROR_OPTION, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_OUT,
        SDPA_ERROR_SHAPE_TABLE, SDPA_ERROR_SHAPE_X, sdpa_status, status,
    },
    views::{
        Operand, Out, Output, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, slice, slice_mut,
    },
};

/// The columns of a pair: columns i and pairs + i (GPT-NeoX; Llama in the checkpoints of Hugging Face).
pub const SDPA_HALVES: u32 = 0;
/// The columns of a pair: columns 2 * i and 2 * i + 1 (GPT-J; Llama in those of Meta).
pub const SDPA_INTERLEAVED: u32 = 1;

/// The cosines and sines of a rotary position embedding, each positions x pairs: those that
/// sdpa_rotary_init computes, or the caller's own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sdpa_rotary {
    /// A row for each position, a column for each pair.
    pub cosines: sdpa_matrix,
    /// Of the same shape.
    pub sines: sdpa_matrix,
    /// The position of the first row.
    pub first: u64,
}

/// Returns the number of floats of storage that a table needs: 2 * positions * pairs; SIZE_MAX if the number
/// overflows.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_rotary_floats(positions: usize, pairs: usize) -> usize {
    RotaryTable::floats(positions, pairs)
}

/// Computes the cosines and sines of the angles p * frequency[i] of positions p = first, first + 1, ... and
/// pairs i, in double, rounded once, and sets table to view them in storage. frequencies: pairs floats in
/// radians per position, and base 0; or NULL for those of the paper, pow(base, -i / pairs), with a base of
/// 1 or more, such as 10000. storage: at least sdpa_rotary_floats(positions, pairs) floats of any content;
/// storage_len counts floats. The storage must live as long as the table. SDPA_ERROR_POSITION if the
/// positions end beyond 2^53. There is nothing to free.
///
/// Overlap: table and storage must not overlap frequencies or each other. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_rotary_init(
    table: *mut sdpa_rotary,
    base: f64,
    frequencies: *const f32,
    pairs: usize,
    first: u64,
    positions: usize,
    storage: *mut f32,
    storage_len: usize,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let outputs = [
            array(table.cast_const(), 1)?.into(),
            array(storage.cast_const(), storage_len)?.into(),
        ];
        check_disjoint(&outputs[..1], array(storage.cast_const(), storage_len)?)?;
        let given = !frequencies.is_null();
        check_disjoint(&outputs, array(frequencies, if given { pairs } else { 0 })?)?;
        if given && base != 0.0 {
            return Err(Failure(SDPA_ERROR_OPTION));
        }
        let end = first.saturating_add(positions as u64);
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        let (memory, frequencies) = unsafe {
            (slice_mut(storage, storage_len), slice(frequencies, if given { pairs } else { 0 }))
        };
        let made = if given {
            RotaryTable::with_frequencies(frequencies, first..end, memory)
        } else {
            RotaryTable::new(base, pairs, first..end, memory)
        };
        made.map_err(|error| Failure::of(error, || SDPA_ERROR_SHAPE_TABLE))?;
        let of = |data: *const f32| sdpa_matrix {
            data,
            rows: positions,
            cols: pairs,
            row_stride: pairs.wrapping_mul(2),
            col_stride: 1,
        };
        let (cosines, sines) = (of(storage), of(storage.wrapping_add(pairs)));
        // SAFETY: aligned, not NULL, and as the caller promises.
        unsafe { table.write(sdpa_rotary { cosines, sines, first }) };
        Ok(())
    };
    status(call())
}

operation! {
    /// Applies a rotary position embedding (RoPE) to queries or keys: each pair (a, b) of columns of a row
    /// becomes (a * cos - b * sin, b * cos + a * sin), with the angle of the row's position in table. x and
    /// out: heads x tokens x dim; the first token is at position, each token at the next one
    /// (SDPA_ERROR_POSITION if table lacks one). pairs: SDPA_HALVES or SDPA_INTERLEAVED. The first
    /// 2 * table->cosines.cols columns are pairs; the rest is copied.
    ///
    /// Overlap: out may be x itself (same data, shape and strides; in place); otherwise it must not overlap
    /// x. It must not overlap the table. On failure out is unchanged.
    fn sdpa_rotate, sdpa_rotate_on(
        on, x: sdpa_heads, table: *const sdpa_rotary, position: u64, pairs: u32, out: sdpa_heads_mut,
    ) {
        let call = RotateCall { x, table, position, pairs };
        let mut out = Slot::new(out);
        // SAFETY: as the caller promises; `check` comes before `run`.
        unsafe {
            let in_place = call.check(&out)?;
            call.run(on, in_place, &mut out)
        }
    }
}

/// The arguments of `sdpa_rotate` but the output.
struct RotateCall {
    x: sdpa_heads,
    table: *const sdpa_rotary,
    position: u64,
    pairs: u32,
}

// As in attention.rs: never both frames.

impl RotateCall {
    /// Returns whether the output is the input.
    ///
    /// # Safety
    ///
    /// As the caller of the library promises; the view of `out` has not been made.
    #[inline(never)]
    unsafe fn check(&self, out: &Out<'_>) -> Checked<bool> {
        // SAFETY: as the caller promises.
        let out = unsafe { out.raw() };
        let outputs = [out.output()?];
        let in_place = out.is_same_view(&self.x);
        let x = self.x.operand()?;
        if !in_place {
            check_disjoint(&outputs, x)?;
        }
        check_disjoint(&outputs, array(self.table, 1)?)?;
        // SAFETY: aligned, not NULL, and as the caller promises.
        let sdpa_rotary { cosines, sines, .. } = unsafe { &*self.table };
        check_disjoint(&outputs, cosines.operand()?)?;
        check_disjoint(&outputs, sines.operand()?)?;
        if self.pairs > SDPA_INTERLEAVED {
            return Err(Failure(SDPA_ERROR_OPTION));
        }
        Ok(in_place)
    }

    /// # Safety
    ///
    /// [`check`](Self::check) has returned `Ok(in_place)`, and as the caller of the library promises.
    #[inline(never)]
    unsafe fn run(&self, on: Backend, in_place: bool, out: &mut Out<'_>) -> Checked<()> {
        // SAFETY: as the caller promises.
        let (table, sizes) = unsafe { (&*self.table, out.raw().counts()) };
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        let (cosines, sines) = unsafe { (table.cosines.view(), table.sines.view()) };
        let made = RotaryTable::from_parts(cosines, sines, table.first);
        let made = made.map_err(|error| Failure::of(error, || SDPA_ERROR_SHAPE_TABLE))?;
        let mut x = Slot::new(self.x);
        // SAFETY: as the caller promises; if the output is the input, the latter's view is not made.
        let (x, out) = unsafe {
            out.make_view();
            if !in_place {
                x.make_view();
            }
            ((!in_place).then(|| x.view()), out.view_mut())
        };
        let pairs = if self.pairs == SDPA_INTERLEAVED { Pairs::Interleaved } else { Pairs::Halves };
        let shape_status = || {
            if self.x.cols / 2 < table.cosines.cols {
                SDPA_ERROR_SHAPE_X
            } else if self.x.counts() != sizes {
                SDPA_ERROR_SHAPE_OUT
            } else {
                SDPA_ERROR_SHAPE
            }
        };
        on.rotate_views(x, &made, self.position, pairs, out)
            .map_err(|error| Failure::of(error, shape_status))
    }
}
