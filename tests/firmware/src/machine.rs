//! Measures the cost of a call on the current machine.

use core::{arch::asm, fmt, hint::black_box};

use crate::{Arena, operations::Cost};

const PAINT: u32 = 0xa5c3_965a;

/// Starts the clock; call it before the first [`cost`].
pub fn start() {
    #[cfg(target_arch = "arm")]
    {
        use cortex_m::peripheral::{SYST, syst::SystClkSource};
        // SAFETY: nothing else uses the timer.
        let mut timer: SYST = unsafe { cortex_m::Peripherals::steal() }.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(0x00ff_ffff);
        timer.clear_current();
        timer.enable_counter();
    }
}

/// Returns the ticks of the clock; under QEMU's `-icount` nearly an integer number per instruction.
#[inline(always)]
fn now() -> u32 {
    #[cfg(target_arch = "arm")]
    return 0x00ff_ffff - cortex_m::peripheral::SYST::get_current();
    #[cfg(target_arch = "riscv32")]
    {
        let count: u32;
        // SAFETY: reads a counter.
        unsafe { asm!("csrr {}, minstret", out(reg) count) };
        count
    }
}

#[inline(always)]
fn ticks(call: impl FnOnce()) -> u32 {
    let before = now();
    call();
    let after = now();
    after.wrapping_sub(before) & if cfg!(target_arch = "arm") { 0x00ff_ffff } else { u32::MAX }
}

/// The number of iterations of the calibration loop, of two instructions each.
const TURNS: u32 = 100_000;

/// Returns the ticks of that loop and of an empty measurement.
#[inline(never)]
fn calibration() -> (u32, u32) {
    let empty = ticks(|| ());
    let turns = ticks(|| {
        let turns = TURNS;
        // SAFETY: counts down.
        #[cfg(target_arch = "arm")]
        unsafe {
            asm!("2:", "subs {0}, {0}, #1", "bne 2b", inout(reg) turns => _)
        };
        // SAFETY: counts down.
        #[cfg(target_arch = "riscv32")]
        unsafe {
            asm!("2:", "addi {0}, {0}, -1", "bnez {0}, 2b", inout(reg) turns => _)
        };
    });
    (turns - empty, empty)
}

#[inline(always)]
fn instructions(call: impl FnOnce()) -> u32 {
    let (turns, empty) = calibration();
    let call = u64::from(ticks(call) - empty) * u64::from(2 * TURNS);
    ((call + u64::from(turns / 2)) / u64::from(turns)) as u32
}

/// Paints this many words below the stack pointer, calls, and returns how many bytes below it the call wrote.
#[inline(always)]
pub fn stack<const WORDS: usize>(call: impl FnOnce()) -> usize {
    let top: *mut u32;
    // SAFETY: reads the stack pointer.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("mov {}, sp", out(reg) top)
    };
    // SAFETY: reads the stack pointer.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!("mv {}, sp", out(reg) top)
    };
    for word in 1..=WORDS {
        // SAFETY: the stack has room, and this function keeps nothing below its stack pointer.
        unsafe { top.wrapping_sub(word).write_volatile(PAINT) };
    }
    call();
    let mut used = WORDS;
    // SAFETY: as above.
    while used > 0 && unsafe { top.wrapping_sub(used).read_volatile() } == PAINT {
        used -= 1;
    }
    used * size_of::<u32>()
}

/// Returns the cost of `call`; inlined, so that no call between this and the operation is measured.
///
/// # Panics
///
/// If it returns an error, whose time would mean nothing.
#[inline(always)]
pub fn cost<T, E: fmt::Debug>(
    arena: &mut Arena,
    mut call: impl FnMut(&mut Arena) -> Result<T, E>,
) -> Cost {
    let arena = black_box(arena);
    if let Err(error) = call(arena) {
        panic!("the measured call: {error:?}");
    }
    // Each is inlined into its caller, also at opt-level s.
    let instructions = instructions(
        #[inline(always)]
        || once(arena, &mut call),
    );
    let stack = stack::<2048>(
        #[inline(always)]
        || once(arena, &mut call),
    );
    Cost { instructions, stack }
}

#[inline(always)]
fn once<T>(arena: &mut Arena, call: &mut impl FnMut(&mut Arena) -> T) {
    black_box(call(arena));
    #[cfg(feature = "slow")]
    black_box(call(arena));
}
