"""Arrays as constants of Rust or C: trained weights for flash, with golden inputs and outputs."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Tuple, Union

import numpy as np

from ._arrays import Array, Floats, array_of, check_floats

# What a weight may be stored as. Others belong here once the C library has elements of that type: what is stored must
# be what the board computes with.
FORMATS = ("f32",)

HEAD = "Made by sdpa.export; do not edit."
C_ALIGNED = """\
#if defined(__cplusplus)
#define SDPA_ALIGNED alignas(16)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define SDPA_ALIGNED _Alignas(16)
#else
#define SDPA_ALIGNED
#endif"""
RUST_ALIGNED = """\
/// At an address that is a multiple of 16.
#[repr(C, align(16))]
pub struct Aligned<T>(pub T);

impl<T> core::ops::Deref for Aligned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}"""


def export(
    arrays: Union[Mapping[str, Any], str, "os.PathLike[str]"],
    path: Union[str, "os.PathLike[str]"],
    *,
    format: str = "f32",
    golden: Optional[Mapping[str, Any]] = None,
) -> str:
    """Writes arrays as constants into `path`, a file of Rust (`.rs`) or C and C++ (`.h`), and returns their digest.

    `arrays`: names with float32 arrays; with PyTorch's `nn.Linear` (or what has its `weight` and `bias`), which becomes
    NAME, inputs × outputs as `project` takes it, and NAME_bias; or a file of safetensors, exactly as it holds them.
    `golden`: inputs and the outputs that Python computes of them, as further constants, GOLDEN_NAME.

    Each constant is row-major and has its shape as its type. The digest is the SHA-256 of all names, shapes and bits,
    and stands in the file too, as DIGEST (Rust) or SDPA_DIGEST (C)."""
    to = Path(path)
    writers: dict[str, Callable[[dict[str, Floats], str], str]] = {".rs": rust, ".h": header}
    if to.suffix not in writers:
        raise ValueError(f"path: {to.name} is neither .rs nor .h")
    if format not in FORMATS:
        raise ValueError(f"format: {format!r} for {' or '.join(FORMATS)}; the library computes with no other weights yet")
    if not isinstance(arrays, Mapping):
        arrays = safetensors(Path(arrays))
    named: dict[str, Floats] = {}
    for prefix, group in ("", arrays), ("golden_", golden or {}):
        for name, given in group.items():
            for part, array in parts(name, given):
                identifier = prefix + re.sub(r"\W", "_", part, flags=re.ASCII).lower()
                if not re.fullmatch(r"[a-z]\w*", identifier, re.ASCII):
                    raise ValueError(f"{part!r}: no name for a constant")
                if identifier in named:
                    raise ValueError(f"{part!r}: two constants would have the name {identifier}")
                named[identifier] = checked(array, part)
    if not named:
        raise ValueError("arrays: there are none")
    digest = digest_of(named)
    to.write_text(writers[to.suffix](named, digest), encoding="utf-8")
    return digest


def parts(name: str, given: Any) -> Iterator[Tuple[str, Array]]:
    if hasattr(given, "weight") and hasattr(given, "bias"):
        yield name, numpy_of(given.weight, name).T
        if given.bias is not None:
            yield f"{name}_bias", numpy_of(given.bias, f"{name}_bias")
    else:
        yield name, numpy_of(given, name)


def numpy_of(given: Any, name: str) -> Array:
    # A parameter of PyTorch has a gradient.
    return array_of(given.detach() if hasattr(given, "detach") else given, name)


def checked(array: Array, name: str) -> Floats:
    check_floats(array, name)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name}: shape {array.shape}; a constant has at least one element and one axis")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds an infinity or NaN")
    return np.ascontiguousarray(array)


def safetensors(path: Path) -> Mapping[str, Any]:
    if path.suffix != ".safetensors":
        raise ValueError(f"arrays: {path.name} is no .safetensors")
    try:
        module = importlib.import_module("safetensors.numpy")
    except ImportError:
        raise ImportError("this wants the package safetensors: pip install 'sdpa[safetensors]'") from None
    loaded: Mapping[str, Any] = module.load_file(path)
    return loaded


def digest_of(named: Mapping[str, Floats]) -> str:
    digest = hashlib.sha256()
    for name, array in named.items():
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def rust(named: Mapping[str, Floats], digest: str) -> str:
    text = [f"// {HEAD}", "", RUST_ALIGNED, "", "/// Of all names, shapes and bits: SHA-256.", "#[rustfmt::skip]"]
    text += [f'pub const DIGEST: &str = "{digest}";']
    for name, array in named.items():
        kind = "f32"
        for length in reversed(array.shape):
            kind = f"[{kind}; {length}]"
        shape = " × ".join(map(str, array.shape))
        text += ["", f"/// {shape}.", "#[rustfmt::skip]", f"pub static {name.upper()}: Aligned<{kind}> = Aligned("]
        text += [nested(array, "[", "]", decimal) + ");"]
    return "\n".join(text) + "\n"


def header(named: Mapping[str, Floats], digest: str) -> str:
    text = [f"/* {HEAD} */", "", "#ifndef SDPA_EXPORTED", "#define SDPA_EXPORTED", "", C_ALIGNED, ""]
    text += ["/* Of all names, shapes and bits: SHA-256. */", f'#define SDPA_DIGEST "{digest}"']
    for name, array in named.items():
        shape = "".join(f"[{length}]" for length in array.shape)
        text += ["", f"SDPA_ALIGNED static const float {name}{shape} =", nested(array, "{", "}", hexadecimal) + ";"]
    return "\n".join([*text, "", "#endif"]) + "\n"


def nested(array: Floats, begin: str, end: str, written: Callable[[np.float32], str]) -> str:
    if array.ndim > 1:
        return begin + ",\n".join(nested(part, begin, end, written) for part in array) + end
    words = [written(number) for number in array]
    lines = [", ".join(words[i : i + 6]) for i in range(0, len(words), 6)]
    return begin + ",\n ".join(lines) + end


def decimal(number: np.float32) -> str:
    """The shortest that Rust reads as the same float."""
    return str(np.format_float_scientific(number, unique=True, trim="0"))


def hexadecimal(number: np.float32) -> str:
    """Exact in C99 and C++17, whatever the compiler's rounding."""
    return f"{float(number).hex()}f"
