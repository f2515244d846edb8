//! Floats that begin at a cache line.

#![allow(unsafe_code, reason = "lines as floats")]
#![allow(dead_code, reason = "some programs only write these floats")]

pub(crate) struct Aligned {
    lines: Vec<Line>,
}

#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through a slice of all lines")] [f32; 16]);

impl Aligned {
    /// `n` floats between `-scale / 2` and `scale / 2`; `n` is a multiple of 16.
    pub(crate) fn new(n: usize, scale: f32) -> Self {
        let lines = data(n, scale).as_chunks().0.iter().map(|&line| Line(line)).collect();
        Self { lines }
    }

    pub(crate) fn floats(&self) -> &[f32] {
        let first = self.lines.as_ptr().cast();
        // SAFETY: a `Line` is 16 floats without padding, and they lie side by side.
        unsafe { core::slice::from_raw_parts(first, 16 * self.lines.len()) }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        let first = self.lines.as_mut_ptr().cast();
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(first, 16 * self.lines.len()) }
    }
}

/// Floats between `-scale / 2` and `scale / 2`.
fn data(n: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / 16_777_216.0 - 0.5) * scale
    };
    (0..n).map(|_| next()).collect()
}
