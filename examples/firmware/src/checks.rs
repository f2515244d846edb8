//! Checks of every frame.

use sdpa::{Attention, Error, MatrixMut, MatrixRef};

use crate::{
    WINDOW, WORKSPACE,
    microphone::{BANDS, Sound, sound},
};

/// The reason why the run ends.
pub enum Fault {
    Refused(Error),
    Bits,
    Sum,
    Mixture,
    Memory,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Refused(error) => return error.fmt(f),
            Self::Bits => "the cache and a plain call over all frames differ",
            Self::Sum => "the weights do not sum to 1",
            Self::Mixture => "the output is not the sum of the values under the weights",
            Self::Memory => "a sound does not attend to itself as it was heard before",
        })
    }
}

/// Checks that the plain call over all frames so far, under the same masks, has the bits of the cache.
pub fn same_bits(
    attention: &Attention<'_>,
    frames: &[[f32; BANDS]],
    output: &[f32; BANDS],
    workspace: &mut [f32; WORKSPACE],
) -> Result<(), Fault> {
    let newest = frames.len() - 1;
    let query = MatrixRef::from(&frames[newest..]);
    let frames = MatrixRef::from(frames);
    let mut plain = [0.0; BANDS];
    attention.query_offset(newest as isize).run(
        query,
        frames,
        frames,
        MatrixMut::from_row(&mut plain),
        workspace,
    )?;
    (plain.map(f32::to_bits) == output.map(f32::to_bits)).then_some(()).ok_or(Fault::Bits)
}

/// Checks that the weights sum to 1, and that the output is the weighted sum of the values.
pub fn sums(weights: &[f32], values: &[[f32; BANDS]], output: &[f32; BANDS]) -> Result<(), Fault> {
    // Each weight is within 6 ULP, in the pattern and in the output; each sum rounds once per frame.
    const BOUND: f32 = (12 + WINDOW) as f32 * f32::EPSILON;
    if (weights.iter().sum::<f32>() - 1.0).abs() > BOUND {
        return Err(Fault::Sum);
    }
    for (band, output) in output.iter().enumerate() {
        let sum: f32 = weights.iter().zip(values).map(|(weight, value)| weight * value[band]).sum();
        if (output - sum).abs() > BOUND * sum {
            return Err(Fault::Mixture);
        }
    }
    Ok(())
}

/// Checks that a sound attends to its own kind: to earlier frames of it as much as to itself.
pub fn remembers(first: usize, weights: &[f32]) -> Result<(), Fault> {
    let newest = first + weights.len() - 1;
    if sound(newest) == Sound::Silence {
        return Ok(());
    }
    let (mut own, mut before, mut heard_before) = (0.0, 0.0, false);
    for (frame, weight) in (first..).zip(weights) {
        if sound(frame) == sound(newest) {
            own += weight;
            if frame < newest {
                (before, heard_before) = (before + weight, true);
            }
        }
    }
    // With one earlier frame, each has half of the weight.
    let remembers = own > 0.9 && (!heard_before || before > 0.4);
    remembers.then_some(()).ok_or(Fault::Memory)
}
