"""Arrays in and out, without a copy: what is accepted, where it lies, and views of it for the library."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Protocol, Union, cast

import numpy as np
import numpy.typing as npt

from ._library import Heads, Matrix

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
F32 = np.dtype(np.float32)


class HasArrayInterface(Protocol):
    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class HasDLPack(Protocol):
    """As far as every library declares it: JAX has `__dlpack_device__` too, and does not say so."""

    def __dlpack__(self) -> Any: ...


ArrayLike = Union[Array, HasArrayInterface, HasDLPack]


# All memory, as words: a foreign call for each address would take three times as long.
WORD = ctypes.sizeof(ctypes.c_size_t)
MEMORY = (ctypes.c_size_t * (sys.maxsize // WORD)).from_address(0)
# Where an array keeps the address of its first element: behind the head of every Python object. NumPy's macro `PyArray_DATA`
# compiles this place into every extension module, so that it stays.
BEHIND_HEAD = object.__basicsize__


def address(array: Array) -> int:
    """The address of the first element."""
    return MEMORY[(id(array) + BEHIND_HEAD) // WORD]


def slow_address(array: Array) -> int:
    return array.ctypes.data


# An `id` is an address in CPython alone, and may be too large for an index where words have 32 bits.
if (
    sys.implementation.name != "cpython"
    or WORD != 8
    or address(TRIED := np.zeros((2, 3), F32)[1:, 1:]) != TRIED.ctypes.data
):
    address = slow_address


def array_of(given: ArrayLike, name: str) -> Array:
    """The elements of an array of any library as a NumPy array, without a copy."""
    if type(given) is np.ndarray:
        return given
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(f"{name}: the mask of a masked array would be ignored; pass it as keep=")
    if isinstance(given, np.ndarray):
        return cast(Array, given)
    if hasattr(given, "__dlpack_device__"):
        tensor = cast(Any, given)
        try:
            device = int(tensor.__dlpack_device__()[0])
        except ValueError as error:  # of PyTorch: a device that DLPack does not know
            raise TypeError(f"{name}: {error}") from error
        if device != 1:
            raise TypeError(f"{name}: on a device of DLPack's type {device}, not on the CPU; copy it there first")
        try:
            return np.from_dlpack(tensor)  # type: ignore[arg-type, unused-ignore]
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            # Of PyTorch: bfloat16, and tensors that require a gradient (use .detach()).
            raise TypeError(f"{name}: NumPy cannot view this {type(tensor).__name__}: {error}") from error
    if hasattr(given, "__array_interface__"):
        return np.asarray(given)
    raise TypeError(f"{name}: a {type(given).__name__} is no array; np.asarray(…) makes one")


def check_floats(array: Array, name: str) -> None:
    if array.dtype != F32:
        raise TypeError(f"{name}: {array.dtype} for float32; convert it with .astype(np.float32)")


def target(given: ArrayLike, name: str) -> Array:
    """As `array_of`, for an array that is written."""
    array = array_of(given, name)
    if not array.flags.writeable:
        raise ValueError(f"{name}: is read-only")
    return array


def element_strides(array: Array, name: str) -> list[int]:
    """The strides in elements. An axis of one element gets one that lies outside of the others."""
    size = array.itemsize
    strides = list(array.strides)
    if array.size == 0:
        return [0] * array.ndim
    many = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    for axis in many:
        if strides[axis] < 0:
            raise ValueError(f"{name}: a negative stride; np.ascontiguousarray makes a copy")
        if strides[axis] % size:
            raise ValueError(f"{name}: a stride of {strides[axis]} bytes is no whole number of elements")
    # An axis of one element has a stride below; without one the library takes 0 for contiguous.
    if len(many) == array.ndim > 1 and not any(strides):
        raise ValueError(f"{name}: repeats one element; np.ascontiguousarray makes a copy")
    span = 1 + sum((array.shape[axis] - 1) * (strides[axis] // size) for axis in many)
    return [strides[axis] // size if axis in many else span for axis in range(array.ndim)]


def axes(array: Array, name: str, *numbers: int) -> None:
    if array.ndim not in numbers:
        wanted = " or ".join(str(number) for number in numbers)
        raise ValueError(f"{name}: {array.ndim} axes for {wanted}")


def matrix(array: Array, name: str) -> Matrix:
    """A view of a matrix, still without an address."""
    check_floats(array, name)
    axes(array, name, 2)
    return Matrix(None, *array.shape, *element_strides(array, name))


def heads(array: Array, name: str, heads_axis: int) -> Heads:
    """A view of heads; a matrix is one head."""
    check_floats(array, name)
    axes(array, name, 2, 3)
    check_heads_axis(heads_axis)
    ordered = array[None] if array.ndim == 2 else array.swapaxes(0, heads_axis)
    return Heads(None, *ordered.shape, *element_strides(ordered, name))


def check_heads_axis(heads_axis: int) -> None:
    if heads_axis not in (0, 1):
        raise ValueError(f"heads_axis: {heads_axis} for 0, [heads, tokens, dim], or 1, [tokens, heads, dim]")


def floats(array: Array, name: str, length: int) -> None:
    """Checks an array whose elements lie one behind the other."""
    check_floats(array, name)
    if array.size != length:
        raise ValueError(f"{name}: {array.size} elements for {length}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: must be contiguous")
