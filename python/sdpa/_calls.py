"""Calls of the library. What a call passes is made once for each combination of shapes, strides and options, and used
again: then only addresses are new. Of 4 µs there is no time for more."""

from __future__ import annotations

import ctypes
from ctypes import c_size_t, c_void_p
from typing import Any, Callable, Hashable, Optional, Sequence, Tuple

import numpy as np

from ._arrays import F32, Array, Floats, address
from ._library import ERROR_OPTION, Error, handle, library


class Call:
    """A function and its arguments. `cells` are where the addresses of the arrays go, in the order of the arrays."""

    __slots__ = ("arguments", "cells", "function", "kept", "pool", "shapes")

    def __init__(self, name: str, backend: Optional[str]) -> None:
        self.function: Any = getattr(library, name)
        self.arguments: list[Any] = [handle(backend)]
        self.cells: list[Optional[c_void_p]] = []
        self.kept: list[Any] = []
        # Where it goes after use.
        self.pool: list[Call] = []
        # Of the outputs, for those that the caller does not give.
        self.shapes: list[Tuple[int, ...]] = []

    def view(self, structure: ctypes.Structure) -> None:
        """The next argument, by value; the next array is what it views."""
        self.arguments.append(structure)
        self.field(structure, "data")

    def field(self, structure: ctypes.Structure, name: str, offset: int = 0) -> None:
        """The next array is what this field points to."""
        self.cells.append(c_void_p.from_buffer(structure, offset + getattr(type(structure), name).offset))

    def pointer(self, array: Optional[Array]) -> None:
        """The next argument, which points to the next array, if there is one."""
        cell = c_void_p()
        self.arguments.append(cell)
        self.cells.append(None if array is None else cell)

    def reference(self, structure: ctypes.Structure) -> None:
        self.kept.append(structure)
        self.arguments.append(c_void_p(ctypes.addressof(structure)))

    def workspace(self, dim: int, value_dim: int, *, elements: bool = False) -> None:
        of = library.sdpa_elements_workspace if elements else library.sdpa_attention_workspace
        length = of(dim, value_dim)
        if length > 1 << 40:
            raise ValueError(f"no workspace for {dim} and {value_dim} columns")
        space = np.empty(length, F32)
        self.kept.append(space)
        self.arguments += [c_void_p(space.ctypes.data), c_size_t(length)]


# Calls that are not in use. Who takes one has it alone, and puts it back: call.pool.append(call). Taking from a list
# and appending to it are each one step for other threads.
FREE: dict[Hashable, list[Call]] = {}
# A decoder without a cache has one more key in each call. A call has its workspace.
MOST = 64


def register(key: Hashable, call: Call) -> None:
    # Arguments get their types here, once: a function that declares them checks them in each call.
    types = call.function.argtypes
    assert len(types) == len(call.arguments)
    call.arguments = [kind(x) if isinstance(x, (int, float)) else x for kind, x in zip(types, call.arguments)]
    call.function = library[call.function.__name__]
    if len(FREE) > MOST:
        FREE.clear()
    call.pool = FREE.setdefault(key, [])


def fill(call: Call, arrays: Sequence[Optional[Array]]) -> None:
    for cell, array in zip(call.cells, arrays):
        if array is not None:
            cell.value = address(array)  # type: ignore[union-attr]


def refuse(status: int, names: Sequence[str], arrays: Sequence[Optional[Array]]) -> None:
    given = [(name, array) for name, array in zip(names, arrays) if array is not None]
    if status == ERROR_OPTION:
        # Only the library checks the numbers of these two; the other options were checked before the call.
        options = [f"{name} {array}" for name, array in given if name in ("sink", "slopes")]
        raise Error(status, ", ".join(options))
    raise Error(status, ", ".join(f"{name} {array.shape}" for name, array in given))


def shape_of(array: Optional[Array]) -> Hashable:
    return None if array is None else (array.shape, array.strides, array.dtype)


def run(
    names: Sequence[str],
    inputs: Sequence[Optional[Array]],
    out: Optional[Array],
    options: Tuple[Hashable, ...],
    make: Callable[[], Call],
) -> Floats:
    """A call with one output, which comes last."""
    key = (names, options, *[a if a is None else (a.shape, a.strides, a.dtype) for a in (*inputs, out)])
    try:
        call = FREE[key].pop()
    except (KeyError, IndexError):
        call = make()
        register(key, call)
    if out is None:
        out = np.empty(call.shapes[0], F32)
    arrays = [*inputs, out]
    fill(call, arrays)
    status = call.function(*call.arguments)
    call.pool.append(call)
    if status:
        refuse(status, names, arrays)
    return out
