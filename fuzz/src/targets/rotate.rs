//! Rotary position embedding: tables, and rows of any layout, with canaries around the outputs.

use sdpa::{Error, Pairs, RotaryTable};

use super::{check_sum, input::Input, on_all};
use crate::common::{
    bounds,
    grid::{CANARY, Grid, GuardedMatrix, is_untouched},
    oracle::rotary,
};

/// The frequencies of a table.
enum Frequencies {
    Base(f64),
    Given(Vec<f32>),
}

impl Frequencies {
    fn of(input: &mut Input<'_>, pairs: usize) -> Self {
        match input.u8() % 4 {
            0 => Self::Base(f64::from(input.f32())),
            1 => Self::Base(10_000.0),
            2 => Self::Base(500_000.0),
            _ => Self::Given(input.values(pairs)),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Base(base) => base.is_finite() && *base >= 1.0,
            Self::Given(frequencies) => frequencies.iter().all(|x| x.is_finite()),
        }
    }

    fn table<'a>(
        &self,
        pairs: usize,
        positions: std::ops::Range<u64>,
        memory: &'a mut [f32],
    ) -> Result<RotaryTable<'a>, Error> {
        match self {
            Self::Base(base) => RotaryTable::new(*base, pairs, positions, memory),
            Self::Given(x) => RotaryTable::with_frequencies(x, positions, memory),
        }
    }
}

/// Fuzzes `Backend::rotate` and `Backend::rotate_in_place`.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (tokens, count, behind) = (input.size(), input.size() % 40, usize::from(input.u8()) % 20);
    let flags = input.u8();
    let pairs = if flags & 1 == 0 { Pairs::Halves } else { Pairs::Interleaved };
    let [before, rows] = [input.size() % 5, input.size() % 75];
    let first = match input.u8() % 64 {
        0 => 0,
        bit => (1_u64 << bit) - tokens.min(2) as u64,
    };
    let frequencies = Frequencies::of(&mut input, count);
    let dim = 2 * count + behind - usize::from(flags & 2 > 0 && behind + count > 0);
    let x = input.matrix(tokens, dim);
    let layout = input.output(tokens, dim);

    let mut memory = vec![CANARY; RotaryTable::floats(rows, count) + 3];
    let end = first.saturating_add(rows as u64);
    let table = frequencies.table(count, first..end, &mut memory);
    let expected = match () {
        () if !frequencies.is_valid() => Some(Error::Option),
        () if end > 1 << 53 => Some(Error::Position),
        () if count == 0 => Some(Error::Shape),
        () => None,
    };
    let table = match (table, expected) {
        (Err(error), Some(expected)) => {
            assert_eq!(error, expected);
            return assert!(is_untouched(&memory), "an error wrote");
        }
        (table, _) => table.expect("a valid table"),
    };

    let position = first + before as u64;
    let error = match () {
        () if dim < 2 * count => Some(Error::Shape),
        () if before + tokens > rows => Some(Error::Position),
        () => None,
    };
    let grid = x.grid();
    if let Some(error) = error {
        for backend in sdpa::Backend::available() {
            let mut held = GuardedMatrix::empty(layout);
            let result = backend.rotate(x.view(), &table, position, pairs, held.view_mut());
            assert_eq!(result, Err(error));
            assert_eq!(
                backend.rotate_in_place(held.view_mut(), &table, position, pairs),
                Err(error)
            );
            assert!(is_untouched(&held.checked("rotate").data), "an error wrote");
        }
        return;
    }
    let [cosines, sines] = [table.cosines(), table.sines()]
        .map(|x| Grid::from_fn(tokens, count, |row, pair| x.get(before + row, pair).expect("row")));
    let interleaved = pairs == Pairs::Interleaved;
    let families = on_all(
        &format!("rotate to {layout:?}"),
        |reference| {
            let rows = (0..tokens).flat_map(|row| {
                reference.rotate(grid.row(row), cosines.row(row), sines.row(row), interleaved)
            });
            Grid { rows: tokens, cols: dim, data: rows.collect() }
        },
        |backend| {
            if flags & 4 > 0 {
                let mut held = GuardedMatrix::of(&grid, layout);
                let there = held.view_mut();
                backend.rotate_in_place(there, &table, position, pairs).expect("sizes agree");
                return held.checked("rotate in place");
            }
            let mut held = GuardedMatrix::empty(layout);
            let out = held.view_mut();
            backend.rotate(x.view(), &table, position, pairs, out).expect("sizes agree");
            held.checked("rotate")
        },
    );
    let exact = match &frequencies {
        Frequencies::Base(base) => rotary::frequencies(*base, count),
        Frequencies::Given(x) => x.iter().map(|&x| [f64::from(x), 0.0]).collect(),
    };
    if position + tokens as u64 > 1 << 24 {
        return;
    }
    for (row, i) in (0..tokens).flat_map(|row| (0..count).map(move |i| (row, i))) {
        if exact[i][0].abs() > 1.0 {
            continue;
        }
        let columns = if interleaved { [2 * i, 2 * i + 1] } else { [i, count + i] };
        let angle = rotary::cosine_and_sine(position + row as u64, exact[i]);
        let truth = rotary::rotate(columns.map(|col| grid.at(row, col)), angle);
        for (family, got) in &families {
            for (col, truth) in columns.into_iter().zip(truth) {
                check_sum(&bounds::ROTATE, *family, 1, got.at(row, col), truth);
            }
        }
    }
}
