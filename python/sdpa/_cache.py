"""A KV cache."""

from __future__ import annotations

import ctypes
import operator
import threading
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from . import _arrays as arrays
from ._arrays import F32, Array, ArrayLike, Floats, address, array_of, target
from ._attention import (
    Masks, Outputs, Scalars, Sink, Window, count_of, log_shape, logs_of, masks_of, out_shape, put_options, scalars_of, tokens,
)  # fmt: skip
from ._calls import FREE, Call, fill, refuse, register, shape_of
from ._elements import check_format
from ._library import FORMATS, KEY_BLOCK, SPAN, CacheState, Error, Heads, Matrix, library


class Cache:
    """The keys and values of one KV head, of which the oldest may be dropped (sliding window).

    `capacity`: the number of keys that it surely holds, whatever has been dropped; `keep_first(n)` takes n of it, rounded
    up to a multiple of 64. `position`: that of the first key.
    `format`: what keys and values are rounded to, "f32", "f16", "bf16" or "i8" (a scale for each of them), or a pair, of
    keys and of values. A model with several KV heads has one cache per KV head. Threads may share a cache; their calls of it wait for each
    other.
    """

    def __init__(
        self,
        capacity: int,
        dim: int,
        value_dim: Optional[int] = None,
        *,
        format: Union[str, Tuple[str, str]] = "f32",
        position: int = 0,
    ) -> None:
        value_dim = dim if value_dim is None else value_dim
        for name, number in ("capacity", capacity), ("dim", dim), ("value_dim", value_dim), ("position", position):
            if not 0 <= operator.index(number) < 1 << 63:
                raise ValueError(f"{name}: {number}")
        # The oldest block may hold a single key.
        blocks = (capacity + KEY_BLOCK - 2) // KEY_BLOCK + 1
        pair = (format, format) if isinstance(format, str) else format
        try:
            of_keys, of_values = pair
        except (TypeError, ValueError):
            raise TypeError(f"format: {format!r} for one, or a pair of keys and values") from None
        for side in of_keys, of_values:
            check_format(side)
        formats = [FORMATS[of_keys], FORMATS[of_values]]
        length = library.sdpa_cache_floats_of(dim, value_dim, blocks, *formats)
        if length > 1 << 48:
            raise MemoryError(f"a cache of {capacity} keys")
        self._storage = np.zeros(length, F32)
        self._state = CacheState()
        self._has_elements = any(formats)
        # Held from the look at the number of keys, which masks must have, to the end of a call.
        self._lock = threading.RLock()
        storage = ctypes.c_void_p(address(self._storage))
        self._change("sdpa_cache_init_elements", dim, value_dim, *formats, storage, length, position)

    def _change(self, name: str, *arguments: object, given: Sequence[Tuple[str, Array]] = ()) -> None:
        with self._lock:
            status = getattr(library, name)(ctypes.byref(self._state), *arguments)
        if status:
            shapes = [f"{array} {of.shape}" for array, of in given]
            raise Error(status, ", ".join([*shapes, f"cache of {self!r}"]))

    def __repr__(self) -> str:
        state = self._state
        return f"{self._held()} keys × {state.dim}, values × {state.value_dim}"

    def _held(self) -> int:
        state = self._state
        return int(state.appended - max(state.dropped - state.kept, 0))

    def __len__(self) -> int:
        with self._lock:
            return self._held()

    @property
    def appended(self) -> int:
        """The position of the next key."""
        return int(self._state.appended)

    @property
    def dropped(self) -> int:
        """The position of the oldest key in the cache that is not kept."""
        return int(self._state.dropped)

    def append(self, keys: ArrayLike, values: ArrayLike) -> None:
        """Appends keys, [tokens, dim], and their values; [dim] is one token."""
        views: list[Matrix] = []
        given = ("keys", array_of(keys, "keys")), ("values", array_of(values, "values"))
        for name, array in given:
            array = array[None] if array.ndim == 1 else array
            view = arrays.matrix(array, name)
            view.data = address(array)
            views.append(view)
        self._change("sdpa_cache_append_elements", *views, given=given)

    def truncate(self, length: int) -> None:
        """Removes the newest keys, so that the oldest `length` remain."""
        self._change("sdpa_cache_truncate", count_of(length, "length"))

    def truncate_to(self, position: int) -> None:
        """Removes the keys at `position` and after it; the next key has that position."""
        self._change("sdpa_cache_truncate_to", count_of(position, "position"))

    def keep_first(self, keys: int) -> None:
        """Keeps the first keys (attention sinks): `slide` drops none of them, and every query sees them, whatever its
        window. Before any key is dropped. They take whole blocks of 64 keys of the capacity."""
        self._change("sdpa_cache_keep_first", count_of(keys, "keys"))

    def slide(self, length: int) -> None:
        """Drops the oldest keys until at most `length` remain, which keep their positions."""
        self._change("sdpa_cache_slide", count_of(length, "length"))

    def attend(
        self,
        queries: ArrayLike,
        *,
        scale: Optional[float] = None,
        softcap: Optional[float] = None,
        causal: bool = False,
        window: Optional[Window] = None,
        query_offset: int = 0,
        bias: Optional[ArrayLike] = None,
        keep: Optional[ArrayLike] = None,
        attn_mask: Optional[ArrayLike] = None,
        sink: Optional[Sink] = None,
        slopes: Optional[ArrayLike] = None,
        heads_axis: int = 0,
        out: Optional[ArrayLike] = None,
        log_sum_exp: Union[bool, ArrayLike] = False,
        backend: Optional[str] = None,
    ) -> Outputs:
        """`attention` over the keys in the cache, with the bits of `attention` over every key ever appended, the dropped
        ones masked. The last query is at the newest position, plus `query_offset`. Masks have one row per key in the
        cache, oldest first. Queries with heads share the KV head (grouped queries)."""
        q = array_of(queries, "queries")
        given = None if out is None else target(out, "out")
        logs = None if log_sum_exp is False else logs_of(log_sum_exp, log_shape(q, heads_axis))
        scalars = scalars_of(scale, softcap, causal, window, query_offset, 0)
        with self._lock:
            masks = masks_of(bias, keep, attn_mask, sink, slopes, len(self), tokens(q, heads_axis))
            to = self._attend(q, scalars, masks, heads_axis, given, logs, backend)
        return to if logs is None else (to, logs)

    def _attend(
        self,
        q: Array,
        scalars: Scalars,
        masks: Masks,
        heads_axis: int,
        given: Optional[Array],
        logs: Optional[Array],
        backend: Optional[str],
    ) -> Array:
        state = self._state

        def make() -> Call:
            call, view = self._call("attend", q, heads_axis, backend)
            put_options(call, scalars, masks, view.heads, view.heads)
            call.shapes = [out_shape(q, state.value_dim)]
            call.view(arrays.heads(np.empty(call.shapes[0], F32) if given is None else given, "out", heads_axis))
            call.pointer(logs)
            call.workspace(state.dim, state.value_dim, elements=self._has_elements)
            return call

        key = ("attend", scalars, *map(shape_of, (q, *masks, given, logs)), heads_axis, backend, state.dim,
               state.value_dim, self._has_elements)  # fmt: skip
        try:
            call = FREE[key].pop()
        except (KeyError, IndexError):
            call = make()
            register(key, call)
        to = np.empty(call.shapes[0], F32) if given is None else given
        self._run(call, (q, *masks, to, logs), ("queries", "bias", "keep", "sink", "slopes", "out", "log_sum_exp"))
        call.pool.append(call)
        return to

    def pattern(
        self,
        queries: ArrayLike,
        *,
        scale: Optional[float] = None,
        softcap: Optional[float] = None,
        causal: bool = False,
        window: Optional[Window] = None,
        query_offset: int = 0,
        bias: Optional[ArrayLike] = None,
        keep: Optional[ArrayLike] = None,
        attn_mask: Optional[ArrayLike] = None,
        sink: Optional[Sink] = None,
        slopes: Optional[ArrayLike] = None,
        heads_axis: int = 0,
        mean: bool = False,
        out: Optional[ArrayLike] = None,
        backend: Optional[str] = None,
    ) -> Floats:
        """`sdpa.pattern` over the keys in the cache, a row for each, the oldest first, with query positions and masks as in
        `attend`."""
        q = array_of(queries, "queries")
        scalars = scalars_of(scale, softcap, causal, window, query_offset, 0)
        with self._lock:
            keys, state = len(self), self._state
            masks = masks_of(bias, keep, attn_mask, sink, slopes, keys, tokens(q, heads_axis))
            call = Call("sdpa_cache_pattern_mean_on" if mean else "sdpa_cache_pattern_heads_on", backend)
            call.arguments.append(None)  # the cache
            view = arrays.heads(q, "queries", heads_axis)
            call.view(view)
            put_options(call, scalars, masks, view.heads, view.heads)
            shape = (keys, view.rows) if mean or q.ndim == 2 else (view.heads, keys, view.rows)
            to = np.empty(shape, F32) if out is None else target(out, "out")
            call.view(arrays.matrix(to, "out") if mean else arrays.heads(to, "out", 0))
            widened = KEY_BLOCK * state.dim if state.key_format else 0
            space = np.empty(widened + (keys * view.rows if mean else 0), F32)
            call.pointer(space)
            call.arguments.append(space.size)
            self._run(call, (q, *masks, to, space), ("queries", "bias", "keep", "sink", "slopes", "out", "workspace"))
        return to

    def states(
        self,
        queries: ArrayLike,
        *,
        scale: Optional[float] = None,
        softcap: Optional[float] = None,
        causal: bool = False,
        window: Optional[Window] = None,
        query_offset: int = 0,
        bias: Optional[ArrayLike] = None,
        keep: Optional[ArrayLike] = None,
        attn_mask: Optional[ArrayLike] = None,
        slopes: Optional[ArrayLike] = None,
        heads_axis: int = 0,
        backend: Optional[str] = None,
    ) -> Floats:
        """`sdpa.states` of the spans in which the cache holds keys, with query positions as in `attend`."""
        q = array_of(queries, "queries")
        scalars = scalars_of(scale, softcap, causal, window, query_offset, 0)
        with self._lock:
            masks = masks_of(bias, keep, attn_mask, None, slopes, len(self), tokens(q, heads_axis))
            return self._states(q, scalars, masks, heads_axis, backend)

    def _states(self, q: Array, scalars: Scalars, masks: Masks, heads_axis: int, backend: Optional[str]) -> Array:
        state = self._state
        call, view = self._call("states", q, heads_axis, backend)
        put_options(call, scalars, masks, None, view.heads)
        spans = -(-state.appended // SPAN) - state.dropped // SPAN if len(self) else 0
        own = () if q.ndim == 2 else (view.heads,)
        to = np.empty((spans, *own, view.rows, state.value_dim + 4), F32)
        call.pointer(to)
        call.arguments.append(to.size)
        call.workspace(state.dim, state.value_dim, elements=self._has_elements)
        self._run(call, (q, *masks, to), ("queries", "bias", "keep", "sink", "slopes", "states"))
        return to

    def _call(self, name: str, q: Array, heads_axis: int, backend: Optional[str]) -> Tuple[Call, Heads]:
        kind = "elements" if self._has_elements else "heads"
        call = Call(f"sdpa_cache_{name}_{kind}_on", backend)
        call.arguments.append(None)  # the cache
        view = arrays.heads(q, "queries", heads_axis)
        call.view(view)
        return call, view

    def _run(self, call: Call, all_arrays: Tuple[Optional[Array], ...], names: Tuple[str, ...]) -> None:
        fill(call, all_arrays)
        call.arguments[1] = ctypes.byref(self._state)
        status = call.function(*call.arguments)
        if status:
            refuse(status, names, all_arrays)
