//! The heads of the tests: one grid per head, of any layout in a buffer whose other floats are canaries; and
//! calls whose workspace is surrounded by canaries.

use sdpa::{Attention, Error, HeadsMut, HeadsRef};

use super::{
    cases::Rng,
    elements::Tested,
    grid::{CANARY, Grid, is_untouched},
};

/// The layout of elements `(head, row, col)` in a buffer.
#[derive(Clone, Copy, Debug)]
struct Layout {
    sizes: [usize; 3],
    strides: [usize; 3],
    start: usize,
    len: usize,
}

impl Layout {
    /// Any order of the three axes, such as head after head or token after token; contiguous or with gaps.
    fn random(rng: &mut Rng, sizes: [usize; 3]) -> Self {
        let [first, second, third] = rng.pick(&[
            [0, 1, 2],
            [0, 1, 2],
            [1, 0, 2],
            [1, 0, 2],
            [0, 2, 1],
            [2, 0, 1],
            [2, 1, 0],
            [1, 2, 0],
        ]);
        let mut strides = [0; 3];
        let mut reach = rng.pick(&[1, 1, 1, 2]);
        for axis in [third, second, first] {
            strides[axis] = reach;
            reach = reach * sizes[axis] + rng.pick(&[0, 0, 0, 1, 5]);
        }
        let start = rng.pick(&[0, 0, 1, 3]);
        Self { sizes, strides, start, len: start + reach + 3 }
    }

    fn index(self, head: usize, row: usize, col: usize) -> usize {
        let [h, r, c] = self.strides;
        self.start + head * h + row * r + col * c
    }

    fn indices(self) -> impl Iterator<Item = usize> {
        let [heads, rows, cols] = self.sizes;
        (0..heads * rows * cols)
            .map(move |i| self.index(i / (rows * cols), i / cols % rows, i % cols))
    }
}

/// Heads in a buffer, surrounded by canaries.
#[derive(Clone, Debug)]
pub(crate) struct GuardedHeads {
    layout: Layout,
    buffer: Vec<f32>,
}

impl GuardedHeads {
    /// Copies grids of one shape, one per head, at least one.
    pub(crate) fn of(rng: &mut Rng, grids: &[Grid]) -> Self {
        let Grid { rows, cols, .. } = grids[0];
        let mut held = Self::output(rng, [grids.len(), rows, cols]);
        let elements = grids.iter().flat_map(|grid| &grid.data);
        for (at, &x) in held.layout.indices().zip(elements) {
            held.buffer[at] = x;
        }
        held
    }

    /// An output: the buffer contains canaries only.
    pub(crate) fn output(rng: &mut Rng, sizes: [usize; 3]) -> Self {
        let layout = Layout::random(rng, sizes);
        Self { layout, buffer: vec![CANARY; layout.len] }
    }

    pub(crate) fn view(&self) -> HeadsRef<'_> {
        let Layout { sizes, strides, start, .. } = self.layout;
        HeadsRef::with_strides(&self.buffer[start..], sizes, strides).expect("a layout that fits")
    }

    pub(crate) fn view_mut(&mut self) -> HeadsMut<'_> {
        let Layout { sizes, strides, start, .. } = self.layout;
        HeadsMut::with_strides(&mut self.buffer[start..], sizes, strides)
            .expect("a layout that fits and keeps elements apart")
    }

    /// Returns one grid per head; fails if a float that is no element has been written.
    #[track_caller]
    pub(crate) fn checked(&self, what: &str) -> Vec<Grid> {
        let [heads, rows, cols] = self.layout.sizes;
        let mut rest = self.buffer.clone();
        let elements: Vec<f32> =
            self.layout.indices().map(|at| std::mem::replace(&mut rest[at], CANARY)).collect();
        assert!(is_untouched(&rest), "{what}: wrote outside its elements: {:?}", self.layout);
        (0..heads)
            .map(|head| {
                let data = elements[head * rows * cols..][..rows * cols].to_vec();
                Grid { rows, cols, data }
            })
            .collect()
    }
}

/// A workspace of exactly the required length, filled with NaN and surrounded by canaries.
pub(crate) struct Workspace {
    floats: Vec<f32>,
    len: usize,
}

/// The number of canaries on each side.
const GUARD: usize = 16;

impl Workspace {
    pub(crate) fn new(dim: usize, width: usize) -> Self {
        Self::with_len(Attention::workspace(dim, width))
    }

    /// For keys and values of a type.
    pub(crate) fn of<E: Tested>(dim: usize, width: usize) -> Self {
        Self::with_len(if size_of::<E>() == size_of::<f32>() {
            Attention::workspace(dim, width)
        } else {
            Attention::elements_workspace(dim, width)
        })
    }

    fn with_len(len: usize) -> Self {
        Self { floats: vec![CANARY; len + 2 * GUARD], len }
    }

    pub(crate) fn floats(&mut self) -> &mut [f32] {
        &mut self.floats[GUARD..][..self.len]
    }

    pub(crate) fn is_guarded(&self) -> bool {
        is_untouched(&self.floats[..GUARD]) && is_untouched(&self.floats[GUARD + self.len..])
    }
}

/// Calls with canaries around the outputs and the workspace, and returns the output and the log-sum-exps of
/// each head.
#[track_caller]
pub(crate) fn guarded(
    rng: &mut Rng,
    what: &str,
    sizes: [usize; 4],
    call: impl FnOnce(HeadsMut<'_>, &mut [f32], &mut [f32]) -> Result<(), Error>,
) -> Vec<(Grid, Vec<f32>)> {
    let [.., dim, width] = sizes;
    guarded_in(rng, what, sizes, Workspace::new(dim, width), call)
}

/// [`guarded`] in a given workspace.
#[track_caller]
pub(crate) fn guarded_in(
    rng: &mut Rng,
    what: &str,
    [heads, tokens, _, width]: [usize; 4],
    mut workspace: Workspace,
    call: impl FnOnce(HeadsMut<'_>, &mut [f32], &mut [f32]) -> Result<(), Error>,
) -> Vec<(Grid, Vec<f32>)> {
    let mut out = GuardedHeads::output(rng, [heads, tokens, width]);
    let mut logarithms = vec![CANARY; heads * tokens];
    let result = call(out.view_mut(), &mut logarithms, workspace.floats());
    assert_eq!(result, Ok(()), "{what}");
    assert!(workspace.is_guarded(), "{what}: wrote outside the workspace");
    let grids = out.checked(what);
    (0..heads)
        .zip(grids)
        .map(|(head, grid)| (grid, logarithms[head * tokens..][..tokens].to_vec()))
        .collect()
}
