"""Weights of 16 and 8 bits."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from . import _arrays as arrays
from ._arrays import F32, Array, ArrayLike, Floats, address, array_of
from ._library import FORMATS, Elements as View, Error, library

# NumPy has no bfloat16: its bits.
DTYPES: dict[str, Any] = {"f32": F32, "f16": np.float16, "bf16": np.uint16, "i8": np.int8}


@dataclass(frozen=True)
class Elements:
    """A matrix in a format, as `narrow` makes it. `data`: float16; of "bf16" the bits, as uint16; of "i8" int8, whose
    rows (axis 0) or columns (axis 1) each have a float of `scales`."""

    format: str
    data: Array
    scales: Optional[Floats] = None
    axis: int = 0

    @property
    def T(self) -> Elements:
        """The transpose, which copies nothing."""
        return Elements(self.format, self.data.T, self.scales, 1 - self.axis)

    def widened(self) -> Floats:
        """The elements as float32, times their scales."""
        if self.format == "bf16":
            return (self.data.astype(np.uint32) << np.uint32(16)).view(F32)
        floats: Floats = self.data.astype(F32)
        if self.scales is None:
            return floats
        return floats * (self.scales[:, None] if self.axis == 0 else self.scales)


def narrow(floats: ArrayLike, format: str) -> Elements:
    """Rounds a matrix to "f16", "bf16" or "i8", to nearest: a float of scale for each row of "i8".

    For `project` rows are outputs, as PyTorch's `nn.Linear` has them: `narrow(layer.weight.detach(), "i8").T`. What a
    format cannot represent raises."""
    check_format(format)
    given = array_of(floats, "floats")
    view = arrays.matrix(given, "floats")
    view.data = address(given)
    data = np.empty(given.shape, DTYPES[format])
    scales = np.empty(given.shape[0], F32) if format == "i8" else None
    pointers = [ctypes.c_void_p(None if array is None else address(array)) for array in (data, scales)]
    status = library.sdpa_narrow(view, FORMATS[format], *pointers)
    if status:
        raise Error(status, f"floats {given.shape} as {format}")
    return Elements(format, data, scales)


def check_format(format: str) -> None:
    if format not in FORMATS:
        raise ValueError(f"format: {format!r} for {', '.join(FORMATS)}")


def weights(of: Elements) -> View:
    """A view of weights, inputs × outputs, still without addresses."""
    check_format(of.format)
    if of.data.dtype != DTYPES[of.format]:
        raise TypeError(f"w: {of.data.dtype} for {of.format}")
    arrays.axes(of.data, "w", 2)
    if (of.scales is None) != (of.format != "i8"):
        raise ValueError("w: i8 has scales, and other formats have none")
    if of.scales is not None:
        if of.axis != 1:
            raise ValueError("w: a scale for each input; pass narrow(…).T of weights outputs × inputs")
        arrays.floats(of.scales, "scales", of.data.shape[1])
    strides = arrays.element_strides(of.data, "w")
    return View(None, FORMATS[of.format], 1, *of.data.shape, 0, *strides, None, 0, 0)
