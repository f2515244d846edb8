"""The C library: its structures, functions and statuses, as `sdpa.h` declares them."""

from __future__ import annotations

import ctypes
import sys
from ctypes import Structure, c_char_p, c_double, c_float, c_int32, c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

FILE = "sdpa-attention.dll" if sys.platform == "win32" else "libsdpa-attention.so"
library = ctypes.CDLL(str(Path(__file__).parent / FILE))

SPAN = 1024
KEY_BLOCK = 64
CAUSAL, WINDOW = 1, 2
ERROR_OPTION = 7
NO_LIMIT = c_size_t(-1).value
FORMATS = {"f32": 0, "f16": 1, "bf16": 2, "i8": 3}


class Matrix(Structure):
    """`sdpa_matrix` and `sdpa_matrix_mut`."""

    _fields_ = [("data", c_void_p), *((name, c_size_t) for name in ("rows", "cols", "row_stride", "col_stride"))]


class Heads(Structure):
    """`sdpa_heads` and `sdpa_heads_mut`."""

    _fields_ = [
        ("data", c_void_p),
        *((name, c_size_t) for name in ("heads", "rows", "cols", "head_stride", "row_stride", "col_stride")),
    ]


class Elements(Structure):
    """`sdpa_array`."""

    _fields_ = [
        ("data", c_void_p),
        ("format", c_uint32),
        *((name, c_size_t) for name in ("heads", "rows", "cols", "head_stride", "row_stride", "col_stride")),
        ("scales", c_void_p),
        *((name, c_size_t) for name in ("scale_head_stride", "scale_row_stride")),
    ]


class Options(Structure):
    _fields_ = [
        ("flags", c_uint32),
        ("scale", c_float),
        ("softcap", c_float),
        ("query_offset", c_ssize_t),
        ("window_left", c_size_t),
        ("window_right", c_size_t),
        ("bias", Matrix),
        ("keep", c_void_p),
        ("keep_row_stride", c_size_t),
        ("keep_col_stride", c_size_t),
        ("sink", c_void_p),
        ("bias_head_stride", c_size_t),
        ("keep_head_stride", c_size_t),
        ("slopes", c_void_p),
        ("keep_first", c_size_t),
    ]


class Rotary(Structure):
    """`sdpa_rotary`."""

    _fields_ = [("cosines", Matrix), ("sines", Matrix), ("first", c_uint64)]


class CacheState(Structure):
    """`sdpa_cache`."""

    _fields_ = [
        ("storage", c_void_p),
        ("dim", c_size_t),
        ("value_dim", c_size_t),
        ("blocks", c_size_t),
        ("appended", c_uint64),
        ("dropped", c_uint64),
        ("key_format", c_uint32),
        ("value_format", c_uint32),
        ("kept", c_size_t),
    ]


STATUS, BACKEND, FORMAT = c_int32, c_int32, c_uint32
OPTIONS = CACHE = c_void_p

