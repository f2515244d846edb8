//! A microcontroller that listens, and compares each sound with the sounds just before.
//!
//! ```text
//! samples ──filters──▶ power in each band = query, key and value of the frame
//!                      key, value ──▶ KvCache ◀── query of the newest frame
//! ```
//!
//! It prints one line per frame: the attention weights over the last 48 frames, newest at the right;
//! the loudest band in the output; and a hash of the output's bits, which must be the same for a
//! build in C, another compiler or another core. Each frame is checked.

#![no_std]
#![no_main]

mod checks;
mod microphone;

use cortex_m_rt::entry;
use sdpa::{Attention, KEY_BLOCK, KvCache, MatrixMut, MatrixRef};
use semihosting::{print, println, process};

use checks::Fault;
use microphone::{BANDS, FRAMES, Microphone, powers};

/// The number of frames that a query sees, including its own.
const WINDOW: usize = 48;

/// Enough blocks to append a frame before the oldest frame of its window is dropped.
const BLOCKS: usize = WINDOW.div_ceil(KEY_BLOCK) + 1;

/// The scale with which a tone attends to its own kind about `e^13` times as much as to silence.
const SCALE: f32 = 16.0;

const WORKSPACE: usize = Attention::workspace(BANDS, BANDS);

/// All memory except the stack.
struct Memory {
    cache: KvCache<BANDS, BANDS, BLOCKS>,
    workspace: [f32; WORKSPACE],
    /// Every frame, for the checks and the picture; the cache does not need it.
    frames: [[f32; BANDS]; FRAMES],
}

impl Memory {
    const NEW: Self =
        Self { cache: KvCache::new(), workspace: [0.0; WORKSPACE], frames: [[0.0; BANDS]; FRAMES] };
}

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory = Memory::NEW;
    match listen(MEMORY) {
        Ok(()) => process::exit(0),
        Err(fault) => {
            println!("FAILED: {fault}");
            process::exit(1)
        }
    }
}

fn listen(memory: &mut Memory) -> Result<(), Fault> {
    let Memory { cache, workspace, frames } = memory;
    let attention = Attention::new().scale(SCALE).causal().window(WINDOW - 1, 0);
    let mut microphone = Microphone::NEW;
    for newest in 0..FRAMES {
        frames[newest] = powers(&microphone.record(newest))?;
        let frame = MatrixRef::from_row(&frames[newest]);
        let mut output = [0.0; BANDS];
        cache.append(frame, frame)?;
        cache.attend(&attention, frame, MatrixMut::from_row(&mut output), workspace)?;
        cache.slide(WINDOW - 1);
        if cfg!(feature = "wrong") && newest == FRAMES / 2 {
            output[0] = f32::from_bits(output[0].to_bits() ^ 1);
        }

        // The cache does not return weights: these come from `pattern`.
        let first = (newest + 1).saturating_sub(WINDOW);
        let seen = &frames[first..=newest];
        let mut pattern = [0.0; WINDOW];
        let weights = &mut pattern[..seen.len()];
        let column = MatrixMut::new(weights, seen.len(), 1)?;
        Attention::new().scale(SCALE).pattern(frame, MatrixRef::from(seen), column)?;
        print_line(newest, weights, &output);

        checks::same_bits(&attention, &frames[..=newest], &output, workspace)?;
        checks::sums(weights, seen, &output)?;
        checks::remembers(first, weights)?;
    }
    Ok(())
}

fn print_line(newest: usize, weights: &[f32], output: &[f32; BANDS]) {
    print!("{newest:3} |{:1$}", "", WINDOW - weights.len());
    weights.iter().for_each(|weight| print!("{}", shade(weight * weights.len() as f32)));
    let loudest = (1..BANDS).fold(0, |a, b| if output[b] > output[a] { b } else { a });
    let percent = (100.0 * output[loudest]) as u32;
    println!("| band {loudest:2} {percent:3} % {:08x}", hash(output));
}

/// The character for a weight, relative to the average weight.
fn shade(weight: f32) -> char {
    match weight {
        ..0.5 => ' ',
        ..2.0 => '.',
        ..6.0 => ':',
        ..18.0 => '+',
        _ => '#',
    }
}

/// FNV-1a, 32 bits at a time.
fn hash(output: &[f32; BANDS]) -> u32 {
    output.iter().fold(0x811c_9dc5, |hash: u32, x| (hash ^ x.to_bits()).wrapping_mul(0x0100_0193))
}
