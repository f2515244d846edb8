//! A second Rust library in one program, one that uses `std`.

/// Which of 3, 30 and 300 panicked on its way.
#[unsafe(no_mangle)]
extern "C" fn second(i: usize) -> usize {
    let caught = std::panic::catch_unwind(|| {
        let text: Vec<String> = (0..3).map(|n| format!("3{}", "0".repeat(n))).collect();
        std::panic::panic_any(text[i].clone());
    });
    let text = caught.unwrap_err().downcast::<String>().unwrap();
    text.parse().unwrap()
}
