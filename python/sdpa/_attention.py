"""Attention of one or many heads, its pattern, states of parts of the keys, and what joins them."""

from __future__ import annotations

import functools
import math
import operator
from ctypes import c_size_t, c_void_p
from typing import Any, Callable, Hashable, Literal, Optional, Sequence, Tuple, Union, overload

import numpy as np
from numpy import empty, ndarray

from . import _arrays as arrays
from ._arrays import F32, Array, ArrayLike, Floats, address, array_of, target
from ._calls import FREE, Call, fill, refuse, register, run, shape_of
from ._library import CAUSAL, ERROR_OPTION, NO_LIMIT, SPAN, WINDOW, Error, Options
from ._operations import number_of, scale_of

Window = Tuple[Optional[int], Optional[int]]
Sink = Union[float, ArrayLike]
# Scale and softcap, 0 without one; causal, window, query_offset, keep_first.
Scalars = Tuple[float, float, bool, Optional[Tuple[int, int]], int, int]
# bias and keep, keys x queries or heads x keys x queries; the sinks and the slopes.
Masks = Tuple[Optional[Array], Optional[Array], Optional[Array], Optional[Array]]
NO_MASKS: Masks = (None, None, None, None)
DEFAULT: Scalars = (0.0, 0.0, False, None, 0, 0)
# Cumulative lengths of sequences.
Lengths = Union[Sequence[int], ArrayLike]
Outputs = Union[Floats, Tuple[Floats, Floats]]
NAMES = ("queries", "keys", "values", "bias", "keep", "sink", "slopes", "out", "log_sum_exp")