# Each function with its result and arguments. Of an operation only the variant on a given back end.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "sdpa_version": (c_char_p, []),
    "sdpa_status_string": (c_char_p, [STATUS]),
    "sdpa_backend": (c_char_p, []),
    "sdpa_backend_by_name": (BACKEND, [c_char_p]),
    "sdpa_backend_at": (BACKEND, [c_size_t]),
    "sdpa_backend_name": (c_char_p, [BACKEND]),
    "sdpa_dot_on": (STATUS, [BACKEND, c_void_p, c_void_p, c_size_t, c_void_p]),
    "sdpa_softmax_rows_on": (STATUS, [BACKEND, Matrix, Matrix]),
    "sdpa_softmax_columns_on": (STATUS, [BACKEND, Matrix, Matrix]),
    "sdpa_project_on": (STATUS, [BACKEND, Matrix, Matrix, c_void_p, Matrix]),
    "sdpa_narrow": (STATUS, [Matrix, FORMAT, c_void_p, c_void_p]),
    "sdpa_project_elements_on": (STATUS, [BACKEND, Matrix, Elements, c_void_p, Matrix]),
    "sdpa_scores_on": (STATUS, [BACKEND, Matrix, Matrix, c_float, Matrix]),
    "sdpa_weighted_sum_on": (STATUS, [BACKEND, Matrix, Matrix, Matrix]),
    "sdpa_pattern_on": (STATUS, [BACKEND, Matrix, Matrix, OPTIONS, Matrix]),
    "sdpa_pattern_heads_on": (STATUS, [BACKEND, Heads, Heads, OPTIONS, c_void_p, Heads]),
    "sdpa_pattern_mean_on": (STATUS, [BACKEND, Heads, Heads, OPTIONS, c_void_p, Matrix, c_void_p, c_size_t]),
    "sdpa_attention_workspace": (c_size_t, [c_size_t, c_size_t]),
    "sdpa_attention_on": (
        STATUS,
        [BACKEND, Matrix, Matrix, Matrix, OPTIONS, Matrix, c_void_p, c_void_p, c_size_t],
    ),
    "sdpa_attention_heads_on": (
        STATUS,
        [BACKEND, Heads, Heads, Heads, OPTIONS, c_void_p, Heads, c_void_p, c_void_p, c_size_t],
    ),
    "sdpa_attention_packed_on": (
        STATUS,
        [
            BACKEND, Heads, Heads, Heads, c_void_p, c_void_p, c_size_t, OPTIONS, c_void_p, Heads, c_void_p, c_void_p,
            c_size_t,
        ],
    ),
    "sdpa_elements_workspace": (c_size_t, [c_size_t, c_size_t]),
    "sdpa_attention_elements_on": (
        STATUS,
        [BACKEND, Heads, Elements, Elements, OPTIONS, c_void_p, Heads, c_void_p, c_void_p, c_size_t],
    ),
    "sdpa_attention_packed_elements_on": (
        STATUS,
        [
            BACKEND, Heads, Elements, Elements, c_void_p, c_void_p, c_size_t, OPTIONS, c_void_p, Heads, c_void_p, c_void_p,
            c_size_t,
        ],
    ),
    "sdpa_pattern_elements_on": (STATUS, [BACKEND, Heads, Elements, OPTIONS, c_void_p, Heads, c_void_p, c_size_t]),
    "sdpa_pattern_mean_elements_on": (STATUS, [BACKEND, Heads, Elements, OPTIONS, c_void_p, Matrix, c_void_p, c_size_t]),
    "sdpa_attention_states_elements_on": (
        STATUS,
        [BACKEND, Heads, Elements, Elements, OPTIONS, c_uint64, c_void_p, c_size_t, c_void_p, c_size_t],
    ),
    "sdpa_rotary_floats": (c_size_t, [c_size_t, c_size_t]),
    "sdpa_rotary_init": (
        STATUS,
        [c_void_p, c_double, c_void_p, c_size_t, c_uint64, c_size_t, c_void_p, c_size_t],
    ),
    "sdpa_rotate_on": (STATUS, [BACKEND, Heads, c_void_p, c_uint64, c_uint32, Heads]),
    "sdpa_merge_on": (STATUS, [BACKEND, Matrix, c_void_p, Matrix, c_void_p]),
    "sdpa_attention_states_heads_on": (
        STATUS,
        [BACKEND, Heads, Heads, Heads, OPTIONS, c_uint64, c_void_p, c_size_t, c_void_p, c_size_t],
    ),
    "sdpa_join_heads_on": (STATUS, [BACKEND, c_void_p, c_size_t, OPTIONS, c_void_p, Heads, c_void_p]),
    "sdpa_cache_floats_of": (c_size_t, [c_size_t, c_size_t, c_size_t, FORMAT, FORMAT]),
    "sdpa_cache_init_elements": (
        STATUS,
        [CACHE, c_size_t, c_size_t, FORMAT, FORMAT, c_void_p, c_size_t, c_uint64],
    ),
    "sdpa_cache_append_elements": (STATUS, [CACHE, Matrix, Matrix]),
    "sdpa_cache_truncate": (STATUS, [CACHE, c_size_t]),
    "sdpa_cache_truncate_to": (STATUS, [CACHE, c_uint64]),
    "sdpa_cache_keep_first": (STATUS, [CACHE, c_size_t]),
    "sdpa_cache_slide": (STATUS, [CACHE, c_size_t]),
    "sdpa_cache_attend_heads_on": (
        STATUS,
        [BACKEND, CACHE, Heads, OPTIONS, c_void_p, Heads, c_void_p, c_void_p, c_size_t],
    ),
    "sdpa_cache_pattern_heads_on": (STATUS, [BACKEND, CACHE, Heads, OPTIONS, c_void_p, Heads, c_void_p, c_size_t]),
    "sdpa_cache_pattern_mean_on": (STATUS, [BACKEND, CACHE, Heads, OPTIONS, c_void_p, Matrix, c_void_p, c_size_t]),
    "sdpa_cache_attend_elements_on": (
        STATUS,
        [BACKEND, CACHE, Heads, OPTIONS, c_void_p, Heads, c_void_p, c_void_p, c_size_t],
    ),
    "sdpa_cache_states_heads_on": (
        STATUS,
        [BACKEND, CACHE, Heads, OPTIONS, c_void_p, c_size_t, c_void_p, c_size_t],
    ),
    "sdpa_cache_states_elements_on": (
        STATUS,
        [BACKEND, CACHE, Heads, OPTIONS, c_void_p, c_size_t, c_void_p, c_size_t],
    ),
}
for name, (result, arguments) in FUNCTIONS.items():
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments

version: str = library.sdpa_version().decode()


class Error(ValueError):
    """The library refuses a call, and has written nothing. `status` is the number of `sdpa.h`."""

    def __init__(self, status: int, about: str = "") -> None:
        message = library.sdpa_status_string(status).decode()
        super().__init__(f"{message}: {about}" if about else message)
        self.status = status


def backends() -> list[str]:
    """The back ends (instruction sets) of this machine; the first is the default, the fastest.

    `avx512`, `avx2` and `neon` have the same bits, and so have `portable`, `scalar` and every microcontroller.
    """
    names: list[str] = []
    while (handle := library.sdpa_backend_at(len(names))) >= 0:
        names.append(library.sdpa_backend_name(handle).decode())
    default = library.sdpa_backend().decode()
    return sorted(names, key=lambda name: name != default)


HANDLES: dict[str, int] = {name: library.sdpa_backend_by_name(name.encode()) for name in backends()}
DEFAULT: int = HANDLES[backends()[0]]


def handle(backend: str | None) -> int:
    if backend is None:
        return DEFAULT
    try:
        return HANDLES[backend]
    except (KeyError, TypeError):
        raise ValueError(f"backend: {backend!r} is none of this machine, which has {', '.join(HANDLES)}") from None
