"""What is accepted as an array, what is refused and how, and that nothing is copied."""

from __future__ import annotations

import tracemalloc
from typing import Any, Callable

import numpy as np
import pytest

import sdpa
from sdpa import _arrays as arrays


class Tensor:
    """A tensor of another library, by DLPack alone."""

    def __init__(self, array: Any, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


class Interface:
    """An array by `__array_interface__` alone."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


@pytest.mark.parametrize("kind", [Tensor, Interface])
def test_arrays_of_other_libraries(kind: Any, floats: Any) -> None:
    q, k, v = floats(3, 8), floats(5, 8), floats(5, 4)
    want = sdpa.attention(q, k, v)
    np.testing.assert_array_equal(sdpa.attention(kind(q), kind(k), kind(v)), want)
    out = np.zeros_like(want)
    try:
        sdpa.attention(q, k, v, out=kind(out))
    except ValueError as error:  # older NumPy views tensors for reading only
        assert "read-only" in str(error) and kind is Tensor and np.lib.NumpyVersion(np.__version__) < "2.1.0"
    else:
        np.testing.assert_array_equal(out, want)


def test_strided_inputs_and_outputs(floats: Any, backend: str) -> None:
    q, k, v = floats(3, 8), floats(5, 8), floats(5, 4)
    want = sdpa.attention(q, k, v, backend=backend)
    wide = np.full((6, 8), 7, np.float32)
    strided = [np.repeat(a, 2, 1)[:, ::2] for a in (q, k)] + [np.asfortranarray(v)]
    got = sdpa.attention(*strided, out=wide[::2, ::2], backend=backend)
    np.testing.assert_array_equal(got, want)
    assert (wide[1::2] == 7).all() and (wide[:, 1::2] == 7).all()
    # A row that repeats.
    one = np.broadcast_to(k[:1], (5, 8))
    np.testing.assert_array_equal(sdpa.attention(q, one, v), sdpa.attention(q, np.ascontiguousarray(one), v))


def peak(call: Callable[[], Any]) -> int:
    call()  # what is made once
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_input_is_copied(floats: Any) -> None:
    strided = floats(3, 4096, 128)[..., ::2]
    q, k, v = strided[0, :16], strided[1], strided[2]
    out, bias, keep = np.empty((16, 64), np.float32), floats(16, 4096), np.ones((4096, 16), bool)
    least = min(bias.nbytes, keep.nbytes)
    x = floats(4096, 64)[:, ::2]
    for call in (
        lambda: sdpa.attention(q, k, v, out=out),
        lambda: sdpa.attention(Tensor(q), Interface(k), v, attn_mask=bias, keep=keep, out=out),
        lambda: sdpa.softmax(x, out=x),
        lambda: sdpa.project(strided[0], strided[1, :64].T, out=BIG),
    ):
        assert peak(call) < least
    # The measurement sees a copy.
    assert peak(lambda: sdpa.attention(q, np.ascontiguousarray(k), v, out=out)) > least


BIG = np.empty((4096, 64), np.float32)


def test_refused_inputs(floats: Any) -> None:
    q, k, v = floats(3, 8), floats(5, 8), floats(5, 4)
    read_only = np.empty((3, 4), np.float32)
    read_only.flags.writeable = False
    cases: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "keys: float64 for float32; convert", lambda: sdpa.attention(q, k.astype(float), v)),
        (TypeError, "queries: int32", lambda: sdpa.scores(k, q.astype(np.int32))),
        (TypeError, "queries: >f4", lambda: sdpa.attention(q.astype(">f4"), k, v)),
        (TypeError, "values: a list is no array", lambda: sdpa.attention(q, k, v.tolist())),
        (TypeError, "keys: on a device of DLPack's type 2, not", lambda: sdpa.attention(q, Tensor(k, 2), v)),
        (TypeError, "masked array", lambda: sdpa.attention(q, np.ma.masked_array(k), v)),
        (ValueError, "keys: a negative stride", lambda: sdpa.attention(q, k[::-1], v[::-1])),
        (ValueError, "no whole number", lambda: sdpa.softmax(np.zeros((4, 3), "f4,i1")["f0"])),
        (ValueError, "repeats one element", lambda: sdpa.softmax(np.broadcast_to(np.float32(1), (3, 3)))),
        (ValueError, "out: is read-only", lambda: sdpa.attention(q, k, v, out=read_only)),
        (TypeError, "out: float64", lambda: sdpa.attention(q, k, v, out=np.empty((3, 4)))),
        (ValueError, r"wrong shape: keys: queries \(3, 8\), keys \(5, 7\)", lambda: sdpa.attention(q, k[:, :7], v)),
        (ValueError, "wrong shape: out", lambda: sdpa.attention(q, k, v, out=np.empty((4, 4), np.float32))),
        (ValueError, "wrong shape: values", lambda: sdpa.attention(q, k, v[:4])),
        (ValueError, "overlaps", lambda: sdpa.attention(q, k, k, out=k[:3])),
        (ValueError, "overlaps", lambda: sdpa.softmax(BIG[:-1], out=BIG[1:])),
        (ValueError, "axes", lambda: sdpa.attention(q[0], k, v)),
        (ValueError, "axes", lambda: sdpa.attention(q, k[None], v)),
        (ValueError, "axes", lambda: sdpa.attention(q[None, None], k[None, None], v[None, None])),
        (ValueError, "axes", lambda: sdpa.project(q, k[0])),
        (ValueError, "bias: 3 elements for 8", lambda: sdpa.project(q, k.T[:, :].repeat(2, 1)[:, :8], q[:, 0].copy())),
        (ValueError, "heads_axis: 2", lambda: sdpa.attention(q, k, v, heads_axis=2)),
        (ValueError, "scale: 0", lambda: sdpa.attention(q, k, v, scale=0)),
        (sdpa.Error, "an option is outside its range: scale nan", lambda: sdpa.attention(q, k, v, scale=float("nan"))),
        (sdpa.Error, "an option is outside its range: scale 1e", lambda: sdpa.scores(q, k, scale=1e39)),
        (sdpa.Error, "an option is outside its range: softcap -1", lambda: sdpa.pattern(q, k, softcap=-1)),
        (sdpa.Error, "an option is outside its range: softcap inf", lambda: sdpa.attention(q, k, v, softcap=float("inf"))),
        (sdpa.Error, r"an option is outside its range: sink \[nan\]", lambda: sdpa.attention(q, k, v, sink=float("nan"))),
        (sdpa.Error, r"an option is outside its range: slopes \[inf\]", lambda: sdpa.pattern(q, k, slopes=np.array([np.inf], np.float32))),
        (sdpa.Error, "an option is outside its range: base 0.5", lambda: sdpa.RotaryTable(4, 2, base=0.5)),
        (sdpa.Error, r"an option is outside its range: frequencies \[nan\]", lambda: sdpa.RotaryTable(4, frequencies=np.array([np.nan], np.float32))),
        (ValueError, "backend: 'neon2' is none", lambda: sdpa.attention(q, k, v, backend="neon2")),
        (ValueError, "backend", lambda: sdpa.softmax(q, backend="x")),
        (TypeError, "window: 3 for", lambda: sdpa.attention(q, k, v, window=3)),  # type: ignore[call-overload]
        (ValueError, "window: -1", lambda: sdpa.attention(q, k, v, window=(-1, 0))),
        (ValueError, r"keep \(keys, queries\): shape \(3, 5\)", lambda: sdpa.attention(q, k, v, keep=np.ones((3, 5), bool))),
        (ValueError, r"attn_mask \(queries, keys\)", lambda: sdpa.attention(q, k, v, attn_mask=np.ones((5, 3), bool))),
        (ValueError, "keep: 2 heads for 1", lambda: sdpa.attention(q, k, v, attn_mask=np.ones((2, 3, 5), bool))),
        (ValueError, "bias: 2 heads for 3", lambda: sdpa.attention(q[None].repeat(3, 0), k, v, bias=np.ones((2, 5, 3), np.float32))),
        (ValueError, "bias: 2 heads for 3", lambda: sdpa.pattern(q[None].repeat(3, 0), k, bias=np.ones((2, 5, 3), np.float32))),
        (ValueError, "wrong shape: keys", lambda: sdpa.pattern(q[None].repeat(3, 0), k[None].repeat(2, 0))),
        (ValueError, "wrong shape: out", lambda: sdpa.pattern(q[None], k, out=np.empty((1, 3, 5), np.float32))),
        (ValueError, "wrong shape: out", lambda: sdpa.pattern(q[None], k, mean=True, out=np.empty((3, 5), np.float32))),
        (ValueError, "wrong shape: queries", lambda: sdpa.pattern(q[None, :, :0], k[:, :0], mean=True)),
        (ValueError, "wrong shape: queries", lambda: sdpa.pattern(q[None][:0], k, mean=True)),
        (ValueError, "sink: 3 elements for 2", lambda: sdpa.pattern(q[None].repeat(2, 0), k, sink=q[:, 0].copy())),
        (ValueError, "slopes: 3 elements for 2", lambda: sdpa.attention(q[None].repeat(2, 0), k, v, slopes=q[:, 0].copy())),
        (TypeError, "attn_mask: float64", lambda: sdpa.attention(q, k, v, attn_mask=np.ones((3, 5)))),
        (TypeError, "keep: float32", lambda: sdpa.attention(q, k, v, keep=np.ones((5, 3), np.float32))),
        (TypeError, "bias: bool", lambda: sdpa.attention(q, k, v, bias=np.ones((5, 3), bool))),
        (ValueError, "combine them", lambda: sdpa.attention(q, k, v, keep=np.ones((5, 3), bool), attn_mask=np.ones((3, 5), bool))),
        (ValueError, "sink: 3 elements for 2", lambda: sdpa.attention(q.reshape(1, 3, 8).repeat(2, 0), k, v, sink=q[:, 0].copy())),
        (ValueError, "log_sum_exp: shape", lambda: sdpa.attention(q, k, v, log_sum_exp=np.empty(2, np.float32))),
        (ValueError, "axis: 2", lambda: sdpa.softmax(q, 2)),
        (ValueError, "a: must be contiguous", lambda: sdpa.dot(q[:, 0], q[:, 1])),
        (ValueError, "b: 8 elements for 3", lambda: sdpa.dot(q[:, 0].copy(), q[0])),
        (ValueError, "states: there are none", lambda: sdpa.join([])),
        (ValueError, "wrong shape: queries", lambda: sdpa.Cache(4, 6).attend(q)),
        (ValueError, "wrong shape: keys", lambda: sdpa.Cache(4, 6).append(k, v)),
        (ValueError, "capacity: -1", lambda: sdpa.Cache(-1, 6)),
        (ValueError, "wrong shape: dim", lambda: sdpa.Cache(4, 0)),
        (ValueError, "scale: 1e-50 is 0 as a float32", lambda: sdpa.attention(q, k, v, scale=1e-50)),
        (ValueError, "scale: 1e-50 is 0 as a float32", lambda: sdpa.scores(k, q, scale=1e-50)),
        (ValueError, "softcap: 1e-50 is 0 as a float32", lambda: sdpa.pattern(q, k, softcap=1e-50)),
        (TypeError, "scale: 'a' is no number", lambda: sdpa.attention(q, k, v, scale="a")),  # type: ignore[call-overload]
        (TypeError, "query_offset: 1.0 is no whole number", lambda: sdpa.attention(q, k, v, query_offset=1.0)),  # type: ignore[call-overload]
        (TypeError, "window: 1.0 is no whole number", lambda: sdpa.attention(q, k, v, window=(1.0, 0))),  # type: ignore[call-overload]
        (TypeError, "keep_first: None is no whole number", lambda: sdpa.pattern(q, k, keep_first=None)),  # type: ignore[arg-type]
        (ValueError, "keep_first: -1 for", lambda: sdpa.attention(q, k, v, keep_first=-1)),
        (ValueError, "length: -1 for", lambda: sdpa.Cache(4, 6).slide(-1)),
        (ValueError, "not held", lambda: sdpa.Cache(4, 6).truncate(1 << 64)),
        (ValueError, "not held", lambda: sdpa.Cache(4, 6).truncate_to(1 << 64)),
        (ValueError, "not held", lambda: sdpa.Cache(4, 6).keep_first(1 << 64)),
        (ValueError, r"keys: keys \(5, 8\), values \(5, 4\), cache", lambda: sdpa.Cache(4, 6).append(k, v)),
        (TypeError, "format: None for one", lambda: sdpa.Cache(4, 6, format=None)),  # type: ignore[arg-type]
        (TypeError, "cu_seqlens_q: no number", lambda: sdpa.attention_packed(q, k, v, [])),
        (ValueError, "cu_seqlens_q: a number beyond int32", lambda: sdpa.attention_packed(q, k, v, [0, 1 << 40])),
        (TypeError, "cu_seqlens_q: 2 numbers of object", lambda: sdpa.attention_packed(q, k, v, [0, 1 << 80])),
        (TypeError, "table: a NoneType", lambda: sdpa.rotate(q, None)),  # type: ignore[arg-type]
        (ValueError, "frequencies: 2 axes", lambda: sdpa.RotaryTable(4, frequencies=np.ones((2, 2), np.float32))),
    ]  # fmt: skip
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()
        with pytest.raises(kind, match=words):  # the second time is not another
            call()


def test_numbers_of_any_size_and_kind(floats: Any) -> None:
    q, k, v = floats(3, 8), floats(5, 8), floats(5, 4)
    largest = (1 << 64) - 1
    # Equal numbers of other types are told apart, whatever was called before.
    sdpa.attention(q, k, v, query_offset=1, window=(1, 0), keep_first=1)
    with pytest.raises(TypeError):
        sdpa.attention(q, k, v, query_offset=1.0, window=(1, 0), keep_first=1)  # type: ignore[call-overload]
    for number in 1 << 64, (1 << 64) + 2, 10**30:
        for window in (number, 0), (0, number):
            known = sdpa.attention(q, k, v, window=tuple(min(side, largest) for side in window), query_offset=2)  # type: ignore[call-overload]
            np.testing.assert_array_equal(sdpa.attention(q, k, v, window=window, query_offset=2), known)
        kept = sdpa.attention(q, k, v, window=(0, 0), keep_first=number)
        np.testing.assert_array_equal(kept, sdpa.attention(q, k, v, window=(0, 0), keep_first=5))
        cache = sdpa.Cache(9, 8, 4)
        cache.append(k, v)
        cache.slide(number)
        assert len(cache) == 5
        with pytest.raises(sdpa.Error):
            cache.truncate(number)
        assert len(cache) == 5
    given = sdpa.attention(q, k, v, window=(1, 0), scale=0.5)
    for options in {"window": [1, 0], "scale": np.float32(0.5)}, {"window": np.array([1, 0]), "scale": np.array(0.5)}:
        np.testing.assert_array_equal(sdpa.attention(q, k, v, **options), given)
    # Beyond a float32: no sink at all, without a warning.
    np.testing.assert_array_equal(sdpa.attention(q, k, v, sink=-1e300), sdpa.attention(q, k, v))


def test_a_cache_has_its_capacity_beside_kept_keys(floats: Any) -> None:
    rows = floats(1, 1)
    for kept in 1, 9, 64, 65:
        for capacity in 1, 10, 64, 100:
            cache = sdpa.Cache(capacity + -(-kept // 64) * 64, 1)
            cache.keep_first(kept)
            for _ in range(300):
                cache.slide(kept + capacity - 1)
                cache.append(rows, rows)
            assert len(cache) == kept + capacity


def test_masks_that_repeat_one_element(floats: Any) -> None:
    for keys in 1, 5:
        q, k, v = floats(2, 3, 8), floats(2, keys, 8), floats(2, keys, 4)
        mask = np.broadcast_to(np.zeros((1, keys, 1), np.float32), (2, keys, 3))
        np.testing.assert_array_equal(sdpa.attention(q, k, v, bias=mask), sdpa.attention(q, k, v))


def test_log_sum_exps_into_an_array(floats: Any) -> None:
    q, k, v = floats(2, 3, 8), floats(2, 5, 8), floats(2, 5, 4)
    known = sdpa.attention_packed(q, k, v, [0, 1, 3], [0, 2, 5], log_sum_exp=True)
    to = np.empty((2, 3), np.float32)
    for got in sdpa.attention_packed(q, k, v, [0, 1, 3], [0, 2, 5], log_sum_exp=to), sdpa.attention(q, k, v, log_sum_exp=to):
        assert got[1] is to
    packed = sdpa.attention_packed(q, k, v, [0, 1, 3], [0, 2, 5], log_sum_exp=to)
    np.testing.assert_array_equal(packed[1], known[1])
    parts = sdpa.states(q, k, v)
    joined = sdpa.join(parts, log_sum_exp=to)
    assert joined[1] is to
    np.testing.assert_array_equal(to, sdpa.attention(q, k, v, log_sum_exp=True)[1])


def test_a_refused_call_writes_nothing(floats: Any) -> None:
    out = np.full((3, 4), 7, np.float32)
    with pytest.raises(sdpa.Error) as error:
        sdpa.attention(floats(3, 8), floats(5, 8), floats(5, 4), softcap=-1, out=out)
    assert (out == 7).all() and error.value.status == 7


def test_back_ends() -> None:
    assert {"portable", "scalar"} <= set(sdpa.backends())


def test_addresses(floats: Any) -> None:
    class Sub(np.ndarray):
        pass

    x = floats(5, 7)
    for array in x, x[1:, 2:], x.T, x[::2, ::3], x.view(Sub)[2:], np.float32([[1]]), np.empty((0, 3), np.float32):
        assert arrays.address(array) == array.ctypes.data == arrays.slow_address(array)
