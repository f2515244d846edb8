//! Neither keys nor values of blocks that no query sees are read. Their memory has never been touched: Linux
//! maps a page when it is first read, and reports afterwards which pages are mapped. For Linux with pages of
//! 4 KiB; on every back end.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::{fs::File, os::unix::fs::FileExt};

use crate::common::grid::Grid;
use sdpa::{Attention, Backend, CachePositions, KEY_BLOCK, KvCacheMut, KvCacheRef, MatrixRef};

suite! {
    all_are_read_without_a_mask,
    causal_reads_what_came_before,
    a_window_reads_its_width,
    keep_and_bias_hide_blocks,
    a_cache_reads_what_a_window_shows,
}

/// A block is 8 MiB, so that even a huge page in its third quarter has nothing of another block, nor of its rows before 15.
const DIM: usize = 32_768;
const BLOCKS: usize = 6;
const KEYS: usize = BLOCKS * KEY_BLOCK;

/// Keys and values in untouched memory.
struct Memory {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Memory {
    fn new() -> Self {
        // At this size the allocator maps fresh zero pages instead of writing zeros.
        Self { keys: vec![0.0; KEYS * DIM], values: vec![0.0; KEYS * DIM] }
    }

    /// Returns the blocks of the keys and of the values with a mapped page in their third quarter: rows 32 to 47.
    fn read(&self) -> [Vec<usize>; 2] {
        [&self.keys, &self.values].map(|floats| {
            let quarter = KEY_BLOCK * DIM / 4;
            let third = |block: usize| &floats[(4 * block + 2) * quarter..][..quarter];
            (0..BLOCKS).filter(|&block| is_mapped(third(block))).collect()
        })
    }

    #[track_caller]
    fn assert_read(&self, want: &[usize]) {
        let [keys, values] = self.read();
        assert_eq!((&keys[..], &values[..]), (want, want));
    }

    /// Attends with queries of zeros, so that all scores are 0.
    #[track_caller]
    fn attend(backend: Backend, attention: Attention<'_>, tokens: usize) -> Self {
        let memory = Self::new();
        memory.assert_read(&[]);
        let keys = MatrixRef::new(&memory.keys, KEYS, DIM).unwrap();
        let values = MatrixRef::new(&memory.values, KEYS, DIM).unwrap();
        let (queries, mut out) = (Grid::zeros(tokens, DIM), Grid::zeros(tokens, DIM));
        let mut workspace = vec![0.0; Attention::workspace(DIM, DIM)];
        let into = out.view_mut();
        attention.on(backend).run(queries.view(), keys, values, into, &mut workspace).unwrap();
        memory
    }
}

const PAGE: usize = 4096;

/// Whether a page of the slice is mapped: bit 63 of its entry, 8 bytes per page
/// (Documentation/admin-guide/mm/pagemap.rst).
fn is_mapped(floats: &[f32]) -> bool {
    let file = File::open("/proc/self/pagemap").expect("Linux tells every process");
    let first = floats.as_ptr() as usize / PAGE;
    let mut entries = vec![0; size_of_val(floats) / PAGE * 8];
    file.read_exact_at(&mut entries, first as u64 * 8).expect("an entry a page");
    entries.as_chunks().0.iter().any(|&entry| u64::from_ne_bytes(entry) >> 63 == 1)
}

/// The negative case: reads are detected.
fn all_are_read_without_a_mask(backend: Backend) {
    let memory = Memory::attend(backend, Attention::new(), 1);
    memory.assert_read(&[0, 1, 2, 3, 4, 5]);
}

/// Nor rows after the last visible one.
fn causal_reads_what_came_before(backend: Backend) {
    for (offset, want) in [
        (-1, &[][..]),
        (14, &[]),
        (32, &[0]),
        (2 * 64 - 1, &[0, 1]),
        (2 * 64 + 14, &[0, 1]),
        (2 * 64 + 32, &[0, 1, 2]),
    ] {
        let attention = Attention::new().causal().query_offset(offset);
        Memory::attend(backend, attention, 1).assert_read(want);
    }
    for (offset, want) in [(64 + 13, &[0][..]), (64 + 31, &[0, 1])] {
        let attention = Attention::new().causal().query_offset(offset);
        Memory::attend(backend, attention, 2).assert_read(want);
    }
}

fn a_window_reads_its_width(backend: Backend) {
    for (left, right, want) in [
        (0, 0, &[3][..]),
        (41, 0, &[2, 3]),
        (40, 0, &[3]),
        (0, 23 + 15, &[3]),
        (0, 23 + 33, &[3, 4]),
    ] {
        let attention = Attention::new().window(left, right).query_offset(3 * 64 + 40);
        Memory::attend(backend, attention, 1).assert_read(want);
    }
    let far = Attention::new().window(9, 9).query_offset(100_000);
    Memory::attend(backend, far, 2).assert_read(&[]);
}

fn keep_and_bias_hide_blocks(backend: Backend) {
    for seen in [&[][..], &[0], &[2, 5], &[4]] {
        let is_seen = |key: usize| seen.contains(&(key / KEY_BLOCK)) && key % KEY_BLOCK == 33;
        let keep: Vec<u8> = (0..KEYS).map(|key| u8::from(is_seen(key))).collect();
        let keep = MatrixRef::with_strides(&keep, KEYS, 2, 1, 0).unwrap();
        Memory::attend(backend, Attention::new().keep(keep), 2).assert_read(seen);
        let bias =
            Grid::from_fn(KEYS, 1, |key, _| if is_seen(key) { 0.0 } else { f32::NEG_INFINITY });
        Memory::attend(backend, Attention::new().bias(bias.view()), 1).assert_read(seen);
    }
}

fn a_cache_reads_what_a_window_shows(backend: Backend) {
    // Positions of that many keys, some dropped, over untouched storage.
    let (mut keys, mut values) = (vec![0.0; KEYS], vec![0.0; KEYS]);
    let mut span = CachePositions::default();
    let mut small = KvCacheMut::new(&mut keys, &mut values, 1, 1, &mut span).unwrap();
    let all = Grid::zeros(KEYS, 1);
    small.append(all.view(), all.view()).unwrap();
    small.slide(KEYS - 70);
    for (attention, want) in [
        (Attention::new(), &[1, 2, 3, 4, 5][..]),
        (Attention::new().causal().window(63, 0), &[5]),
        (Attention::new().causal().window(64, 0), &[4, 5]),
        (Attention::new().causal().query_offset(-3 * 64), &[1, 2]),
    ] {
        let memory = Memory::new();
        let cache = KvCacheRef::new(&memory.keys, &memory.values, DIM, DIM, span).unwrap();
        let (query, mut out) = (Grid::zeros(1, DIM), Grid::zeros(1, DIM));
        let mut workspace = vec![0.0; Attention::workspace(DIM, DIM)];
        let into = out.view_mut();
        cache.attend(&attention.on(backend), query.view(), into, &mut workspace).unwrap();
        memory.assert_read(want);
    }
}
