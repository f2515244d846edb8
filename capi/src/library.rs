//! What this library is, which back ends it has, and how an operation of the header is made.

use core::ffi::{CStr, c_char};

use sdpa::Backend;

use crate::status::{self, Checked, Failure, SDPA_ERROR_OPTION, sdpa_status};

/// The version of this header.
pub const SDPA_VERSION_MAJOR: u32 = 0;
/// Minor versions add.
pub const SDPA_VERSION_MINOR: u32 = 1;
/// Patches repair.
pub const SDPA_VERSION_PATCH: u32 = 0;

const _: () = {
    const fn is(number: u32, text: &str) -> bool {
        matches!(u32::from_str_radix(text, 10), Ok(parsed) if parsed == number)
    }
    assert!(is(SDPA_VERSION_MAJOR, env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(is(SDPA_VERSION_MINOR, env!("CARGO_PKG_VERSION_MINOR")));
    assert!(is(SDPA_VERSION_PATCH, env!("CARGO_PKG_VERSION_PATCH")));
};

/// A back end of this machine, 0 or more; negative: none. Every operation has a twin that takes one,
/// sdpa_dot_on and so on, and returns SDPA_ERROR_OPTION where there is none of that handle.
#[expect(non_camel_case_types, reason = "the name in the header")]
pub type sdpa_backend_t = i32;

/// The version of the library as it runs, "0.1.0". Never NULL, never freed.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The words for a status; of those that are none, too. Never NULL, never freed.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_status_string(status: sdpa_status) -> *const c_char {
    status::words(status).as_ptr()
}

/// The back end in use where none is asked for, the fastest of this machine: "avx512", "avx2" or
/// "neon" (the FMA family: a multiply-add rounds once), "portable" or "scalar" (the non-FMA one).
/// Inside a family the same input gives the same bits on every machine. Never NULL, never freed.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_backend() -> *const c_char {
    name_of(Backend::best()).as_ptr()
}

/// The back end of that name, for the operations whose names end in _on; negative where this
/// machine has none, and for NULL. "scalar" is everywhere and gives the bits of microcontrollers.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_backend_by_name(name: *const c_char) -> sdpa_backend_t {
    let is_named = |backend: Backend| {
        let mut wanted = name_of(backend).to_bytes_with_nul().iter().enumerate();
        // SAFETY: a string, which is read up to the first byte that differs, or to its end.
        wanted.all(|(i, &byte)| unsafe { name.cast::<u8>().wrapping_add(i).read() } == byte)
    };
    let found = Backend::available().position(|backend| !name.is_null() && is_named(backend));
    handle_of(found)
}

/// The back ends that this machine has, one after another; negative behind the last:
///     for (i = 0; (backend = sdpa_backend_at(i)) >= 0; i++)
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_backend_at(index: usize) -> sdpa_backend_t {
    handle_of(Backend::available().nth(index).map(|_| index))
}

/// The name of a back end; "none" where there is none of that handle. Never NULL, never freed.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_backend_name(backend: sdpa_backend_t) -> *const c_char {
    backend_of(backend).map_or(c"none", name_of).as_ptr()
}

fn handle_of(index: Option<usize>) -> sdpa_backend_t {
    index.and_then(|index| index.try_into().ok()).unwrap_or(-1)
}

/// A handle is a place in the list of what this machine has.
pub(crate) fn backend_of(handle: sdpa_backend_t) -> Checked<Backend> {
    let index = usize::try_from(handle).unwrap_or(usize::MAX);
    Backend::available().nth(index).ok_or(Failure(SDPA_ERROR_OPTION))
}

fn name_of(backend: Backend) -> &'static CStr {
    match backend.name() {
        "avx512" => c"avx512",
        "avx2" => c"avx2",
        "neon" => c"neon",
        "portable" => c"portable",
        "scalar" => c"scalar",
        _ => c"unknown",
    }
}

/// An operation on the best back end, and its twin on one that the caller names, of one body. Each has a copy
/// of it, so that neither links what the other needs, and no frame of a body lies below one of arguments.
macro_rules! operation {
    (
        $(#[$text:meta])*
        fn $name:ident, $twin:ident(
            $on:ident, $($argument:ident: $type:ty),+ $(,)?
        ) $body:block
    ) => {
        $(#[$text])*
        #[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
        pub unsafe extern "C" fn $name($($argument: $type),+) -> sdpa_status {
            let call = |$on: Backend| -> Checked<()> { $body };
            status(call(Backend::best()))
        }

        #[doc = concat!(" ", stringify!($name), " on that back end: see sdpa_backend_by_name.")]
        #[unsafe(no_mangle)] // SAFETY: as above
        pub unsafe extern "C" fn $twin(
            backend: sdpa_backend_t,
            $($argument: $type),+
        ) -> sdpa_status {
            let call = |$on: Backend| -> Checked<()> { $body };
            status(backend_of(backend).and_then(call))
        }
    };
}

pub(crate) use operation;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_back_end_has_its_name() {
        for backend in Backend::available() {
            assert_eq!(name_of(backend).to_str(), Ok(backend.name()));
        }
    }
}
