//! `dot` of two slices that end at the end of their allocations.

use super::{check_sum, input::Input, on_all};
use crate::common::{bounds, grid::Grid, oracle};

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let n = input.length();
    let starts = [0; 2].map(|_| usize::from(input.u8()) % 4);
    let [a, b] = starts.map(|start| [vec![f32::NAN; start], input.values(n)].concat());
    let (a, b) = (&a[starts[0]..], &b[starts[1]..]);

    let one = |value| Grid { rows: 1, cols: 1, data: vec![value] };
    let families = on_all(
        &format!("dot of {n}"),
        |reference| one(reference.dot(a, b)),
        |backend| one(backend.dot(a, b).expect("equal lengths")),
    );
    for (family, got) in families {
        check_sum(&bounds::DOT, family, n, got.data[0], oracle::dot(a, b));
    }
}
