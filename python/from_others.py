"""What the options of other libraries mean in this one: the tables of docs/from-others.md, each cell from a call.

    pip install ./python torch jax keras onnx onnxruntime openvino ggml-python numpy    (docs/from-others.md has the
                                                                    versions; ggml-python compiles ggml)
    python -P python/from_others.py [--write-docs]

* A line "theirs, ours" is two expressions. Both are evaluated on the same arrays, and their results agree within 1e-5.
* The table of meaning asks each library with queries of 0, so that the visible keys have equal weights, and with values
  that are the rows of a unit matrix, so that an output is its weights.

Fails if two results differ, or if the page has other tables.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Callable

os.environ["KERAS_BACKEND"] = "jax"
warnings.filterwarnings("ignore")

import ggml  # noqa: E402
import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import openvino  # noqa: E402
import sdpa  # noqa: E402
import torch  # noqa: E402
import torch.nn.attention.bias  # noqa: E402
import torch.nn.attention.flex_attention  # noqa: E402
from openvino import opset13  # noqa: E402

PAGE = Path(__file__).resolve().parent.parent / "docs/from-others.md"
DIM = 8
LOWEST = float(np.finfo(np.float32).min)


# The libraries, on [heads, tokens, dim] of NumPy.


def pytorch(q: Any, k: Any, v: Any, **options: Any) -> Any:
    of = [torch.from_numpy(x) for x in (q, k, v)]
    options = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
    return torch.nn.functional.scaled_dot_product_attention(*of, **options).numpy()


def layer_of_pytorch(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """The output and the weights of `torch.nn.MultiheadAttention`, whose projections change nothing, without the
    batch."""
    of = [torch.as_tensor(x).transpose(0, 1).flatten(1) for x in (q, k, v)]
    width = of[0].shape[1]
    layer = torch.nn.MultiheadAttention(width, len(q), bias=False)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(width).repeat(3, 1))
        layer.out_proj.weight.copy_(torch.eye(width))
        return layer(*of, **options)


def multihead(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """Of one head."""
    options = {name: torch.from_numpy(x) for name, x in options.items()}
    return layer_of_pytorch(q, k, v, need_weights=False, **options)[0].numpy()[None]


def in_jax(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """Arrays are [tokens, heads, dim] there."""
    of = [jax.numpy.asarray(x.swapaxes(0, 1)) for x in (q, k, v)]
    return np.asarray(jax.nn.dot_product_attention(*of, **options)).swapaxes(0, 1)


def in_keras(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """Arrays are [batch, tokens, heads, dim] there."""
    of = [x.swapaxes(0, 1)[None] for x in (q, k, v)]
    return np.asarray(keras.ops.dot_product_attention(*of, **options))[0].swapaxes(0, 1)


TYPES = {np.float32: onnx.TensorProto.FLOAT, np.bool_: onnx.TensorProto.BOOL, np.int32: onnx.TensorProto.INT32}


def node(
    operator: str, inputs: list[Any], domain: str = "", outputs: int = 1, opset: int = 24, **attributes: Any
) -> Any:
    """The first output of an operator of ONNX, as ONNX Runtime computes it."""
    feed = {f"input{i}": x for i, x in enumerate(inputs) if x is not None}
    names = ["" if x is None else f"input{i}" for i, x in enumerate(inputs)]
    results = [f"output{i}" for i in range(outputs)]
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node(operator, names, results, domain=domain, **attributes)],
        operator,
        [helper.make_tensor_value_info(name, TYPES[x.dtype.type], x.shape) for name, x in feed.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in results],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feed)[0]


def attention_of_onnx(q: Any, k: Any, v: Any, attn_mask: Any = None, **attributes: Any) -> Any:
    return node("Attention", [q[None], k[None], v[None], attn_mask], **attributes)[0]


def attention_25(*of: Any, **options: Any) -> Any:
    """Of opset 25, which has windows."""
    return attention_of_onnx(*of, opset=25, **options)


def packed(x: Any) -> Any:
    return x.swapaxes(0, 1).reshape(1, x.shape[1], -1)


def unpacked(x: Any, heads: int) -> Any:
    return x[0].reshape(x.shape[1], heads, -1).swapaxes(0, 1)


def multihead_of_ort(
    q: Any, k: Any, v: Any, key_padding_mask: Any = None, attention_bias: Any = None, **attributes: Any
) -> Any:
    inputs = [packed(q), packed(k), packed(v), None, key_padding_mask, attention_bias]
    heads = q.shape[0]
    return unpacked(node("MultiHeadAttention", inputs, "com.microsoft", num_heads=heads, **attributes), heads)


def grouped_of_ort(
    q: Any, k: Any, v: Any, past: int = 0, attention_bias: Any = None, head_sink: Any = None, **attributes: Any
) -> Any:
    """The first `past` keys and values are in the cache."""
    total = k.shape[1]
    cache = [k[None, :, :past], v[None, :, :past]] if past else [None, None]
    new = [packed(x) for x in (q, k[:, past:], v[:, past:])]
    inputs = [*new, *cache, np.array([total - 1], np.int32), np.array(total, np.int32)]
    inputs += [None, None, None, attention_bias, head_sink]
    heads = {"num_heads": q.shape[0], "kv_num_heads": k.shape[0]}
    return unpacked(node("GroupQueryAttention", inputs, "com.microsoft", 3, **heads, **attributes), q.shape[0])


def in_openvino(q: Any, k: Any, v: Any, mask: Any = None, scale: Any = None, causal: bool = False) -> Any:
    if scale is not None and mask is None:
        mask = np.zeros((q.shape[1], k.shape[1]), np.float32)
    arrays = [q[None], k[None], v[None], *([] if mask is None else [mask])]
    inputs = [opset13.parameter(x.shape, x.dtype) for x in arrays]
    scales = {} if scale is None else {"scale": opset13.constant(np.float32(scale))}
    result = opset13.scaled_dot_product_attention(*inputs, causal=causal, **scales)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(openvino.Model([result], inputs), "CPU", exact)(arrays)[0][0]


def in_ggml(
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    scale: Any = None,
    max_bias: float = 0.0,
    softcap: float = 0.0,
    sinks: Any = None,
) -> Any:
    """`ggml_flash_attn_ext`, whose mask is added and is of float16."""
    memory = ggml.ggml_init(ggml.ggml_init_params(mem_size=1 << 24, mem_buffer=None))

    def tensor(array: Any) -> Any:
        kind = ggml.GGML_TYPE_F16 if array.dtype == np.float16 else ggml.GGML_TYPE_F32
        lengths = (ctypes.c_int64 * array.ndim)(*reversed(array.shape))
        made = ggml.ggml_new_tensor(memory, kind, array.ndim, lengths)
        ctypes.memmove(ggml.ggml_get_data(made), np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return made

    scale = q.shape[2] ** -0.5 if scale is None else scale
    halves = None if mask is None else tensor(mask.astype(np.float16))
    out = ggml.ggml_flash_attn_ext(memory, tensor(q), tensor(k), tensor(v), halves, scale, max_bias, softcap)
    if sinks is not None:
        ggml.ggml_flash_attn_ext_add_sinks(out, tensor(sinks))
    graph = ggml.ggml_new_graph(memory)
    ggml.ggml_build_forward_expand(graph, out)
    ggml.ggml_graph_compute_with_ctx(memory, graph, 1)
    got = np.empty((q.shape[1], q.shape[0], v.shape[2]), np.float32)
    ctypes.memmove(got.ctypes.data, ggml.ggml_get_data(out), got.nbytes)
    ggml.ggml_free(memory)
    return got.swapaxes(0, 1)


# The table of meaning.

Attend = Callable[..., Any]
ANY = object()


def zeros(tokens: int, heads: int = 1) -> Any:
    return np.zeros((heads, tokens, DIM), np.float32)


def weights(attend: Attend, queries: int, keys: int, **options: Any) -> Any:
    values = np.eye(keys, DIM, dtype=np.float32)[None]
    return attend(zeros(queries), zeros(keys), values, **options)[0][:, :keys]


def of_all_masked(attend: Attend, mask: Callable[[Any], dict[str, Any]], masked: Any) -> str:
    """What a query without a visible key gives; `mask` makes the option of a mask, queries × keys."""
    got = weights(attend, 3, 3, **mask(np.full((3, 3), masked)))[0]
    if np.isnan(got).all():
        return "NaN"
    return "0" if not got.any() else "the mean" if np.allclose(got, 1 / 3) else f"{got}"


def corner(attend: Attend, **option: Any) -> str:
    got = weights(attend, 3, 5, **option) > 0
    if (got == np.tri(3, 5, dtype=bool)).all():
        return "top left"
    if (got == np.tri(3, 5, 2, dtype=bool)).all():
        return "bottom right"
    return "**" + ", ".join(str(int(row.sum())) for row in got) + " keys** of 5 for 3 queries"


def window(attend: Attend, **option: Any) -> str:
    """The number of keys that the middle query sees."""
    return f"{int((weights(attend, 8, 8, **option)[4] > 0).sum())} keys"


def scale(attend: Attend) -> str:
    q, k = (np.random.default_rng(seed).standard_normal((1, 3, DIM)).astype(np.float32) for seed in (0, 1))
    values = np.eye(3, DIM, dtype=np.float32)[None]
    try:
        got = attend(q, k, values, scale=0.0)[0][-1, :3]
    except Exception:
        return "refused"
    return "equal weights" if np.allclose(got, 1 / 3) else "1/√dim"


def sharing(attend: Attend, **option: Any) -> str:
    values = zeros(1, 2)
    values[1] = 1
    try:
        got = attend(zeros(1, 4), zeros(1, 2), values, **option)[:, 0, 0]
    except Exception:
        return "refused"
    return {(0, 0, 1, 1): "consecutive", (0, 1, 0, 1): "in turns"}[tuple(int(x) for x in got)]


def softcap(attend: Attend, mask: Callable[[Any], dict[str, Any]], **option: Any) -> str:
    """A bias of 10 on one key of two: after a softcap of 1 it is still 10."""
    got = weights(attend, 2, 2, **mask(np.array([[0, -10], [0, -10]], np.float32)), **option)
    return "before the bias" if got[1, 1] < 1e-3 else "after the bias"


def batched(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda mask: {name: mask.astype(np.float32)[None, None] if mask.dtype != bool else mask[None, None]}


def plain(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda mask: {name: mask if mask.dtype == bool else mask.astype(np.float32)}


NONE = "–"
QUESTIONS = (
    "causal, 3 queries, 5 keys", 'a window of "2"', "a boolean mask of True", "all keys masked, boolean",
    "all keys masked by −∞", "all keys at the lowest float", "a scale of 0", "query heads of a KV head", "softcap",
)  # fmt: skip


def meanings() -> dict[str, list[str]]:
    def boolean(attend: Attend, mask: Callable[[Any], dict[str, Any]]) -> str:
        one = np.zeros((3, 3), bool)
        one[:, 0] = True
        return "keeps" if weights(attend, 3, 3, **mask(one))[0, 0] == 1 else "masks"

    def masks(attend: Attend, mask: Any, false: Any = False) -> list[str]:
        return [
            boolean(attend, mask), of_all_masked(attend, mask, false),
            of_all_masked(attend, mask, -np.inf), of_all_masked(attend, mask, LOWEST),
        ]  # fmt: skip

    ours = plain("attn_mask")
    tables = {
        "sdpa": [
            corner(sdpa.attention, causal=True), window(sdpa.attention, window=(2, 2)), *masks(sdpa.attention, ours),
            scale(sdpa.attention), sharing(sdpa.attention), softcap(sdpa.attention, ours, softcap=1),
        ],
        "PyTorch SDPA": [
            corner(pytorch, is_causal=True), NONE, *masks(pytorch, plain("attn_mask")),
            scale(pytorch), sharing(pytorch, enable_gqa=True), NONE,
        ],
        "PyTorch MultiheadAttention": [
            NONE, NONE, *masks(multihead, plain("attn_mask"), True), NONE, NONE, NONE,
        ],
        "ONNX Attention": [
            corner(attention_of_onnx, is_causal=1), NONE, *masks(attention_of_onnx, plain("attn_mask")),
            scale(attention_of_onnx), sharing(attention_of_onnx),
            softcap(attention_of_onnx, plain("attn_mask"), softcap=1.0),
        ],
        "ONNX Attention, opset 25": [
            corner(attention_25, is_causal=1), window(attention_25, is_causal=1, left_window_size=2),
            *masks(attention_25, plain("attn_mask")), scale(attention_25), sharing(attention_25),
            softcap(attention_25, plain("attn_mask"), softcap=1.0),
        ],
        "ORT MultiHeadAttention": [
            corner(multihead_of_ort, unidirectional=1), NONE, NONE, NONE,
            of_all_masked(multihead_of_ort, batched("attention_bias"), -np.inf),
            of_all_masked(multihead_of_ort, batched("attention_bias"), LOWEST), scale(multihead_of_ort), NONE, NONE,
        ],
        "ORT GroupQueryAttention": [
            corner(lambda q, k, v: grouped_of_ort(q, k, v, past=2)),
            window(grouped_of_ort, local_window_size=2), NONE, NONE,
            of_all_masked(grouped_of_ort, batched("attention_bias"), -np.inf),
            of_all_masked(grouped_of_ort, batched("attention_bias"), LOWEST), scale(grouped_of_ort),
            sharing(grouped_of_ort), softcap(grouped_of_ort, batched("attention_bias"), softcap=1.0),
        ],
        "JAX": [
            corner(in_jax, is_causal=True), window(in_jax, local_window_size=2),
            boolean(in_jax, lambda mask: {"mask": mask[None]}),
            of_all_masked(in_jax, lambda mask: {"mask": mask[None]}, False),
            of_all_masked(in_jax, lambda mask: {"bias": mask.astype(np.float32)[None]}, -np.inf),
            of_all_masked(in_jax, lambda mask: {"bias": mask.astype(np.float32)[None]}, LOWEST),
            scale(in_jax), sharing(in_jax), NONE,
        ],
        "Keras": [
            corner(in_keras, is_causal=True), NONE, boolean(in_keras, batched("mask")),
            of_all_masked(in_keras, batched("mask"), False), of_all_masked(in_keras, batched("bias"), -np.inf),
            of_all_masked(in_keras, batched("bias"), LOWEST), scale(in_keras), sharing(in_keras), NONE,
        ],
        "OpenVINO": [
            corner(in_openvino, causal=True), NONE, *masks(in_openvino, plain("mask")),
            scale(in_openvino), sharing(in_openvino), NONE,
        ],
        "ggml": [
            NONE, NONE, NONE, NONE, of_all_masked(in_ggml, plain("mask"), -np.inf),
            of_all_masked(in_ggml, plain("mask"), LOWEST), scale(in_ggml), sharing(in_ggml),
            softcap(in_ggml, plain("mask"), softcap=1.0),
        ],
    }  # fmt: skip
    return tables


# Theirs and ours. `q`, `k` and `v` are arrays of that library; those of [batch, …] have a batch of 1, of which
# this package takes the first.

PAIRS: dict[str, list[tuple[str, str]]] = {
    "PyTorch: `[heads, tokens, dim]`; a batch is a call each, or more heads": [
        ("F.scaled_dot_product_attention(q, k, v)", "sdpa.attention(q, k, v)"),
        ("F.scaled_dot_product_attention(q, k, v, is_causal=True)", "sdpa.attention(q, k, v, causal=True)"),
        (
            "F.scaled_dot_product_attention(q, k, v, causal_lower_right(3, 5))",
            "sdpa.attention(q, k, v, causal=True, query_offset=5 - 3)",
        ),
        ("F.scaled_dot_product_attention(q, k, v, mask)", "sdpa.attention(q, k, v, attn_mask=mask)"),
        ("F.scaled_dot_product_attention(q, k, v, bias)", "sdpa.attention(q, k, v, bias=bias.T)"),
        ("F.scaled_dot_product_attention(q, k[:1], v[:1], enable_gqa=True)", "sdpa.attention(q, k[:1], v[:1])"),
        (
            "flex_attention(q[None], k[None], v[None], return_lse=True)[1][0]",
            "sdpa.attention(q, k, v, log_sum_exp=True)[1]",
        ),
        ("MultiheadAttention(q, k, v, need_weights=True)[1]", "sdpa.pattern(q, k, mean=True).T"),
        (
            "MultiheadAttention(q, k, v, need_weights=True, average_attn_weights=False)[1]",
            "sdpa.pattern(q, k).swapaxes(1, 2)",
        ),
    ],
    "JAX and Keras: `[tokens, heads, dim]`": [
        ("jax.nn.dot_product_attention(q, k, v, is_causal=True)", "sdpa.attention(q, k, v, causal=True, heads_axis=1)"),
        (
            "jax.nn.dot_product_attention(q, k, v, local_window_size=2)",
            "sdpa.attention(q, k, v, window=(2, 2), heads_axis=1)",
        ),
        (
            "jax.nn.dot_product_attention(q, k, v, local_window_size=(2, 0))",
            "sdpa.attention(q, k, v, window=(2, 0), heads_axis=1)",
        ),
        (
            "jax.nn.dot_product_attention(q, k, v, mask=mask[None])",
            "sdpa.attention(q, k, v, attn_mask=mask, heads_axis=1)",
        ),
        (
            "jax.nn.dot_product_attention(q, k, v, return_residual=True)[1]",
            "sdpa.attention(q, k, v, log_sum_exp=True, heads_axis=1)[1].T",
        ),
        (
            "keras.ops.dot_product_attention(q[None], k[None], v[None], scale=0.3)[0]",
            "sdpa.attention(q, k, v, scale=0.3, heads_axis=1)",
        ),
    ],
    "ONNX and ONNX Runtime: `[heads, tokens, dim]`, here without the batch": [
        ("Attention(q, k, v, is_causal=1)", "sdpa.attention(q, k, v, causal=True)"),
        ("Attention(q, k, v, attn_mask=bias, softcap=2.0)", "sdpa.attention(q, k, v, bias=bias.T, softcap=2)"),
        (
            "Attention(q, k, v, is_causal=1, left_window_size=2, opset=25)",
            "sdpa.attention(q, k, v, causal=True, window=(2, None))",
        ),
        (
            "Attention(q, k, v, left_window_size=1, right_window_size=2, opset=25)",
            "sdpa.attention(q, k, v, window=(1, 2))",
        ),
        (
            "GroupQueryAttention(q, k, v, past=2)",
            "sdpa.attention(q, k, v, causal=True, query_offset=2)",
        ),
        (
            "GroupQueryAttention(q, k, v, past=2, local_window_size=2)",
            "sdpa.attention(q, k, v, causal=True, query_offset=2, window=(1, 0))",
        ),
        (
            "GroupQueryAttention(q, k, v, past=2, head_sink=sinks)",
            "sdpa.attention(q, k, v, causal=True, query_offset=2, sink=sinks)",
        ),
        (
            "GroupQueryAttention(q, k, v, past=2, smooth_softmax=1)",
            "sdpa.attention(q, k, v, causal=True, query_offset=2, sink=0)",
        ),
        ("MultiHeadAttention(q, k, v, key_padding_mask=padding)", "sdpa.attention(q, k, v, keep=padding[0] != 0)"),
    ],
    "OpenVINO: `[heads, tokens, dim]`, here without the batch": [
        ("ScaledDotProductAttention(q, k, v, causal=True)", "sdpa.attention(q, k, v, causal=True)"),
        ("ScaledDotProductAttention(q, k, v, mask, scale=0.5)", "sdpa.attention(q, k, v, attn_mask=mask, scale=0.5)"),
    ],
    "ggml: `[heads, tokens, dim]`, its `ne` from the other end; the mask is of float16": [
        ("flash_attn_ext(q, k, v, mask=halves, softcap=2.0)", "sdpa.attention(q, k, v, bias=halves.T, softcap=2)"),
        ("flash_attn_ext(q, k, v, sinks=sinks)", "sdpa.attention(q, k, v, sink=sinks)"),
        ("flash_attn_ext(q, k, v, mask=-distances, max_bias=8.0)", "sdpa.attention(q, k, v, slopes=slopes)"),
    ],
}


def pairs() -> list[str]:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, tokens, DIM)).astype(np.float32) for tokens in (3, 5, 5))
    mask = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 0, 1], [1, 0, 1, 1, 1]], bool)
    bias = rng.standard_normal((3, 5)).astype(np.float32)
    others = {
        "sdpa": sdpa, "mask": mask, "bias": bias, "sinks": np.array([0.5, -1], np.float32),
        "padding": np.array([[1, 1, 0, 1, 0]], np.int32), "jax": jax, "keras": keras, "F": torch.nn.functional,
        "causal_lower_right": torch.nn.attention.bias.causal_lower_right, "Attention": attention_of_onnx,
        "flex_attention": torch.nn.attention.flex_attention.flex_attention,
        "MultiHeadAttention": multihead_of_ort, "GroupQueryAttention": grouped_of_ort,
        "ScaledDotProductAttention": in_openvino, "MultiheadAttention": layer_of_pytorch, "flash_attn_ext": in_ggml,
        "halves": bias.astype(np.float16).astype(np.float32),
        # A `max_bias` of 8 is 2^-8 to the powers 1/2 and 1 as slopes of two heads.
        "distances": np.abs(np.arange(3)[:, None] - np.arange(5)), "slopes": np.array([2**-4, 2**-8], np.float32),
    }  # fmt: skip
    lines = []
    for title, of_library in PAIRS.items():
        lines += [f"**{title}**", "", "| theirs | here |", "| --- | --- |"]
        names: dict[str, Any] = {**others, "q": q, "k": k, "v": v}
        if "PyTorch" in title:
            names |= {name: torch.from_numpy(names[name]) for name in ("q", "k", "v", "mask", "bias")}
        elif "JAX" in title:
            names |= {name: jax.numpy.asarray(names[name].swapaxes(0, 1)) for name in ("q", "k", "v")}
        for theirs, ours in of_library:
            want, got = (np.asarray(eval(text, names)) for text in (theirs, ours))  # noqa: S307  those above
            error = float(np.abs(want - got).max())
            if want.shape != got.shape or not error < 1e-5:
                sys.exit(f"{theirs} and {ours} differ: shapes {want.shape} {got.shape}, by {error}")
            lines.append(f"| `{theirs}` | `{ours}` |")
        lines.append("")
    return lines


def table() -> list[str]:
    columns = meanings()
    lines = ["| | " + " | ".join(QUESTIONS) + " |", "| --- |" + " --- |" * len(QUESTIONS)]
    lines += [f"| {library} | " + " | ".join(cells) + " |" for library, cells in columns.items()]
    modules = {
        "PyTorch": "torch", "JAX": "jax", "Keras": "keras", "ONNX": "onnx", "ONNX Runtime (ORT)": "onnxruntime",
        "OpenVINO": "openvino", "ggml-python": "ggml-python",
    }  # fmt: skip
    versions = [f"{name} {importlib.metadata.version(module).split('+')[0]}" for name, module in modules.items()]
    ggml_itself = f"ggml {ggml.ggml_version().decode()}"
    return [*lines, "", f"Of {', '.join(versions)} ({ggml_itself}), on a CPU.", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args()
    page = PAGE.read_text()
    want = page
    for name, lines in ("meaning", table()), ("pairs", pairs()):
        print(*lines, sep="\n")
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = want.split(begin)
        want = before + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    if arguments.write_docs:
        PAGE.write_text(want)
    elif want != page:
        sys.exit(f"{PAGE} has other tables; --write-docs writes these")


if __name__ == "__main__":
    main()
