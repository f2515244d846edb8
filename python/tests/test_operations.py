"""Every function and option against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracle
import sdpa

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 1.5},
    "causal": {"causal": True},
    "offset": {"causal": True, "query_offset": 5},
    "before the first key": {"causal": True, "query_offset": -3},
    "window": {"window": (2, 1)},
    "left": {"window": (3, None), "query_offset": 4},
    "right": {"window": (None, 1)},
    "sink": {"sink": 0.7},
}


def close(got: Any, want: Any, bound: float = 2e-6) -> None:
    assert got.dtype == np.float32 and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=bound)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(options: dict[str, Any], floats: Any, backend: str) -> None:
    q, k, v = floats(7, 16), floats(9, 16), floats(9, 5)
    want, logs = oracle.attention(q, k, v, **options)
    out, got = sdpa.attention(q, k, v, log_sum_exp=True, backend=backend, **options)
    close(out, want)
    visible = np.isfinite(got)
    close(got[visible], logs[visible], 1e-5)
    assert (want[~visible] == 0).all()
    close(sdpa.pattern(q, k, backend=backend, **options), oracle.pattern(q, k, **options)[0])


def test_options_matter(floats: Any) -> None:
    q, k, v = floats(7, 16), floats(9, 16), floats(9, 5)
    outputs = [sdpa.attention(q, k, v, **options).tobytes() for options in OPTIONS.values()]
    assert len(set(outputs)) == len(OPTIONS)


def test_masks_in_both_orientations(floats: Any, rng: np.random.Generator, backend: str) -> None:
    q, k, v, bias = floats(7, 16), floats(9, 16), floats(9, 5), floats(9, 7)
    keep = rng.random((9, 7)) < 0.6
    want = oracle.attention(q, k, v, bias=bias, keep=keep)[0]
    close(sdpa.attention(q, k, v, bias=bias, keep=keep, backend=backend), want)
    equal = np.testing.assert_array_equal
    out = sdpa.attention(q, k, v, keep=keep, backend=backend)
    equal(out, sdpa.attention(q, k, v, attn_mask=np.ascontiguousarray(keep.T), backend=backend))
    equal(out, sdpa.attention(q, k, v, keep=keep.astype(np.uint8), backend=backend))
    equal(out, sdpa.attention(q, k, v, attn_mask=keep.T[None, None], backend=backend))
    added = sdpa.attention(q, k, v, bias=bias, backend=backend)
    equal(added, sdpa.attention(q, k, v, attn_mask=bias.T, backend=backend))
    equal(added, sdpa.attention(q, k, v, attn_mask=np.ascontiguousarray(bias.T), backend=backend))
    assert not np.array_equal(out, added)
    # One element per key, for all queries.
    padding = np.arange(9) < 6
    want = oracle.attention(q, k[:6], v[:6])[0]
    for padded in (
        {"keep": padding}, {"attn_mask": padding}, {"attn_mask": padding[None]}, {"keep": padding[:, None]},
        {"bias": np.where(padding, 0, -np.inf).astype(np.float32)},
    ):  # fmt: skip
        close(sdpa.attention(q, k, v, backend=backend, **padded), want)
    for one in {"keep": padding[:1]}, {"attn_mask": padding[:1]}, {"bias": bias[0, :1]}:
        assert_one_key(sdpa.attention(q, k[:1], v[:1], backend=backend, **one), v)


def assert_one_key(out: Any, v: Any) -> None:
    np.testing.assert_array_max_ulp(out, np.repeat(v[:1], len(out), 0), 1)


@pytest.mark.parametrize("heads_axis", [0, 1])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_heads(kv_heads: int, heads_axis: int, floats: Any, backend: str) -> None:
    q, k, v, sinks = floats(4, 7, 16), floats(kv_heads, 9, 16), floats(kv_heads, 9, 5), floats(4)
    layout = (lambda a: a) if heads_axis == 0 else (lambda a: np.ascontiguousarray(a.swapaxes(0, 1)))
    options: dict[str, Any] = {"heads_axis": heads_axis, "causal": True, "query_offset": 2, "backend": backend}
    out, logs = sdpa.attention(layout(q), layout(k), layout(v), sink=sinks, log_sum_exp=True, **options)
    weights = sdpa.pattern(layout(q), layout(k), sink=sinks, **options)
    states = sdpa.states(layout(q), layout(k), layout(v), **options)
    joined, joined_logs = sdpa.join(states, sink=sinks, log_sum_exp=True, backend=backend)
    assert out.flags.c_contiguous
    out = layout(out) if heads_axis else out
    for head in range(4):
        own = head // (4 // kv_heads)
        same = {"causal": True, "query_offset": 2, "sink": float(sinks[head])}
        want, log = oracle.attention(q[head], k[own], v[own], **same)
        close(out[head], want)
        close(logs[head], log, 1e-5)
        close(weights[head], oracle.pattern(q[head], k[own], **same)[0])
    np.testing.assert_array_equal(joined, out)
    np.testing.assert_array_equal(joined_logs, logs)


@pytest.mark.parametrize("heads_axis", [0, 1])
def test_masks_and_slopes_of_each_head(heads_axis: int, floats: Any, rng: np.random.Generator, backend: str) -> None:
    q, k, v, bias = floats(4, 7, 16), floats(2, 9, 16), floats(2, 9, 5), floats(4, 9, 7)
    keep, slopes = rng.random((4, 9, 7)) < 0.7, np.array([0.5, 0.1, 0, -0.2], np.float32)
    layout = (lambda a: a) if heads_axis == 0 else (lambda a: np.ascontiguousarray(a.swapaxes(0, 1)))
    same: dict[str, Any] = {"query_offset": 2, "heads_axis": heads_axis, "backend": backend}
    options: dict[str, Any] = {"bias": bias, "keep": keep, "slopes": slopes, **same}
    out, logs = sdpa.attention(layout(q), layout(k), layout(v), log_sum_exp=True, **options)
    weights = sdpa.pattern(layout(q), layout(k), **options)
    joined = layout(sdpa.join(sdpa.states(layout(q), layout(k), layout(v), **options), backend=backend))
    out = layout(out) if heads_axis else out
    for head in range(4):
        own = {"bias": bias[head], "keep": keep[head], "slope": float(slopes[head]), "query_offset": 2}
        want, log = oracle.attention(q[head], k[head // 2], v[head // 2], **own)
        close(out[head], want)
        close(logs[head], log, 1e-5)
        close(weights[head], oracle.pattern(q[head], k[head // 2], **own)[0])
    np.testing.assert_array_equal(layout(joined) if heads_axis else joined, out)
    # Masks of PyTorch, of any strides, of one head for all, and one slope for one head.
    equal = np.testing.assert_array_equal
    turned = np.ascontiguousarray(keep.swapaxes(1, 2))[None]
    by_keep = sdpa.attention(q, k, v, keep=keep)
    equal(by_keep, sdpa.attention(q, k, v, attn_mask=turned))
    equal(by_keep, sdpa.attention(q, k, v, keep=np.asfortranarray(keep)))
    equal(sdpa.attention(q, k, v, bias=bias[0]), sdpa.attention(q, k, v, bias=bias[:1]))
    equal(sdpa.attention(q, k, v, bias=bias[0]), sdpa.attention(q, k, v, bias=np.broadcast_to(bias[0], (4, 9, 7))))
    alone = sdpa.attention(q[1], k[0], v[0], slopes=slopes[1:2])
    equal(alone, sdpa.attention(q, k, v, slopes=slopes)[1])
    cache = sdpa.Cache(64, 16, 5)
    cache.append(k[0], v[0])
    equal(cache.attend(q, bias=bias, slopes=slopes), sdpa.attention(q, k[0], v[0], bias=bias, slopes=slopes, query_offset=2))


@pytest.mark.parametrize("heads_axis", [0, 1])
def test_patterns_of_heads_and_their_mean(heads_axis: int, floats: Any, rng: np.random.Generator, backend: str) -> None:
    q, k, bias, sinks = floats(6, 7, 16), floats(2, 9, 16), floats(6, 9, 7), floats(6)
    keep, slopes = rng.random((6, 9, 7)) < 0.7, floats(6)
    layout = (lambda a: a) if heads_axis == 0 else (lambda a: np.ascontiguousarray(a.swapaxes(0, 1)))
    equal = np.testing.assert_array_equal
    for options in {}, {"causal": True, "sink": 0.3}, {"bias": bias[0], "sink": sinks}, {"bias": bias, "keep": keep, "slopes": slopes}:
        got = sdpa.pattern(layout(q), layout(k), heads_axis=heads_axis, backend=backend, **options)
        assert got.shape == (6, 9, 7)
        total = np.zeros((9, 7), np.float32)
        for head in range(6):
            each = {name: own[head : head + 1] if np.shape(own)[:1] == (6,) else own for name, own in options.items()}
            alone = sdpa.pattern(q[head], k[head // 3], backend=backend, **each)
            equal(got[head].view(np.uint32), alone.view(np.uint32))
            total += alone
        same: dict[str, Any] = {"heads_axis": heads_axis, "mean": True, "backend": backend, **options}
        mean = sdpa.pattern(layout(q), layout(k), **same)
        equal(mean.view(np.uint32), (total / np.float32(6)).view(np.uint32))
        # Into arrays of any strides.
        out, grid = np.empty((7, 6, 9), np.float32).transpose(1, 2, 0), np.empty((7, 9), np.float32).T
        assert sdpa.pattern(layout(q), layout(k), out=out, **{**same, "mean": False}) is out
        assert sdpa.pattern(layout(q), layout(k), out=grid, **same) is grid
        equal(out, got)
        equal(grid, mean)
    equal(sdpa.pattern(q[0], k[0], mean=True), sdpa.pattern(q[0], k[0]))
    equal(sdpa.pattern(q[:1], k[0], mean=True), sdpa.pattern(q[0], k[0]))


@pytest.mark.parametrize("heads_axis", [0, 1])
def test_packed_sequences(heads_axis: int, floats: Any, rng: np.random.Generator, backend: str) -> None:
    q, k, v, bias, sinks = floats(4, 12, 16), floats(2, 15, 16), floats(2, 15, 5), floats(4, 15, 12), floats(4)
    keep = rng.random((15, 12)) < 0.7
    of_q, of_k = np.array([0, 5, 5, 12], np.int32), np.array([0, 7, 9, 15], np.int32)
    layout = (lambda a: a) if heads_axis == 0 else (lambda a: np.ascontiguousarray(a.swapaxes(0, 1)))
    same: dict[str, Any] = {"heads_axis": heads_axis, "backend": backend}
    equal = np.testing.assert_array_equal
    for options in {}, {"causal": True, "query_offset": 2, "sink": sinks}, {"bias": bias, "window": (3, 2)}, {"keep": keep}:
        got, logs = sdpa.attention_packed(
            layout(q), layout(k), layout(v), of_q, of_k, log_sum_exp=True, **same, **options
        )
        assert got.flags.c_contiguous and logs.shape == (4, 12)
        got = layout(got) if heads_axis else got
        for (a, b), (c, d) in zip(zip(of_q, of_q[1:]), zip(of_k, of_k[1:])):
            own = {name: of[..., c:d, a:b] if name in ("bias", "keep") else of for name, of in options.items()}
            want, want_logs = sdpa.attention(
                q[:, a:b], k[:, c:d], v[:, c:d], log_sum_exp=True, backend=backend, **own
            )
            equal(got[:, a:b], want)
            equal(logs[:, a:b], want_logs)
    assert not np.array_equal(got, sdpa.attention(q, k, v, keep=keep, backend=backend))
    # Lengths of other types, those of the queries for the keys, one head, a given output.
    want = sdpa.attention_packed(q, q, q, of_q)
    equal(sdpa.attention_packed(q, q, q, of_q, of_q), want)
    for lengths in of_q.tolist(), tuple(of_q.tolist()), of_q.astype(np.int64), np.repeat(of_q, 2)[::2]:
        equal(sdpa.attention_packed(q, q, q, lengths), want)
    out = np.empty((12, 16), np.float32)
    one, logs = sdpa.attention_packed(q[0], q[0], q[0], of_q, out=out, log_sum_exp=True)
    assert one is out and logs.shape == (12,)
    equal(one, want[0])


def test_packed_lengths_that_do_not_fit(floats: Any) -> None:
    x, out = floats(6, 4), np.zeros((6, 4), np.float32)
    for lengths in [0, 5], [1, 6], [0, 7, 6], [0, -1, 6], [0, 2, 7], [0]:
        with pytest.raises(sdpa.Error, match="wrong shape: cu_seqlens"):
            sdpa.attention_packed(x, x, x, lengths, out=out)
    with pytest.raises(ValueError, match="2 and 3 numbers"):
        sdpa.attention_packed(x, x, x, [0, 6], [0, 1, 6], out=out)
    with pytest.raises(ValueError, match="beyond int32"):
        sdpa.attention_packed(x, x, x, [0, 6 + (1 << 32)], out=out)
    for wrong in [], [0.0, 6.0]:
        with pytest.raises(TypeError, match="cumulative lengths"):
            sdpa.attention_packed(x, x, x, wrong, out=out)
    with pytest.raises(ValueError, match="axes"):
        sdpa.attention_packed(x, x, x, [[0, 6]], out=out)
    assert not out.any()


def test_one_kv_head_of_two_axes(floats: Any) -> None:
    q, k, v = floats(4, 7, 16), floats(9, 16), floats(9, 5)
    np.testing.assert_array_equal(sdpa.attention(q, k, v)[2], sdpa.attention(q[2], k, v))
    np.testing.assert_array_equal(sdpa.pattern(q, k)[2], sdpa.pattern(q[2], k))


def test_matrix_operations(floats: Any, backend: str) -> None:
    q, k, v, w, bias = floats(7, 16), floats(9, 16), floats(9, 5), floats(16, 5), floats(5)
    wide = [a.astype(np.float64) for a in (q, k, v, w, bias)]
    close(sdpa.scores(k, q, backend=backend), oracle.scores(q, k))
    close(sdpa.scores(k, q, scale=2, backend=backend), oracle.scores(q, k, 2), 1e-5)
    close(sdpa.project(q, w, bias, backend=backend), wide[0] @ wide[3] + wide[4], 1e-5)
    close(sdpa.project(q, w, backend=backend), wide[0] @ wide[3], 1e-5)
    weights = sdpa.softmax(sdpa.scores(k, q, backend=backend), 0, backend=backend)
    close(sdpa.weighted_sum(weights, v, backend=backend), oracle.attention(q, k, v)[0])
    assert abs(sdpa.dot(q[0], k[0], backend=backend) - wide[0][0] @ wide[1][0]) < 1e-5


@pytest.mark.parametrize("shape", [(9,), (3, 5), (3, 4, 5), (2, 3, 4, 5), (0, 3)])
def test_softmax_along_every_axis(shape: tuple[int, ...], floats: Any, backend: str) -> None:
    x = floats(*shape)
    for axis in range(-len(shape), len(shape)):
        e = np.exp(x.astype(np.float64))
        want = e / e.sum(axis, keepdims=True)
        close(sdpa.softmax(x, axis, backend=backend), want, 4e-7)
        place = x.copy()
        assert sdpa.softmax(place, axis, out=place, backend=backend) is place
        close(place, want, 4e-7)


def test_merge(floats: Any, backend: str) -> None:
    q, k, v = floats(2, 7, 16), floats(2, 9, 16), floats(2, 9, 5)
    whole, logs = sdpa.attention(q, k, v, log_sum_exp=True, backend=backend)
    a = sdpa.attention(q, k[:, :4], v[:, :4], log_sum_exp=True, backend=backend)
    b = sdpa.attention(q, k[:, 4:], v[:, 4:], log_sum_exp=True, backend=backend)
    before = a[0].copy()
    out, log = sdpa.merge(*a, *b, backend=backend)
    close(out, whole)
    close(log, logs, 1e-5)
    np.testing.assert_array_equal(a[0], before)
    assert sdpa.merge(*a, *b, in_place=True, backend=backend)[0] is a[0]
    np.testing.assert_array_equal(a[0], out)


def test_spans_in_any_order_have_the_bits_of_one_call(floats: Any, backend: str) -> None:
    q, k, v = floats(3, 8), floats(2500, 8), floats(2500, 4)
    options: dict[str, Any] = {"softcap": 3.0, "backend": backend}
    want = sdpa.attention(q, k, v, sink=0.5, **options)
    parts = [
        sdpa.states(q, k[first : first + 1024], v[first : first + 1024], first_key=first, **options)
        for first in (2048, 0, 1024)
    ]
    np.testing.assert_array_equal(sdpa.join(parts, sink=0.5, backend=backend), want)
    np.testing.assert_array_equal(sdpa.join(np.concatenate(parts), sink=0.5, backend=backend), want)
    assert not np.array_equal(sdpa.join(parts[1:], sink=0.5, backend=backend), want)
    with pytest.raises(sdpa.Error, match="position"):
        sdpa.join([parts[0], parts[0]])
    with pytest.raises(sdpa.Error, match="position"):
        sdpa.states(q, k, v, first_key=5)


def test_keep_first(floats: Any, backend: str) -> None:
    q, k, v = floats(3, 16), floats(300, 16), floats(300, 5)
    cache = sdpa.Cache(200, 16, 5)
    cache.keep_first(4)
    for at in range(0, 300, 50):
        cache.append(k[at : at + 50], v[at : at + 50])
        cache.slide(4 + 100)
    assert (len(cache), cache.appended, cache.dropped) == (104, 300, 200)
    position, key = np.arange(297, 300), np.arange(300)[:, None]
    keep = (key <= position) & ((key < 4) | (key >= 200))
    want = sdpa.attention(q, k, v, keep=keep, backend=backend)
    np.testing.assert_array_equal(cache.attend(q, causal=True, backend=backend), want)
    np.testing.assert_array_equal(sdpa.join(cache.states(q, causal=True, backend=backend), backend=backend), want)
    options: dict[str, Any] = {"query_offset": 297, "window": (96, 0), "keep_first": 4, "backend": backend}
    keep = (key <= position) & ((key < 4) | (key >= position - 96))
    np.testing.assert_array_equal(sdpa.attention(q, k, v, **options), sdpa.attention(q, k, v, keep=keep, backend=backend))
    np.testing.assert_array_equal(sdpa.pattern(q, k, **options), sdpa.pattern(q, k, keep=keep, backend=backend))
    with pytest.raises(sdpa.Error, match="position"):
        cache.keep_first(5)


def test_cache(floats: Any, backend: str) -> None:
    q, k, v = floats(2, 3, 16), floats(300, 16), floats(300, 5)
    cache = sdpa.Cache(200, 16, 5)
    for at in range(0, 300, 50):
        cache.append(k[at : at + 50], v[at : at + 50])
        cache.slide(150)
    assert (len(cache), cache.appended, cache.dropped) == (150, 300, 150)
    options: dict[str, Any] = {"causal": True, "window": (99, 0), "sink": 0.1, "backend": backend}
    got, logs = cache.attend(q, log_sum_exp=True, **options)
    want, want_logs = sdpa.attention(
        q, k, v, query_offset=297, keep=np.arange(300) >= 150, log_sum_exp=True, **options
    )
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(logs, want_logs)
    del options["sink"]
    np.testing.assert_array_equal(
        sdpa.join(cache.states(q, **options), backend=backend), cache.attend(q, **options)
    )
    cache.truncate_to(299)
    cache.append(k[299], v[299])
    np.testing.assert_array_equal(cache.attend(q, **options), sdpa.attention(q, k, v, query_offset=297, **options))
    cache.truncate(1)
    np.testing.assert_array_max_ulp(cache.attend(q[0], backend=backend), np.repeat(v[150:151], 3, 0), 1)
    with pytest.raises(sdpa.Error, match="full"):
        cache.append(k, v)
    with pytest.raises(sdpa.Error, match="position"):
        cache.truncate(2)
    later = sdpa.Cache(1, 16, position=1 << 40)
    later.append(k[0], k[0])
    assert later.appended == (1 << 40) + 1


@pytest.mark.parametrize("format", ["f32", "bf16", ("i8", "f32")])
def test_patterns_of_a_cache(format: Any, floats: Any, backend: str) -> None:
    q, k, v, bias, sinks = floats(4, 3, 16), floats(300, 16), floats(300, 5), floats(90, 3), floats(4)
    cache = sdpa.Cache(200, 16, 5, format=format)
    for at in range(0, 300, 50):
        cache.append(k[at : at + 50], v[at : at + 50])
        cache.slide(90)
    equal = np.testing.assert_array_equal
    for options in {}, {"causal": True, "window": (40, 0), "sink": sinks}, {"bias": bias, "softcap": 3.0}:
        got = cache.pattern(q, backend=backend, **options)
        mean = cache.pattern(q, mean=True, backend=backend, **options)
        assert got.shape == (4, 90, 3) and mean.shape == (90, 3)
        # The keys are rounded.
        want = sdpa.pattern(q, k[210:], query_offset=87, backend=backend, **options)
        if format == "f32":
            equal(got, want)
            equal(mean, sdpa.pattern(q, k[210:], query_offset=87, mean=True, backend=backend, **options))
        np.testing.assert_allclose(got, want, atol=0.05)
        np.testing.assert_allclose(mean, got.mean(0), atol=1e-6)
    turned = np.ascontiguousarray(q.swapaxes(0, 1))
    out = np.empty((4, 90, 3), np.float32)
    assert cache.pattern(turned, heads_axis=1, out=out) is out
    equal(out, cache.pattern(q))
    equal(cache.pattern(q[0]), out[0])
    with pytest.raises(sdpa.Error, match="wrong shape: queries"):
        cache.pattern(floats(3, 15))


def test_nothing_to_see(floats: Any, backend: str) -> None:
    out, logs = sdpa.attention(floats(3, 4), floats(0, 4), floats(0, 2), log_sum_exp=True, backend=backend)
    assert (out == 0).all() and (logs == -np.inf).all()
    assert sdpa.attention(floats(0, 4), floats(5, 4), floats(5, 2), backend=backend).shape == (0, 2)
