//! Measures the stack of generic calls, which are compiled in the crate of an application at its opt-level:
//! those of a `KvCache` and a `Matrix`. Prints one line per call, for two sizes; at opt-level 0 without the
//! calls in which the application passes a value on.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is for a board: run.sh runs it");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
mod frames {
    use core::{hint::black_box, panic::PanicInfo};

    use firmware::machine;
    use sdpa::{Error, KvCache, Matrix, MatrixRef};
    use semihosting::{println, process};

    /// The painted stack below a call. At opt-level 0 it has a copy of an array for each function that passes
    /// it by value.
    const WORDS: usize = 64 * 1024;

    static mut SMALL: Memory<8, 4, 2> = Memory::NEW;
    static mut LARGE: Memory<64, 64, 4> = Memory::NEW;

    #[cortex_m_rt::entry]
    fn main() -> ! {
        // SAFETY: this function runs once, and nothing else names them.
        let (small, large) =
            unsafe { ((&raw mut SMALL).as_mut_unchecked(), (&raw mut LARGE).as_mut_unchecked()) };
        measure("small", small);
        measure("large", large);
        println!("done");
        process::exit(0)
    }

    struct Memory<const DIM: usize, const WIDTH: usize, const BLOCKS: usize> {
        caches: [KvCache<DIM, WIDTH, BLOCKS>; 2],
        keys: Matrix<2, DIM>,
        values: Matrix<2, WIDTH>,
        matrices: [Matrix<DIM, WIDTH>; 2],
    }

    impl<const DIM: usize, const WIDTH: usize, const BLOCKS: usize> Memory<DIM, WIDTH, BLOCKS> {
        const NEW: Self = Self {
            caches: [const { KvCache::new() }; 2],
            keys: Matrix::ZERO,
            values: Matrix::ZERO,
            matrices: [Matrix::ZERO; 2],
        };
    }

    /// The calls as an application would write them, each in its own function.
    fn measure<const DIM: usize, const WIDTH: usize, const BLOCKS: usize>(
        size: &str,
        memory: &mut Memory<DIM, WIDTH, BLOCKS>,
    ) {
        macro_rules! frame {
            ($($name:literal $(($passed:expr))?: |$memory:ident| $call:expr;)+) => {$({
                #[inline(never)]
                fn call<const DIM: usize, const WIDTH: usize, const BLOCKS: usize>(
                    $memory: &mut Memory<DIM, WIDTH, BLOCKS>,
                ) -> Result<(), Error> {
                    #[cfg(feature = "by-value")]
                    black_box(black_box([[0.0f32; 16]; DIM]));
                    $call
                }
                let stack = machine::stack::<WORDS>(
                    #[inline(always)]
                    || call(black_box(memory)).expect("a call that is right"),
                );
                let passed = if cfg!(level_0) { 0 $(+ $passed)? } else { 0 };
                println!("frame {size} {} {}", $name, stack - passed);
            })+};
        }
        let (cache, matrix) =
            (size_of::<KvCache<DIM, WIDTH, BLOCKS>>(), size_of::<Matrix<DIM, WIDTH>>());
        frame! {
            "append": |m| m.caches[0].append(m.keys.view(), m.values.view());
            "truncate": |m| m.caches[0].truncate(1);
            "truncate_to": |m| m.caches[0].truncate_to(1);
            "slide": |m| { m.caches[0].slide(1); Ok(()) };
            "clear": |m| { m.caches[0].clear(); Ok(()) };
            "copy_from": |m| { let [one, other] = &mut m.caches; one.copy_from(other); Ok(()) };
            "KvCache::view": |m| { black_box(m.caches[0].view()); Ok(()) };
            "KvCache::new" (cache): |m| { m.caches[0] = KvCache::new(); Ok(()) };
            "KvCache::default" (cache): |m| { m.caches[0] = KvCache::default(); Ok(()) };
            "Matrix::ZERO": |m| { m.matrices[0] = Matrix::ZERO; Ok(()) };
            "Matrix::from" (2 * matrix): |m| { m.matrices[0] = Matrix::from(m.matrices[1].0); Ok(()) };
            "Matrix::view": |m| { black_box(m.matrices[0].view()); Ok(()) };
            "Matrix::view_mut": |m| { black_box(m.matrices[0].view_mut()); Ok(()) };
            "Matrix::eq": |m| { black_box(m.matrices[0] == m.matrices[1]); Ok(()) };
            "MatrixRef::from": |m| { black_box(MatrixRef::from(&m.matrices[0])); Ok(()) };
        }
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        println!("{info}");
        process::exit(101)
    }

    #[cortex_m_rt::exception]
    unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
        println!("{frame:?}");
        process::exit(102)
    }
}
