"""Operations on matrices: dot, softmax, scores, weighted sum, projection."""

from __future__ import annotations

import ctypes
import math
from typing import Optional, Tuple, Union

import numpy as np

from . import _arrays as arrays
from ._arrays import Array, ArrayLike, Floats, array_of, target
from ._calls import Call, run
from ._elements import Elements, weights
from ._library import ERROR_OPTION, Error


def dot(a: ArrayLike, b: ArrayLike, *, backend: Optional[str] = None) -> np.float32:
    """The dot product of two vectors, each contiguous."""
    x, y = array_of(a, "a"), array_of(b, "b")

    def make() -> Call:
        arrays.axes(x, "a", 1)
        arrays.axes(y, "b", 1)
        arrays.floats(x, "a", x.size)
        arrays.floats(y, "b", x.size)
        call = Call("sdpa_dot_on", backend)
        call.pointer(x)
        call.pointer(y)
        call.arguments.append(x.size)
        call.pointer(x)  # of out
        call.shapes = [()]
        return call

    return np.float32(run(("a", "b", "out"), (x, y), None, ("dot", backend), make))


def softmax(
    x: ArrayLike, axis: int = -1, *, out: Optional[ArrayLike] = None, backend: Optional[str] = None
) -> Floats:
    """The softmax along an axis, of an array of any number of axes; `out` may be `x` itself (in place).

    Of a score grid, which has a row per key and a column per query, axis 0 gives the pattern (attention weights).
    The last axis and the others sum in different orders, each of which gives the same bits on every machine.
    """
    source = array_of(x, "x")
    given = None if out is None else target(out, "out")
    if source.ndim == 0:
        raise ValueError("x: no axis")
    if not -source.ndim <= axis < source.ndim:
        raise ValueError(f"axis: {axis}, and x has {source.ndim} axes")
    axis %= source.ndim
    if source.ndim > 2:
        arrays.check_floats(source, "x")
        if given is None:
            given = np.empty(source.shape, arrays.F32)
        elif given.shape != source.shape:
            raise ValueError(f"out: shape {given.shape} for {source.shape}")
        # Along the first axis that is neither this one nor the last.
        other = 0 if axis else 1
        for part, to in zip(np.moveaxis(source, other, 0), np.moveaxis(given, other, 0)):
            softmax(part, axis - (other < axis), out=to, backend=backend)
        return given
    if source.ndim == 1:
        if given is not None:
            arrays.axes(given, "out", 1)
            softmax_2d(source[None], 1, given[None], backend)
            return given
        row: Floats = softmax_2d(source[None], 1, None, backend)[0]
        return row
    return softmax_2d(source, axis, given, backend)


def softmax_2d(x: Array, axis: int, out: Optional[Array], backend: Optional[str]) -> Floats:
    def make() -> Call:
        call = Call("sdpa_softmax_rows_on" if axis else "sdpa_softmax_columns_on", backend)
        call.view(arrays.matrix(x, "x"))
        call.shapes = [x.shape]
        to = np.empty(x.shape, arrays.F32) if out is None else out
        call.view(arrays.matrix(to, "out"))
        return call

    return run(("x", "out"), (x,), out, ("softmax", axis, backend), make)


def scores(
    keys: ArrayLike,
    queries: ArrayLike,
    *,
    scale: Optional[float] = None,
    out: Optional[ArrayLike] = None,
    backend: Optional[str] = None,
) -> Floats:
    """The score grid, keys × queries: scale · keys · queriesᵀ. Without a scale it is 1/√dim."""
    k, q = array_of(keys, "keys"), array_of(queries, "queries")
    given = None if out is None else target(out, "out")
    factor = scale_of(scale)

    def make() -> Call:
        return product("sdpa_scores_on", {"keys": k, "queries": q}, given, k.shape[:1] + q.shape[:1], backend, factor)

    return run(("keys", "queries", "out"), (k, q), given, ("scores", factor, backend), make)


