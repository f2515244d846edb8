//! Calls that are preempted by an interrupt whose handler calls the library too.

use core::{
    cell::UnsafeCell,
    sync::atomic::{
        AtomicU32, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
        compiler_fence,
    },
};

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use sdpa::{Attention, Backend, MatrixMut, MatrixRef};

use crate::{Arena, digest};

/// The length of the softmax in the interrupt, and the ticks between interrupts: a few thousand instructions
/// more than the handler takes.
const SCORES: usize = 13;
const TICKS: u32 = if cfg!(target_abi = "eabihf") { 12_000 } else { 400_000 };

/// The number of preemptions wanted for each kind of call.
const ENOUGH: u32 = 100;

/// The kinds of calls, and the time between calls.
const OPERATIONS: usize = 0;
const ATTENTION: usize = 1;
const NEITHER: usize = 2;

static RUNNING: AtomicUsize = AtomicUsize::new(NEITHER);
/// The number of interrupts during each kind.
static TIMES: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
/// How often the result of the handler had other bits than its first result.
static WRONG: AtomicU32 = AtomicU32::new(0);

/// The memory of the handler; nothing else uses it while the interrupt is enabled.
struct Own(UnsafeCell<[[f32; SCORES]; 3]>);

// SAFETY: used by the interrupt, which does not preempt itself, and before it is enabled.
unsafe impl Sync for Own {}

static OWN: Own = Own(UnsafeCell::new([[0.0; SCORES]; 3]));

/// The interrupt handler.
pub fn interrupt() {
    let times = &TIMES[RUNNING.load(Relaxed)];
    times.store(times.load(Relaxed) + 1, Relaxed);
    // SAFETY: see `Own`.
    let [scores, weights, first] = unsafe { &mut *OWN.0.get() };
    let result = Backend::best().softmax(scores, weights);
    if result.is_err() || !same(weights, first) {
        WRONG.store(WRONG.load(Relaxed) + 1, Relaxed);
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Makes a call that the interrupt counts under its kind.
fn counted<T>(kind: usize, call: impl FnOnce() -> T) -> T {
    RUNNING.store(kind, Relaxed);
    compiler_fence(SeqCst);
    let result = call();
    compiler_fence(SeqCst);
    RUNNING.store(NEITHER, Relaxed);
    result
}

/// Returns the results of some operations.
fn operations(arena: &mut Arena) -> u64 {
    let mut bits = digest::Digest::NEW;
    let Arena { inputs: [a, b, _], output, .. } = arena;
    let keys = MatrixRef::new(a, 20, 64);
    let queries = MatrixRef::new(b, 20, 64);
    let out = MatrixMut::new(output, 20, 20);
    if let (Ok(keys), Ok(queries), Ok(out)) = (keys, queries, out) {
        let result = counted(OPERATIONS, || sdpa::scores(keys, queries, None, out));
        bits.add(f32::from(result.is_err()));
    }
    output[..400].iter().for_each(|&x| bits.add(x));
    let result = counted(OPERATIONS, || sdpa::softmax(&a[..1024], &mut output[..1024]));
    bits.add(f32::from(result.is_err()));
    output[..1024].iter().for_each(|&x| bits.add(x));
    let dot = counted(OPERATIONS, || sdpa::dot(&a[..1024], &b[..1024]));
    bits.add(dot.unwrap_or(f32::NAN));
    bits.finish()
}

/// Returns the result of an attention call: 8 queries, whose windows cover two blocks of keys.
fn attention(arena: &mut Arena) -> u64 {
    let mut bits = digest::Digest::NEW;
    let Arena { inputs: [queries, keys, values], output, .. } = arena;
    let (out, workspace) = output.split_at_mut(8 * 64);
    let queries = MatrixRef::new(queries, 8, 64);
    let (keys, values) = (MatrixRef::new(keys, 72, 64), MatrixRef::new(values, 72, 64));
    let to = MatrixMut::new(out, 8, 64);
    if let (Ok(queries), Ok(keys), Ok(values), Ok(to)) = (queries, keys, values, to) {
        let attention = Attention::new().causal().query_offset(64).window(40, 0);
        let result = counted(ATTENTION, || attention.run(queries, keys, values, to, workspace));
        bits.add(f32::from(result.is_err()));
    }
    out.iter().for_each(|&x| bits.add(x));
    bits.finish()
}

/// Returns the smaller number of preemptions of the two kinds.
fn fewest() -> u32 {
    TIMES[OPERATIONS].load(Relaxed).min(TIMES[ATTENTION].load(Relaxed))
}

/// Returns the smaller number of preemptions of operations and of attention, or `None` if a call or a handler
/// returned other bits than without interrupts. Leaves the timer off.
pub fn run(arena: &mut Arena) -> Option<u32> {
    digest::fill(arena);
    let undisturbed = [operations(arena), attention(arena)];
    {
        // SAFETY: the interrupt is disabled.
        let [scores, weights, first] = unsafe { &mut *OWN.0.get() };
        scores.copy_from_slice(&arena.inputs[0][..SCORES]);
        Backend::best().softmax(scores, weights).ok()?;
        *first = *weights;
    }
    // SAFETY: nothing else uses the timer now.
    let mut timer: SYST = unsafe { cortex_m::Peripherals::steal() }.SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(TICKS);
    timer.clear_current();
    timer.enable_counter();
    timer.enable_interrupt();
    let mut kept = true;
    let mut rounds = 0;
    while fewest() < ENOUGH && rounds < 10_000 {
        kept &= [operations(arena), attention(arena)] == undisturbed;
        rounds += 1;
    }
    timer.disable_interrupt();
    timer.disable_counter();
    (kept && WRONG.load(Relaxed) == 0).then(fewest)
}
