#!/usr/bin/env bash
# onnxruntime 1.32.0: a cache of float16 makes decoding on an x86-64 slower, not faster.
#
# One step of GroupQueryAttention, one token on a cache of 8192 keys of 128 columns that it appends to in place, one
# thread. A cache of half the bytes takes more than twice the time of one of float32 (seen: 2.4 times, and 1.5 times with
# 65536 keys).
set -euo pipefail
[ "$(uname -m)" = x86_64 ]
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >halves.py <<'PYTHON'
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

KEYS, DIM = 8192, 128


def step(dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shapes = {name: (kind, [1, 1, DIM]) for name in "qkv"}
    shapes |= {name: (kind, [1, 1, KEYS, DIM]) for name in ("past_k", "past_v")}
    shapes |= {name: (TensorProto.INT32, [1]) for name in ("last", "total")}
    results = {"out": shapes["q"], "new_k": shapes["past_k"], "new_v": shapes["past_v"]}
    infos, outs = ([helper.make_tensor_value_info(name, *of) for name, of in x.items()] for x in (shapes, results))
    node = helper.make_node(
        "GroupQueryAttention", list(shapes), list(results), domain="com.microsoft", num_heads=1, kv_num_heads=1
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", infos, outs), opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    held = {name: rng.standard_normal(of[1]).astype(dtype) for name, of in shapes.items() if of[0] == kind}
    held |= {"last": np.array([KEYS - 1], np.int32), "total": np.array([KEYS], np.int32)}
    held |= {"out": np.zeros([1, 1, DIM], dtype)}
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in held.items()}
    binding = session.io_binding()
    for name in shapes:
        binding.bind_ortvalue_input(name, held[name])
    for name, to in ("out", "out"), ("new_k", "past_k"), ("new_v", "past_v"):
        binding.bind_ortvalue_output(name, held[to])
    return lambda: session.run_with_iobinding(binding)


steps = {np.float32: step(np.float32), np.float16: step(np.float16)}
least = dict.fromkeys(steps, float("inf"))
for _ in range(300):
    for dtype, run in steps.items():
        begin = time.perf_counter()
        run()
        least[dtype] = min(least[dtype], time.perf_counter() - begin)
single, half = least.values()
print(f"float32 {single * 1e6:.0f} us, float16 {half * 1e6:.0f} us")
assert half > 1.3 * single
PYTHON
env/bin/python halves.py