def weighted_sum(
    pattern: ArrayLike, values: ArrayLike, *, out: Optional[ArrayLike] = None, backend: Optional[str] = None
) -> Floats:
    """The outputs of a pattern, queries × width: patternᵀ · values, of a pattern keys × queries."""
    p, v = array_of(pattern, "pattern"), array_of(values, "values")
    given = None if out is None else target(out, "out")

    def make() -> Call:
        return product("sdpa_weighted_sum_on", {"pattern": p, "values": v}, given, p.shape[1:] + v.shape[1:], backend)

    return run(("pattern", "values", "out"), (p, v), given, ("weighted_sum", backend), make)


def product(
    name: str,
    factors: dict[str, Array],
    out: Optional[Array],
    shape: Tuple[int, ...],
    backend: Optional[str],
    scale: float = 0.0,
) -> Call:
    call = Call(name, backend)
    for factor, array in factors.items():
        call.view(arrays.matrix(array, factor))
    if name == "sdpa_scores_on":
        call.arguments.append(scale)
    call.view(arrays.matrix(np.empty(shape, arrays.F32) if out is None else out, "out"))
    call.shapes = [shape]
    return call


def project(
    x: ArrayLike,
    w: Union[ArrayLike, Elements],
    bias: Optional[ArrayLike] = None,
    *,
    out: Optional[ArrayLike] = None,
    backend: Optional[str] = None,
) -> Floats:
    """The projection x · w + bias, of x tokens × inputs and w inputs × outputs.

    The weight of a PyTorch `nn.Linear` is outputs × inputs: pass `layer.weight.detach().T`, which copies nothing. Weights of
    16 and 8 bits: `narrow(layer.weight.detach(), "i8").T`.
    """
    if isinstance(w, Elements):
        return project_elements(array_of(x, "x"), w, bias, out, backend)
    rows, weights = array_of(x, "x"), array_of(w, "w")
    added = None if bias is None else array_of(bias, "bias")
    given = None if out is None else target(out, "out")

    def make() -> Call:
        call = Call("sdpa_project_on", backend)
        call.view(arrays.matrix(rows, "x"))
        call.view(arrays.matrix(weights, "w"))
        if added is not None:
            arrays.floats(added, "bias", weights.shape[1])
        call.pointer(added)
        call.shapes = [(rows.shape[0], weights.shape[1])]
        call.view(arrays.matrix(np.empty(call.shapes[0], arrays.F32) if given is None else given, "out"))
        return call

    return run(("x", "w", "bias", "out"), (rows, weights, added), given, ("project", backend), make)


def project_elements(
    x: Array, w: Elements, bias: Optional[ArrayLike], out: Optional[ArrayLike], backend: Optional[str]
) -> Floats:
    added = None if bias is None else array_of(bias, "bias")
    given = None if out is None else target(out, "out")
    view = weights(w)

    def make() -> Call:
        call = Call("sdpa_project_elements_on", backend)
        call.view(arrays.matrix(x, "x"))
        call.view(view)
        if w.scales is None:
            call.cells.append(None)
        else:
            call.field(view, "scales")
        if added is not None:
            arrays.floats(added, "bias", w.data.shape[1])
        call.pointer(added)
        call.shapes = [(x.shape[0], w.data.shape[1])]
        call.view(arrays.matrix(np.empty(call.shapes[0], arrays.F32) if given is None else given, "out"))
        return call

    names = ("x", "w", "scales", "bias", "out")
    return run(names, (x, w.data, w.scales, added), given, ("project", w.format, backend), make)


def number_of(given: float, name: str) -> float:
    """Rounded to a float32."""
    try:
        return ctypes.c_float(given).value
    except (TypeError, OverflowError):
        raise TypeError(f"{name}: {given!r} is no number") from None


def scale_of(scale: Optional[float]) -> float:
    """The scale as the library takes it, for which 0 is the default."""
    number = 0.0 if scale is None else number_of(scale, "scale")
    if number == 0 and scale is not None:
        raise ValueError(f"scale: {scale!r} is 0 as a float32; without one it is 1/√dim")
    if not math.isfinite(number):
        raise Error(ERROR_OPTION, f"scale {scale!r}")
    return number
