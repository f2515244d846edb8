//! The image of a board: prints answers, digests, preemptions and costs, one per line. With the cfg
//! `standalone` it prints the cost of the one operation only.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is for a board: run.sh runs it");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
mod board {
    use core::panic::PanicInfo;

    use firmware::{Arena, digest, machine, operations::OPERATIONS};
    #[cfg(not(standalone))]
    use firmware::{
        answers,
        digest::{Digest, Values},
    };
    #[cfg(not(standalone))]
    use sdpa::Backend;
    use semihosting::{println, process};

    static mut ARENA: Arena = Arena::NEW;

    #[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
    #[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
    fn main() -> ! {
        // SAFETY: this function runs once, and nothing else names the arena.
        let arena = unsafe { (&raw mut ARENA).as_mut_unchecked() };
        machine::start();
        digest::fill(arena);
        for operation in OPERATIONS {
            let cost = (operation.measure)(arena);
            println!("cost {} {} {}", operation.name, cost.instructions, cost.stack);
        }
        #[cfg(c_operation)]
        {
            let (name, cost) = firmware::operations::measure_c(arena);
            println!("cost {name} {} {}", cost.instructions, cost.stack);
        }
        #[cfg(not(standalone))]
        tests(arena);
        #[cfg(feature = "silent")]
        process::exit(0);
        #[cfg(not(feature = "silent"))]
        {
            println!("done");
            process::exit(0)
        }
    }

    #[cfg(not(standalone))]
    fn tests(arena: &mut Arena) {
        println!("best {}", Backend::best().name());
        for backend in Backend::available() {
            let mut bits = Digest::NEW;
            let notebook = answers::notebook(backend, &mut bits);
            let head = answers::head(backend, arena, &mut bits);
            let (Ok(notebook), Ok([scores, pattern, output])) = (notebook, head) else {
                panic!("an error");
            };
            for answer in [notebook, scores, pattern, output] {
                println!("answer {} {:.3} {}", backend.name(), answer.part, answer.name);
            }
            println!("digest {} answers {:016x}", backend.name(), bits.finish());
            for values in [Values::Normal, Values::Subnormal] {
                let kept = if cfg!(feature = "kept") { &digest::KEPT[..] } else { &[] };
                for (name, run) in digest::OPERATIONS.iter().chain(kept) {
                    let digest = digest::digest(*run, backend, values, arena);
                    println!("digest {} {name}/{values:?} {digest:016x}", backend.name());
                }
            }
        }
        #[cfg(target_arch = "arm")]
        match firmware::preempt::run(arena) {
            Some(times) => println!("preempted {times}"),
            None => println!("a preempted call, or the interrupt, gave other bits"),
        }
    }

    #[cfg(all(target_arch = "arm", not(standalone)))]
    #[cortex_m_rt::exception]
    fn SysTick() {
        firmware::preempt::interrupt();
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        println!("{info}");
        process::exit(101)
    }

    #[cfg(target_arch = "arm")]
    #[cortex_m_rt::exception]
    unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
        println!("{frame:?}");
        process::exit(102)
    }
}
