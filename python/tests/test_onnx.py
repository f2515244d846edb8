"""Every case of ONNX's operators Attention (opset 23 to 25) and RotaryEmbedding that its package generates.

The adapter only reshapes: a batch is a loop, `[batch][tokens][heads · dim]` is split into heads. Keys and values of 16
bits are rounded to that format in a cache, which they fit exactly; queries and masks are widened. With SDPA_WRONG=1 the queries are one position off.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Optional

import numpy as np
import pytest

import sdpa

onnx = pytest.importorskip("onnx", reason="python/check has it; another Python may not")

# How far a number of ONNX may be from ours, nearly all of which are below 1. Those of 16 bits are computed in 16 bits.
BOUNDS = {"float32": 5e-7, "float16": 7.5e-4, "bfloat16": 6e-3}
WRONG = int(os.environ.get("SDPA_WRONG", "0"))
FORMATS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def collected() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Of every operator: a call for one decides what all later calls return.
        return {case.name: case for case in collect_testcases(None)}


CASES = collected()


def cases(operator: str) -> list[Any]:
    """Those of one node; the others are the same case, spelled out in smaller operators."""
    graphs = ((case, case.model.graph.node) for case in CASES.values() if case.model)
    ours = [case for case, nodes in graphs if len(nodes) == 1 and nodes[0].op_type == operator]
    return [pytest.param(case, id=case.name.replace("test_", "")) for case in ours]


ATTENTION, ROTARY = cases("Attention"), cases("RotaryEmbedding")


def test_all_are_there() -> None:
    assert onnx.__version__ == "1.23.2"
    opsets = [case.values[0].model.opset_import[0].version for case in ATTENTION]
    assert {version: opsets.count(version) for version in opsets} == {23: 69, 24: 13, 25: 11}
    assert len(ROTARY) == 8


def parts(case: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, attributes and outputs by name."""
    node = case.model.graph.node[0]
    inputs, outputs = case.data_sets[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return named(node.input, inputs), attributes, named(node.output, outputs)


def named(names: Any, arrays: Any) -> dict[str, Any]:
    names = [name for name in names if name]
    assert len(names) == len(arrays)
    return dict(zip(names, arrays))


def heads_of(array: Any, heads: Optional[int]) -> Any:
    """[batch][heads][tokens][dim]"""
    if array.ndim == 4:
        return array
    batch, tokens, width = array.shape
    return array.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def close(got: Any, want: Any, kind: str) -> None:
    np.testing.assert_allclose(got, np.asarray(want, np.float32), rtol=0, atol=BOUNDS[kind])


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case: Any, backend: str) -> None:
    inputs, attributes, outputs = parts(case)
    kind = str(inputs["Q"].dtype)
    q, k, v = (
        np.asarray(heads_of(inputs[name], attributes.get(f"{of}_num_heads")), np.float32)
        for name, of in (("Q", "q"), ("K", "kv"), ("V", "kv"))
    )
    past = 0
    if "past_key" in inputs:
        past = inputs["past_key"].shape[2]
        k, v = (
            np.concatenate((inputs[f"past_{name}"], x), 2, dtype=np.float32) for name, x in (("key", k), ("value", v))
        )
        np.testing.assert_array_equal(k, outputs["present_key"])
        np.testing.assert_array_equal(v, outputs["present_value"])
    heads, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    mode = attributes.get("qk_matmul_output_mode", 0)
    left, right = (None if (n := attributes.get(f"{side}_window_size", -1)) < 0 else n for side in ("left", "right"))
    for batch in range(len(q)):
        count = keys
        options: dict[str, Any] = {
            "scale": attributes.get("scale"),
            "softcap": attributes.get("softcap"),
            "causal": bool(attributes.get("is_causal", 0)),
            "window": (left, right),
            "query_offset": past + WRONG,
        }
        if "nonpad_kv_seqlen" in inputs:
            count = int(inputs["nonpad_kv_seqlen"][batch])
            options["query_offset"] = count - queries
        if "attn_mask" in inputs:
            mask = inputs["attn_mask"]
            mask = mask if mask.dtype == bool else mask.astype(np.float32)
            shape = ((len(q), heads) if mask.ndim == 4 else (heads,))[-max(mask.ndim - 2, 0) :] if mask.ndim > 2 else ()
            mask = np.broadcast_to(mask, (*shape, queries, mask.shape[-1]))
            # A mask may end before the keys do: those behind it are masked.
            short = max(count - mask.shape[-1], 0)
            fill = False if mask.dtype == bool else -np.inf
            mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, short)], constant_values=fill)[..., :count]
            options["attn_mask"] = mask[batch] if mask.ndim == 4 else mask
        these = (q[batch], k[batch, :, :count], v[batch, :, :count])
        out = sdpa.attention(*these, backend=backend, **options)
        want = outputs["Y"][batch]
        if want.ndim == 2:
            want = want.reshape(queries, heads, -1).transpose(1, 0, 2)
        close(out, want, kind)
        cached(these, kind, options, out, backend)
        if "qk_matmul_output" in outputs:
            grids(these, mode, options, outputs["qk_matmul_output"][batch], kind, backend)