@overload
def attention(
    queries: ArrayLike, keys: ArrayLike, values: ArrayLike, *, scale: Optional[float] = ...,
    softcap: Optional[float] = ..., causal: bool = ..., window: Optional[Window] = ..., query_offset: int = ...,
    keep_first: int = ...,
    bias: Optional[ArrayLike] = ..., keep: Optional[ArrayLike] = ..., attn_mask: Optional[ArrayLike] = ...,
    sink: Optional[Sink] = ..., slopes: Optional[ArrayLike] = ..., heads_axis: int = ...,
    out: Optional[ArrayLike] = ..., log_sum_exp: Literal[False] = ..., backend: Optional[str] = ...,
) -> Floats: ...  # fmt: skip
@overload
def attention(
    queries: ArrayLike, keys: ArrayLike, values: ArrayLike, *, scale: Optional[float] = ...,
    softcap: Optional[float] = ..., causal: bool = ..., window: Optional[Window] = ..., query_offset: int = ...,
    keep_first: int = ...,
    bias: Optional[ArrayLike] = ..., keep: Optional[ArrayLike] = ..., attn_mask: Optional[ArrayLike] = ...,
    sink: Optional[Sink] = ..., slopes: Optional[ArrayLike] = ..., heads_axis: int = ...,
    out: Optional[ArrayLike] = ..., log_sum_exp: Union[Literal[True], ArrayLike], backend: Optional[str] = ...,
) -> Tuple[Floats, Floats]: ...  # fmt: skip
def attention(
    queries: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    *,
    scale: Optional[float] = None,
    softcap: Optional[float] = None,
    causal: bool = False,
    window: Optional[Window] = None,
    query_offset: int = 0,
    keep_first: int = 0,
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
    """Scaled dot-product attention: for each query the sum of the values, weighted by the query's column of `pattern`.

    Of one head: queries, keys and values are [tokens, dim]. Of several: [heads, tokens, dim], or with `heads_axis=1`
    [tokens, heads, dim]; the output has the layout of the queries. Each group of consecutive query heads shares one of
    fewer KV heads (grouped queries); keys and values of two axes are one KV head for all.

    * `scale`: 1/√dim without one. `softcap`: a score s becomes softcap · tanh(s / softcap).
    * `causal`: query i, at position query_offset + i, sees the keys up to that position; key j is at position j.
    * `window=(left, right)`: it sees so many keys before and after; None for no limit on that side.
    * `keep_first`: so many first keys are visible before the window too (attention sinks).
    * `bias`: float32, **keys × queries**, added to the scores; `keep`: bool or uint8, **keys × queries**, 0 masks.
      Either may be one for each query head, [heads, keys, queries]. One element per key, [keys], serves every query
      (padding).
    * `attn_mask`: either of them as PyTorch has it, **queries × keys**.
    * `slopes`: ALiBi, one slope for each query head: a score becomes s - slope · |position of the query - of the key|.
    * `sink`: a score in the denominator only, one for all or one for each query head.
    * `out`: written instead of a new array. `log_sum_exp`: True, or an array to write, for a second result,
      [queries] or [heads, queries].
    * `backend`: one of `backends()`; "portable" gives the bits of a microcontroller.
    """
    q = queries if type(queries) is ndarray else array_of(queries, "queries")
    k = keys if type(keys) is ndarray else array_of(keys, "keys")
    v = values if type(values) is ndarray else array_of(values, "values")
    if bias is keep is attn_mask is sink is slopes is None:
        masks, mask_key = NO_MASKS, None
    else:
        masks, mask_key = masks_as_given(bias, keep, attn_mask, sink, slopes)
    given = None if out is None else target(out, "out")
    logs = None
    if log_sum_exp is not False:
        logs = logs_of(log_sum_exp, log_shape(q, heads_axis))
    are_default = scale is None and softcap is None and window is None
    if are_default and query_offset.__class__ is keep_first.__class__ is int:
        scalars: Scalars = (0.0, 0.0, bool(causal), None, query_offset, keep_first)
    else:
        scalars = scalars_of(scale, softcap, causal, window, query_offset, keep_first)
    key = (
        q.shape, q.strides, q.dtype, k.shape, k.strides, k.dtype, v.shape, v.strides, v.dtype,
        scalars, heads_axis, backend,
        mask_key, given is None or (given.shape, given.strides, given.dtype), logs is None,
    )  # fmt: skip
    try:
        call = FREE[key].pop()
    except (KeyError, IndexError):
        checked = masks_of(bias, keep, attn_mask, sink, slopes, tokens(k, heads_axis), tokens(q, heads_axis))
        call = attention_call((q, k, v), scalars, checked, heads_axis, given, logs, backend)
        register(key, call)
    to: Array = empty(call.shapes[0], F32) if given is None else given
    cells = call.cells
    if masks is NO_MASKS and logs is None:
        cells[0].value = address(q)  # type: ignore[union-attr]
        cells[1].value = address(k)  # type: ignore[union-attr]
        cells[2].value = address(v)  # type: ignore[union-attr]
        cells[7].value = address(to)  # type: ignore[union-attr]
    else:
        fill(call, (q, k, v, *masks, to, logs))
    status = call.function(*call.arguments)
    call.pool.append(call)
    if status:
        refuse(status, NAMES, (q, k, v, *masks, to, logs))
    return to if logs is None else (to, logs)


@overload
def attention_packed(
    queries: ArrayLike, keys: ArrayLike, values: ArrayLike, cu_seqlens_q: Lengths, cu_seqlens_k: Optional[Lengths] = ...,
    *, scale: Optional[float] = ..., softcap: Optional[float] = ..., causal: bool = ..., window: Optional[Window] = ...,
    query_offset: int = ..., keep_first: int = ...,
    bias: Optional[ArrayLike] = ..., keep: Optional[ArrayLike] = ..., attn_mask: Optional[ArrayLike] = ...,
    sink: Optional[Sink] = ..., slopes: Optional[ArrayLike] = ..., heads_axis: int = ...,
    out: Optional[ArrayLike] = ..., log_sum_exp: Literal[False] = ..., backend: Optional[str] = ...,
) -> Floats: ...  # fmt: skip
@overload
def attention_packed(
    queries: ArrayLike, keys: ArrayLike, values: ArrayLike, cu_seqlens_q: Lengths, cu_seqlens_k: Optional[Lengths] = ...,
    *, scale: Optional[float] = ..., softcap: Optional[float] = ..., causal: bool = ..., window: Optional[Window] = ...,
    query_offset: int = ..., keep_first: int = ...,
    bias: Optional[ArrayLike] = ..., keep: Optional[ArrayLike] = ..., attn_mask: Optional[ArrayLike] = ...,
    sink: Optional[Sink] = ..., slopes: Optional[ArrayLike] = ..., heads_axis: int = ...,
    out: Optional[ArrayLike] = ..., log_sum_exp: Union[Literal[True], ArrayLike], backend: Optional[str] = ...,
) -> Tuple[Floats, Floats]: ...  # fmt: skip
def attention_packed(
    queries: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    cu_seqlens_q: Lengths,
    cu_seqlens_k: Optional[Lengths] = None,
    *,
    scale: Optional[float] = None,
    softcap: Optional[float] = None,
    causal: bool = False,
    window: Optional[Window] = None,
    query_offset: int = 0,
    keep_first: int = 0,
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
    """`attention` of sequences that lie one after another along the tokens (packed, of variable length): a query sees the
    keys of its own sequence only, with the bits of a call for each.

    `cu_seqlens_q`, `cu_seqlens_k`: the cumulative lengths, from 0 to the number of tokens, as FlashAttention and vLLM have
    them; int32 arrays are not copied. Without the second the keys have the lengths of the queries.

    Positions are counted in each sequence, from `query_offset` and from 0. Masks have rows and columns for the tokens of
    all sequences, of which those of one sequence are read. The other arguments are those of `attention`."""
    qkv = (array_of(queries, "queries"), array_of(keys, "keys"), array_of(values, "values"))
    q, k, _ = qkv
    of_q = lengths_of(cu_seqlens_q, "cu_seqlens_q")
    of_k = of_q if cu_seqlens_k is None else lengths_of(cu_seqlens_k, "cu_seqlens_k")
    if of_q.size != of_k.size:
        raise ValueError(f"cu_seqlens_q and cu_seqlens_k: {of_q.size} and {of_k.size} numbers")
    masks = masks_of(bias, keep, attn_mask, sink, slopes, tokens(k, heads_axis), tokens(q, heads_axis))

    call = Call("sdpa_attention_packed_on", backend)
    view = functools.partial(arrays.heads, heads_axis=heads_axis)
    viewed, _, v = views(call, qkv, view)
    call.pointer(of_q)
    call.pointer(of_k)
    call.arguments.append(of_q.size - 1)
    scalars = scalars_of(scale, softcap, causal, window, query_offset, keep_first)
    put_options(call, scalars, masks, viewed.heads, viewed.heads)
    to = np.empty(out_shape(q, v.cols), F32) if out is None else target(out, "out")
    call.view(view(to, "out"))
    whole = None if log_sum_exp is False else logs_of(log_sum_exp, log_shape(q, heads_axis))
    # The library writes sequence after sequence.
    logs = None if whole is None else np.empty(whole.size, F32)
    call.pointer(logs)
    call.workspace(viewed.cols, v.cols)
    all_arrays = (*qkv, of_q, of_k, *masks, to, logs)
    fill(call, all_arrays)
    status = call.function(*call.arguments)
    if status:
        names = (*NAMES[:3], "cu_seqlens_q", "cu_seqlens_k", *NAMES[3:])
        refuse(status, names, all_arrays)
    if whole is None or logs is None:
        return to
    by_head = whole.reshape(viewed.heads, viewed.rows)
    for first, end in zip(of_q[:-1].tolist(), of_q[1:].tolist()):
        own = logs[viewed.heads * first : viewed.heads * end]
        by_head[:, first:end] = own.reshape(viewed.heads, end - first)
    return to, whole


def lengths_of(given: Lengths, name: str) -> Array:
    """Cumulative lengths as contiguous int32."""
    array = np.array(given) if isinstance(given, (list, tuple)) else array_of(given, name)  # type: ignore[arg-type]
    arrays.axes(array, name, 1)
    if array.size == 0:
        raise TypeError(f"{name}: no number; cumulative lengths begin with 0")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: {array.size} numbers of {array.dtype} for cumulative lengths, which begin with 0")
    lengths = np.ascontiguousarray(array, np.int32)
    if not np.array_equal(lengths, array):
        raise ValueError(f"{name}: a number beyond int32")
    return lengths


def attention_call(
    qkv: Tuple[Array, Array, Array],
    scalars: Scalars,
    masks: Masks,
    heads_axis: int,
    out: Optional[Array],
    logs: Optional[Array],
    backend: Optional[str],
) -> Call:
    arrays.check_heads_axis(heads_axis)
    # Of one head a call of its own, which costs a little less.
    one_head = all(array.ndim == 2 for array in qkv)
    call = Call("sdpa_attention_on" if one_head else "sdpa_attention_heads_on", backend)
    view = arrays.matrix if one_head else functools.partial(arrays.heads, heads_axis=heads_axis)
    q, _, v = views(call, qkv, view)
    put_options(call, scalars, masks, None if one_head else q.heads, 1 if one_head else q.heads)
    call.shapes = [out_shape(qkv[0], v.cols)]
    call.view(view(np.empty(call.shapes[0], F32) if out is None else out, "out"))
    call.pointer(logs)
    call.workspace(q.cols, v.cols)
    return call


def views(call: Call, qkv: Tuple[Array, Array, Array], view: Callable[[Array, str], Any]) -> list[Any]:
    q, k, v = qkv
    if q.ndim < k.ndim or k.ndim != v.ndim:
        raise ValueError(f"queries, keys and values have {q.ndim}, {k.ndim} and {v.ndim} axes")
    of = [view(array, name) for name, array in zip(NAMES, qkv)]
    for viewed in of:
        call.view(viewed)
    return of


def put_options(call: Call, scalars: Scalars, masks: Masks, sinks: Optional[int], heads: int) -> None:
    """Appends the options, and the sinks if the function takes so many; their arrays are bias, keep, sink and slopes,
    for so many heads."""
    scale, softcap, causal, window, query_offset, keep_first = scalars
    bias, keep, sink, slopes = masks
    if scalars == DEFAULT and sinks is None and bias is keep is sink is slopes is None:
        call.arguments.append(None)
        call.cells += [None, None, None, None]
        return
    options = Options(scale=scale, softcap=softcap, query_offset=query_offset)
    options.flags = CAUSAL if causal else 0
    options.keep_first = count_of(keep_first, "keep_first")
    if window is not None:
        options.flags |= WINDOW
        options.window_left, options.window_right = window
    call.reference(options)
    if bias is None:
        call.cells.append(None)
    else:
        one, options.bias_head_stride = of_one_head(bias, "bias", heads)
        options.bias = arrays.matrix(one, "bias")
        call.field(options, "bias")
    if keep is None:
        call.cells.append(None)
    else:
        one, options.keep_head_stride = of_one_head(keep, "keep", heads)
        options.keep_row_stride, options.keep_col_stride = arrays.element_strides(one, "keep")
        call.field(options, "keep")
    if sink is not None and (sinks is None or sink.size == 1):
        arrays.floats(sink, "sink", 1)
        call.field(options, "sink")
        if sinks is not None:
            call.arguments.append(None)
    elif sinks is not None:
        if sink is not None:
            arrays.floats(sink, "sink", sinks)
        call.pointer(sink)
    else:
        call.cells.append(None)
    if slopes is None:
        call.cells.append(None)
    else:
        arrays.floats(slopes, "slopes", heads)
        call.field(options, "slopes")


def scalars_of(
    scale: Optional[float],
    softcap: Optional[float],
    causal: bool,
    window: Optional[Window],
    query_offset: int,
    keep_first: int,
) -> Scalars:
    """Each of its own type: a call is found again by them, and 1.0 and True equal 1."""
    cap = 0.0 if softcap is None else number_of(softcap, "softcap")
    if cap == 0 and softcap:
        raise ValueError(f"softcap: {softcap!r} is 0 as a float32, which is none")
    if not 0 <= cap < math.inf:
        raise Error(ERROR_OPTION, f"softcap {softcap!r}")
    limits = None
    if window is not None:
        try:
            left, right = window
        except (TypeError, ValueError):
            raise TypeError(f"window: {window!r} for (left, right)") from None
        limits = limit(left), limit(right)
    at, first = index_of(query_offset, "query_offset"), index_of(keep_first, "keep_first")
    return scale_of(scale), cap, bool(causal), limits, at, first


def index_of(number: int, name: str) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name}: {number!r} is no whole number") from None


def count_of(given: int, name: str) -> int:
    """A number of keys, or a position. Beyond the largest number of the library's type it is that one."""
    number = index_of(given, name)
    if number < 0:
        raise ValueError(f"{name}: {number} for 0 or more")
    return min(number, NO_LIMIT)


def of_one_head(mask: Array, name: str, heads: int) -> Tuple[Array, int]:
    """The mask of the first head, and the stride to the next: 0 where one serves all heads."""
    if mask.ndim == 2:
        return mask, 0
    if len(mask) != heads:
        raise ValueError(f"{name}: {len(mask)} heads for {heads}")
    first = mask[0] if heads else np.empty(mask.shape[1:], mask.dtype)
    return first, arrays.element_strides(mask, name)[0]


def limit(keys: Optional[int]) -> int:
    return NO_LIMIT if keys is None else count_of(keys, "window")


def tokens(array: Array, heads_axis: int) -> int:
    return array.shape[0 if array.ndim == 2 or heads_axis else 1] if array.ndim > 1 else 0


def out_shape(queries: Array, width: int) -> Tuple[int, ...]:
    return (*queries.shape[:-1], width)


def log_shape(queries: Array, heads_axis: int) -> Tuple[int, ...]:
    if queries.ndim < 3:
        return queries.shape[:1]
    return (queries.shape[heads_axis], queries.shape[1 - heads_axis]) if heads_axis in (0, 1) else ()


def logs_of(given: Union[bool, ArrayLike], shape: Tuple[int, ...]) -> Array:
    if given is True:
        return np.empty(shape, F32)
    array = target(given, "log_sum_exp")  # type: ignore[arg-type]
    if array.shape != shape:
        raise ValueError(f"log_sum_exp: shape {array.shape} for {shape}")
    arrays.floats(array, "log_sum_exp", array.size)
    return array


def masks_of(
    bias: Optional[ArrayLike],
    keep: Optional[ArrayLike],
    attn_mask: Optional[ArrayLike],
    sink: Optional[Sink],
    slopes: Optional[ArrayLike],
    keys: int,
    queries: int,
) -> Masks:
    """The masks as keys × queries or heads × keys × queries, as views."""
    added, kept, sinks = None, None, None
    if attn_mask is not None:
        mask = array_of(attn_mask, "attn_mask")
        turned = spread(mask, (queries, keys), "attn_mask (queries, keys)").swapaxes(-1, -2)
        if mask.dtype == np.bool_:
            kept = turned
        elif mask.dtype == F32:
            added = turned
        else:
            raise TypeError(f"attn_mask: {mask.dtype} for bool (True keeps) or float32 (added)")
    if bias is not None:
        if added is not None:
            raise ValueError("bias and a float attn_mask are the same thing; add them up")
        added = spread(array_of(bias, "bias"), (keys, queries), "bias (keys, queries)")
    if keep is not None:
        if kept is not None:
            raise ValueError("keep and a boolean attn_mask are the same thing; combine them with &")
        kept = spread(array_of(keep, "keep"), (keys, queries), "keep (keys, queries)")
        if kept.dtype != np.bool_ and kept.dtype != np.uint8:
            raise TypeError(f"keep: {kept.dtype} for bool or uint8")
    if sink is not None:
        sinks = np.array([number_of(sink, "sink")], F32) if isinstance(sink, (int, float)) else array_of(sink, "sink")
    return added, kept, sinks, None if slopes is None else array_of(slopes, "slopes")


def masks_as_given(
    bias: Optional[ArrayLike],
    keep: Optional[ArrayLike],
    attn_mask: Optional[ArrayLike],
    sink: Optional[Sink],
    slopes: Optional[ArrayLike],
) -> Tuple[Masks, Hashable]:
    """The arrays of the masks, whose first elements are those of the views of `masks_of`, and what tells their shapes
    apart."""
    added = None if bias is None else array_of(bias, "bias")
    kept = None if keep is None else array_of(keep, "keep")
    turned = None if attn_mask is None else array_of(attn_mask, "attn_mask")
    sinks = None
    if sink is not None:
        sinks = np.array([number_of(sink, "sink")], F32) if isinstance(sink, (int, float)) else array_of(sink, "sink")
    slope = None if slopes is None else array_of(slopes, "slopes")
    key = (shape_of(added), shape_of(kept), shape_of(turned), shape_of(sinks), shape_of(slope))
    if turned is not None:
        if turned.dtype == np.bool_:
            kept = turned
        else:
            added = turned
    return (added, kept, sinks, slope), key


def spread(mask: Array, shape: Tuple[int, int], name: str) -> Array:
    """Repeats a mask for all queries, as a view. One of a single axis is per key, one of three has a head per query head
    or one for all."""
    while mask.ndim > 2 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.shape == shape:
        return mask
    if mask.ndim == 1 and not name.startswith("attn_mask"):
        mask = mask[:, None]
    if mask.ndim > 3:
        raise ValueError(f"{name}: {mask.ndim} axes")
    try:
        return np.broadcast_to(mask, (*mask.shape[:-2], *shape))
    except ValueError:
        raise ValueError(f"{name}: shape {mask.shape} for {shape}") from None


def pattern(
    queries: ArrayLike,
    keys: ArrayLike,
    *,
    scale: Optional[float] = None,
    softcap: Optional[float] = None,
    causal: bool = False,
    window: Optional[Window] = None,
    query_offset: int = 0,
    keep_first: int = 0,
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
    """The attention weights, **keys × queries**, or [heads, keys, queries]; each column sums to 1 less the weight of the
    sink. With `mean=True` the mean of all heads, keys × queries. Other arguments are those of `attention`. PyTorch's
    weights are the transpose."""
    q, k = array_of(queries, "queries"), array_of(keys, "keys")
    given = None if out is None else target(out, "out")
    key_count, query_count = tokens(k, heads_axis), tokens(q, heads_axis)
    masks = masks_of(bias, keep, attn_mask, sink, slopes, key_count, query_count)
    scalars = scalars_of(scale, softcap, causal, window, query_offset, keep_first)
    names = ("queries", "keys", "bias", "keep", "sink", "slopes")
    if q.ndim == 2:
        # Of one head, which is its own mean.
        def make() -> Call:
            call = Call("sdpa_pattern_on", backend)
            call.view(arrays.matrix(q, "queries"))
            call.view(arrays.matrix(k, "keys"))
            put_options(call, scalars, masks, None, 1)
            put_grid(call, (key_count, query_count), given)
            return call

        return run((*names, "out"), (q, k, *masks), given, ("pattern", scalars, backend), make)

    def make_heads() -> Call:
        call = Call("sdpa_pattern_mean_on" if mean else "sdpa_pattern_heads_on", backend)
        viewed = arrays.heads(q, "queries", heads_axis)
        call.view(viewed)
        call.view(arrays.heads(k, "keys", heads_axis))
        put_options(call, scalars, masks, viewed.heads, viewed.heads)
        if mean:
            space = c_void_p()
            call.cells.append(space)
            put_grid(call, (key_count, query_count), given)
            call.arguments += [space, c_size_t(key_count * query_count)]
        else:
            put_grid(call, (viewed.heads, key_count, query_count), given)
        return call

    key = ("pattern", scalars, heads_axis, bool(mean), backend)
    if not mean:
        return run((*names, "out"), (q, k, *masks), given, key, make_heads)
    # Of each call anew: a prepared call would hold as much as a grid.
    workspace = np.empty(key_count * query_count, F32)
    return run((*names, "workspace", "out"), (q, k, *masks, workspace), given, key, make_heads)


def put_grid(call: Call, shape: Tuple[int, ...], out: Optional[Array]) -> None:
    """Appends the output, of this shape if it is not given."""
    call.shapes = [shape]
    grid = np.empty(shape, F32) if out is None else out
    call.view(arrays.matrix(grid, "out") if len(shape) == 2 else arrays.heads(grid, "out", 0))


def merge(
    out: ArrayLike,
    log_sum_exp: ArrayLike,
    other_out: ArrayLike,
    other_log_sum_exp: ArrayLike,
    *,
    in_place: bool = False,
    backend: Optional[str] = None,
) -> Tuple[Floats, Floats]:
    """Attention over two disjoint sets of keys, from the output and log-sum-exp over each: [queries, width] and
    [queries], or [heads, queries, width] and [heads, queries]. In place it writes the first two."""
    ours, theirs = (target if in_place else array_of)(out, "out"), array_of(other_out, "other_out")
    logs = (target if in_place else array_of)(log_sum_exp, "log_sum_exp")
    other_logs = array_of(other_log_sum_exp, "other_log_sum_exp")
    for name, array in ("out", ours), ("other_out", theirs):
        arrays.check_floats(array, name)
        arrays.axes(array, name, 2, 3)
        if array.shape != ours.shape:
            raise ValueError(f"{name}: shape {array.shape} for {ours.shape}")
    for name, array in ("log_sum_exp", logs), ("other_log_sum_exp", other_logs):
        if array.shape != ours.shape[:-1]:
            raise ValueError(f"{name}: shape {array.shape} for {ours.shape[:-1]}")
        arrays.floats(array, name, array.size)
    if not in_place:
        ours, logs = ours.copy(), logs.copy()
    if ours.ndim == 2:
        merge_heads(ours, logs, theirs, other_logs, backend)
    else:
        for parts in zip(ours, logs, theirs, other_logs):
            merge_heads(*parts, backend)
    return ours, logs


def merge_heads(ours: Array, logs: Array, theirs: Array, other_logs: Array, backend: Optional[str]) -> None:
    call = Call("sdpa_merge_on", backend)
    call.view(arrays.matrix(ours, "out"))
    call.pointer(logs)
    call.view(arrays.matrix(theirs, "other_out"))
    call.pointer(other_logs)
    all_arrays = (ours, logs, theirs, other_logs)
    fill(call, all_arrays)
    status = call.function(*call.arguments)
    if status:
        refuse(status, ("out", "log_sum_exp", "other_out", "other_log_sum_exp"), all_arrays)


def states(
    queries: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    *,
    first_key: int = 0,
    scale: Optional[float] = None,
    softcap: Optional[float] = None,
    causal: bool = False,
    window: Optional[Window] = None,
    query_offset: int = 0,
    keep_first: int = 0,
    bias: Optional[ArrayLike] = None,
    keep: Optional[ArrayLike] = None,
    attn_mask: Optional[ArrayLike] = None,
    slopes: Optional[ArrayLike] = None,
    heads_axis: int = 0,
    backend: Optional[str] = None,
) -> Floats:
    """The states of the spans of 1024 keys that these keys fill, for `join`: attention over a part of the keys, on any
    thread or machine. The first key is at position `first_key`, a multiple of `SPAN`; the other arguments are those of
    `attention`, and a sink is given to `join`.

    The result is [spans, queries, width + 4], or [spans, heads, queries, width + 4]; it can be sent and stored."""
    qkv = (array_of(queries, "queries"), array_of(keys, "keys"), array_of(values, "values"))
    masks = masks_of(bias, keep, attn_mask, None, slopes, tokens(qkv[1], heads_axis), tokens(qkv[0], heads_axis))
    scalars = scalars_of(scale, softcap, causal, window, query_offset, keep_first)

    first_key = index_of(first_key, "first_key")

    def make() -> Call:
        call = Call("sdpa_attention_states_heads_on", backend)
        q, k, v = views(call, qkv, functools.partial(arrays.heads, heads_axis=heads_axis))
        put_options(call, scalars, masks, None, q.heads)
        if not 0 <= first_key < 1 << 64:
            raise ValueError(f"first_key: {first_key}")
        spans = -(-k.rows // SPAN)
        own = () if qkv[0].ndim == 2 else (q.heads,)
        call.shapes = [(spans, *own, q.rows, v.cols + 4)]
        call.arguments.append(first_key)
        call.pointer(qkv[0])  # of states
        call.arguments.append(int(np.prod(call.shapes[0])))
        call.workspace(q.cols, v.cols)
        return call

    names = ("queries", "keys", "values", "bias", "keep", "sink", "slopes", "states")
    return run(names, (*qkv, *masks), None, ("states", scalars, first_key, heads_axis, backend), make)


def join(
    parts: Union[ArrayLike, Sequence[ArrayLike]],
    *,
    sink: Optional[Sink] = None,
    log_sum_exp: Union[bool, ArrayLike] = False,
    out: Optional[ArrayLike] = None,
    backend: Optional[str] = None,
) -> Outputs:
    """Joins states of spans, in any order, into the output, with the bits of one `attention` over all the keys. `parts`:
    the result of `states`, or several of them. The output is [queries, width] or [heads, queries, width]; `log_sum_exp` is
    as in `attention`."""
    several: Sequence[ArrayLike] = parts if isinstance(parts, (list, tuple)) else [parts]  # type: ignore[list-item]
    pieces = [array_of(part, "states") for part in several]
    if not pieces:
        raise ValueError("states: there are none")
    for piece in pieces:
        arrays.check_floats(piece, "states")
        arrays.axes(piece, "states", 3, 4)
        if piece.shape[1:] != pieces[0].shape[1:]:
            raise ValueError(f"states: shapes {pieces[0].shape} and {piece.shape}")
    # The library takes them in one piece: these are small.
    whole = np.ascontiguousarray(np.concatenate(pieces) if len(pieces) > 1 else pieces[0])
    if whole.shape[-1] < 5:
        raise ValueError(f"states: shape {whole.shape}")
    shape = (*whole.shape[1:-1], whole.shape[-1] - 4)
    to = np.empty(shape, F32) if out is None else target(out, "out")
    if to.shape != shape:
        raise ValueError(f"out: shape {to.shape} for {shape}")
    logs = None if log_sum_exp is False else logs_of(log_sum_exp, shape[:-1])
    masks = masks_of(None, None, None, sink, None, 0, 0)

    call = Call("sdpa_join_heads_on", backend)
    call.pointer(whole)
    call.arguments.append(whole.size)
    heads = shape[0] if len(shape) == 3 else 1
    put_options(call, DEFAULT, masks, heads, heads)
    call.view(arrays.heads(to, "out", 0))
    call.pointer(logs)
    all_arrays = (whole, *masks, to, logs)
    fill(call, all_arrays)
    status = call.function(*call.arguments)
    if status:
        refuse(status, ("states", "bias", "keep", "sink", "slopes", "out", "log_sum_exp"), all_arrays)
    return to if logs is None else (to, logs)
