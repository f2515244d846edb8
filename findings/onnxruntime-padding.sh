#!/usr/bin/env bash
# onnxruntime 1.32.0: what a padded value holds behind nonpad_kv_seqlen reaches the output, what a padded key holds does not.
#
# Operator Attention of opset 24: of 8 keys the first 5 are no padding. NaN or inf in a padded key changes nothing, in a
# padded value it makes that column of the output NaN: the weight 0 is multiplied by the value. A cache must not only be
# long enough, its unused rows must be finite. The same holds behind a boolean attn_mask, there for keys too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >padding.py <<'END'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

TYPES = {"float32": TensorProto.FLOAT, "bool": TensorProto.BOOL, "int64": TensorProto.INT64}


def attention(**inputs):
    names = ["q", "k", "v", "mask", "", "", "length"]
    node = helper.make_node("Attention", [name if name in inputs else "" for name in names], ["out"])
    shapes = [helper.make_tensor_value_info(name, TYPES[str(a.dtype)], a.shape) for name, a in inputs.items()]
    graph = helper.make_graph([node], "g", shapes, [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0].ravel()[0]


ones = np.ones((1, 1, 8, 16), np.float32)
values = ones * np.arange(8, dtype=np.float32)[:, None]
unused = np.arange(8)[:, None] >= 5
for padding in (0, np.inf, np.nan):
    keys_hold, values_hold = (np.where(unused, np.float32(padding), a) for a in (ones, values))
    for name, option in {"length": np.array([5]), "mask": ~unused.T}.items():
        print(f"{name}, padding of {padding}:", end=" ")
        print("in keys", attention(q=ones[:, :, :1], k=keys_hold, v=values, **{name: option}), end=", ")
        print("in values", attention(q=ones[:, :, :1], k=ones, v=values_hold, **{name: option}))
END
env/bin/python padding.py | tee seen
diff seen - <<'END'
length, padding of 0: in keys 2.0, in values 2.0
mask, padding of 0: in keys 2.0, in values 2.0
length, padding of inf: in keys 2.0, in values nan
mask, padding of inf: in keys nan, in values nan
length, padding of nan: in keys 2.0, in values nan
mask, padding of nan: in keys nan, in values nan
END
