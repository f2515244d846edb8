//! A second Rust library for the same program, which uses `std`.

/// Returns 3, 30 or 300 as the message of a caught panic.
#[unsafe(no_mangle)]
extern "C" fn second(i: usize) -> usize {
    let caught = std::panic::catch_unwind(|| {
        let text: Vec<String> = (0..3).map(|n| format!("3{}", "0".repeat(n))).collect();
        std::panic::panic_any(text[i].clone());
    });
    let text = caught.unwrap_err().downcast::<String>().unwrap();
    text.parse().unwrap()
}
