//! A call that is preempted by an interrupt which calls the library itself.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use sdpa::{Backend, MatrixMut, MatrixRef};

use crate::{Arena, digest};

/// How many scores the interrupt makes weights of, and how many ticks it waits: enough for a few
/// thousand instructions more than it takes.
const SCORES: usize = 13;
const TICKS: u32 = if cfg!(target_abi = "eabihf") { 12_000 } else { 400_000 };

static TIMES: AtomicU32 = AtomicU32::new(0);
/// How often the interrupt's own result had other bits than the first.
static WRONG: AtomicU32 = AtomicU32::new(0);

/// What the interrupt reads and writes; nothing else does while it is on.
struct Own(UnsafeCell<[[f32; SCORES]; 3]>);

// SAFETY: used by the interrupt, which does not preempt itself, and before it is on.
unsafe impl Sync for Own {}

static OWN: Own = Own(UnsafeCell::new([[0.0; SCORES]; 3]));

/// The interrupt.
pub fn interrupt() {
    TIMES.store(TIMES.load(Relaxed) + 1, Relaxed);
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

/// What the calls below give.
fn outputs(arena: &mut Arena) -> u64 {
    let mut bits = digest::Digest::NEW;
    let Arena { inputs: [a, b, _], output } = arena;
    let keys = MatrixRef::new(a, 20, 64);
    let queries = MatrixRef::new(b, 20, 64);
    let out = MatrixMut::new(output, 20, 20);
    if let (Ok(keys), Ok(queries), Ok(out)) = (keys, queries, out) {
        bits.add(f32::from(sdpa::scores(keys, queries, None, out).is_err()));
    }
    output[..400].iter().for_each(|&x| bits.add(x));
    bits.add(f32::from(sdpa::softmax(&a[..1024], &mut output[..1024]).is_err()));
    output[..1024].iter().for_each(|&x| bits.add(x));
    bits.add(sdpa::dot(&a[..1024], &b[..1024]).unwrap_or(f32::NAN));
    bits.finish()
}

/// How often calls were preempted, or `None` where one of them, or an interrupt, gave other
/// bits than undisturbed. Leaves the timer off.
pub fn run(arena: &mut Arena) -> Option<u32> {
    digest::fill(arena);
    let undisturbed = outputs(arena);
    {
        // SAFETY: the interrupt is off.
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
    while TIMES.load(Relaxed) < 200 && rounds < 10_000 {
        kept &= outputs(arena) == undisturbed;
        rounds += 1;
    }
    timer.disable_interrupt();
    timer.disable_counter();
    (kept && WRONG.load(Relaxed) == 0).then(|| TIMES.load(Relaxed))
}
