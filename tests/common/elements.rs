//! Matrices of each type of element, and what the tests know of the types.

use sdpa::{Bf16, Element, ElementsRef, F16, HeadsRef, I8, MatrixRef, narrow};

use super::{
    cases::{Kind, Rng},
    grid::Grid,
};

/// A matrix of elements, its scales, and the floats that it is widened to.
pub(crate) struct Elements<E: Element> {
    pub(crate) data: Vec<E>,
    pub(crate) scales: Vec<E::Scale>,
    /// Without scales.
    pub(crate) widened: Grid,
}

/// What the tests know of an element.
pub(crate) trait Tested: Element {
    const HAS_NAN: bool;

    /// The exact value, without a scale.
    fn widen(self) -> f32;

    fn with_scales<'a>(of: HeadsRef<'a, Self>, scales: &'a [Self::Scale]) -> ElementsRef<'a, Self>;

    fn floats(scales: &[Self::Scale]) -> Option<&[f32]>;

    fn room(rows: usize) -> Vec<Self::Scale>;

    /// Floats near these that elements represent, ±∞ for those beyond their range; with scales that are powers of two, so
    /// that a score or weight that is multiplied by one has the bits of that of the floats. `None` if there are none.
    fn near(floats: &Grid) -> Option<Grid>;
}

macro_rules! tested {
    ($($element:ty, $widen:expr, $round:expr;)+) => {
        $(impl Tested for $element {
            const HAS_NAN: bool = true;

            fn widen(self) -> f32 {
                $widen(self)
            }

            fn with_scales<'a>(of: HeadsRef<'a, Self>, _: &'a [()]) -> ElementsRef<'a, Self> {
                of.into()
            }

            fn floats(_: &[()]) -> Option<&[f32]> {
                None
            }

            fn room(_: usize) -> Vec<()> {
                Vec::new()
            }

            fn near(floats: &Grid) -> Option<Grid> {
                let data = floats.data.iter().map(|&x| $widen($round(x))).collect();
                Some(Grid { data, ..*floats })
            }
        })+
    };
}
tested! {
    f32, |x| x, |x| x;
    F16, F16::to_f32, F16::from_f32;
    Bf16, Bf16::to_f32, Bf16::from_f32;
}

impl Tested for I8 {
    const HAS_NAN: bool = false;

    fn widen(self) -> f32 {
        self.get().into()
    }

    fn with_scales<'a>(of: HeadsRef<'a, Self>, scales: &'a [f32]) -> ElementsRef<'a, Self> {
        let scales = MatrixRef::new(scales, of.heads(), of.rows()).unwrap();
        ElementsRef::with_scales(of, scales).unwrap()
    }

    fn floats(scales: &[f32]) -> Option<&[f32]> {
        Some(scales)
    }

    fn room(rows: usize) -> Vec<f32> {
        vec![0.0; rows]
    }

    fn near(floats: &Grid) -> Option<Grid> {
        let mut near = floats.clone();
        for row in near.data.chunks_mut(floats.cols.max(1)) {
            let largest = row.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            if row.iter().any(|x| !x.is_finite())
                || (largest > 0.0 && !(1e-9..1e9).contains(&largest))
            {
                return None;
            }
            let scale = (largest / 127.0).log2().ceil().exp2();
            for x in row {
                // The largest is 127 · scale: its scale is found again.
                let whole =
                    if x.abs() == largest { x.signum() * 127.0 } else { (*x / scale).round() };
                *x = if largest == 0.0 { 0.0 } else { whole * scale };
            }
        }
        Some(near)
    }
}

impl<E: Tested> Elements<E> {
    /// The nearest elements to some floats.
    pub(crate) fn of(floats: &Grid) -> Self {
        let mut data = vec![E::ZERO; floats.data.len()];
        let mut scales = E::room(floats.rows);
        narrow(floats.view(), &mut data, &mut scales).unwrap();
        let (rows, cols) = (floats.rows, floats.cols);
        let widened = Grid { rows, cols, data: data.iter().map(|x| x.widen()).collect() };
        Self { data, scales, widened }
    }

    pub(crate) fn random(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let kind = rng.pick(&[Kind::Ordinary, Kind::Ordinary, Kind::Wide]);
        let mut floats = Grid::random(rng, kind, rows, cols);
        if rng.one_in(4) {
            floats.data.iter_mut().for_each(|x| *x *= 1e-5); // subnormals of F16
        }
        Self::of(&floats)
    }

    pub(crate) fn matrix(&self) -> MatrixRef<'_, E> {
        MatrixRef::new(&self.data, self.widened.rows, self.widened.cols).unwrap()
    }

    /// The rows as heads of `rows` rows.
    pub(crate) fn heads(&self, heads: usize) -> ElementsRef<'_, E> {
        let (rows, cols) = (self.widened.rows / heads, self.widened.cols);
        E::with_scales(HeadsRef::stacked(&self.data, heads, rows, cols).unwrap(), &self.scales)
    }
}