def cached(these: Any, kind: str, options: dict[str, Any], out: Any, backend: str) -> None:
    """From a cache for each KV head, of the elements of the case: the same bits."""
    q, k, v = these
    (kv_heads, count, dim), group = k.shape, len(q) // len(k)
    # A cache counts from the newest key.
    options = {**options, "query_offset": options["query_offset"] - (count - q.shape[1])}
    for head in range(kv_heads):
        cache = sdpa.Cache(max(count, 1), dim, v.shape[2], format=FORMATS[kind])
        cache.append(k[head], v[head])
        of = slice(head * group, (head + 1) * group)
        mask = options.get("attn_mask")
        mine = {"attn_mask": mask[of]} if mask is not None and mask.ndim == 3 else {}
        got = cache.attend(q[of], backend=backend, **{**options, **mine})
        np.testing.assert_array_equal(got.view(np.uint32), out[of].view(np.uint32))


def grids(these: Any, mode: int, options: dict[str, Any], want: Any, kind: str, backend: str) -> None:
    """Mode 0 is the scaled scores, 3 the pattern; those in between lead to it by a softmax."""
    q, k, _ = these
    count, group = k.shape[1], len(q) // len(k)
    assert want.shape == (len(q), q.shape[1], count)
    weights = sdpa.pattern(q, k, backend=backend, **options).transpose(0, 2, 1)
    want = np.asarray(want, np.float32)
    if mode == 0:
        for head in range(len(q)):
            scores = sdpa.scores(k[head // group], q[head], scale=options["scale"], backend=backend)
            close(scores.T, want[head], kind)
        return
    if mode == 1 and "attn_mask" in options:
        mask = options["attn_mask"]
        want = want + (np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == bool else mask)
    if mode < 3:
        assert mode == 2 or not options["causal"] and options["window"] == (None, None)
        want = np.stack([sdpa.softmax(head, axis=1, backend=backend) for head in want])
    close(weights, want, kind)


@pytest.mark.parametrize("case", ROTARY)
def test_rotary_embedding(case: Any, backend: str) -> None:
    inputs, attributes, outputs = parts(case)
    x = heads_of(inputs["input"], attributes.get("num_heads"))
    tokens = x.shape[2]
    cosines, sines = inputs["cos_cache"], inputs["sin_cache"]
    want = heads_of(outputs["output"], attributes.get("num_heads"))
    pairs = "interleaved" if attributes.get("interleaved", 0) else "halves"
    width = 2 * cosines.shape[-1]
    assert attributes.get("rotary_embedding_dim", 0) in (0, width)
    for batch in range(len(x)):
        for token in range(tokens):
            at = inputs["position_ids"][batch, token] if "position_ids" in inputs else (batch, token)
            # Its tables hold any numbers, not those of an angle: one token at a time, by a table made for it.
            table = sdpa.RotaryTable(1, cosines.shape[-1])
            table.cosines[0], table.sines[0] = cosines[at], sines[at]
            got = sdpa.rotate(x[batch, :, token : token + 1], table, pairs=pairs, backend=backend)
            np.testing.assert_allclose(got, want[batch, :, token : token + 1], rtol=0, atol=3e-7)
