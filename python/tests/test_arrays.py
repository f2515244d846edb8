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
        (ValueError, "an option is outside", lambda: sdpa.attention(q, k, v, scale=float("nan"))),
        (ValueError, "an option is outside", lambda: sdpa.pattern(q, k, softcap=-1)),
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
    ]  # fmt: skip
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()
        with pytest.raises(kind, match=words):  # the second time is not another
            call()


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
