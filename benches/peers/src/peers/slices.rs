//! Dot products of two slices.

use super::Library;
use crate::jobs::Along;

/// What one writes first.
pub(super) struct Iterator;

impl Library for Iterator {
    fn name() -> String {
        "iterator".into()
    }

    fn dot() -> Option<impl FnMut(&[f32], &[f32]) -> f32 + 'static> {
        Some(|a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum())
    }

    fn softmax(
        [_, cols]: [usize; 2],
        along: Along,
    ) -> Option<impl FnMut(&[f32], &mut [f32]) + 'static> {
        let rows = |x: &[f32], out: &mut [f32]| {
            let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - most).exp());
            let factor = 1.0 / out.iter().sum::<f32>();
            out.iter_mut().for_each(|out| *out *= factor);
        };
        (along == Along::Rows).then_some(move |x: &[f32], out: &mut [f32]| {
            x.chunks(cols).zip(out.chunks_mut(cols)).for_each(|(x, out)| rows(x, out));
        })
    }
}

/// It adds up in f64.
pub(super) struct SimSimd;

impl Library for SimSimd {
    fn name() -> String {
        "simsimd".into()
    }

    fn dot() -> Option<impl FnMut(&[f32], &[f32]) -> f32 + 'static> {
        Some(|a: &[f32], b: &[f32]| {
            <f32 as simsimd::SpatialSimilarity>::dot(a, b).unwrap_or(f64::NAN) as f32
        })
    }
}
