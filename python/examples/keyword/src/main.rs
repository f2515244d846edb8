//! The board's half of ../fit.py: prints the bits of every output for each golden input.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use sdpa::{Attention, Error, MatrixMut, MatrixRef};
use semihosting::{println, process};

/// What `sdpa.export` has written.
#[allow(dead_code, reason = "the digest and the golden outputs are there too")]
mod weights {
    include!(concat!(env!("KEYWORD_FOLDER"), "/weights.rs"));
}

use weights::{B_KEY, B_OUT, B_VALUE, GOLDEN_FRAMES, QUERIES, W_KEY, W_OUT, W_VALUE};

const FRAMES: usize = GOLDEN_FRAMES.0[0].len();
const DIM: usize = B_KEY.0.len();
const OUT: usize = W_OUT.0.len();
const KEYWORDS: usize = B_OUT.0.len();

#[entry]
fn main() -> ! {
    let failed = GOLDEN_FRAMES.iter().try_for_each(|frames| {
        let (out, scores) = classify(MatrixRef::from(&frames[..]))?;
        out.iter().chain(&scores).for_each(|x| println!("{:08x}", x.to_bits()));
        Ok::<(), Error>(())
    });
    match failed {
        Ok(()) => process::exit(0),
        Err(error) => {
            println!("FAILED: {error}");
            process::exit(1)
        }
    }
}

/// The attention's output and the score of each keyword.
fn classify(frames: MatrixRef<'_>) -> Result<([f32; OUT], [f32; KEYWORDS]), Error> {
    let (mut keys, mut values) = ([[0.0; DIM]; FRAMES], [[0.0; DIM]; FRAMES]);
    let (mut out, mut scores) = ([0.0; OUT], [0.0; KEYWORDS]);
    let mut workspace = [0.0; Attention::workspace(DIM, DIM)];
    sdpa::project(
        frames,
        MatrixRef::from(&W_KEY[..]),
        Some(&B_KEY[..]),
        MatrixMut::from(&mut keys[..]),
    )?;
    sdpa::project(
        frames,
        MatrixRef::from(&W_VALUE[..]),
        Some(&B_VALUE[..]),
        MatrixMut::from(&mut values[..]),
    )?;
    Attention::new().run(
        MatrixRef::from(&QUERIES[..]),
        MatrixRef::from(&keys[..]),
        MatrixRef::from(&values[..]),
        MatrixMut::new(&mut out, QUERIES.len(), DIM)?,
        &mut workspace,
    )?;
    let row = MatrixRef::from_row(&out);
    sdpa::project(
        row,
        MatrixRef::from(&W_OUT[..]),
        Some(&B_OUT[..]),
        MatrixMut::from_row(&mut scores),
    )?;
    Ok((out, scores))
}
