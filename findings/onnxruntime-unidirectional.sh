#!/usr/bin/env bash
# onnxruntime 1.32.0: causal MultiHeadAttention with fewer queries than keys masks no key for the last query.
#
# com.microsoft.MultiHeadAttention with unidirectional=1, 3 queries and 5 keys: query 0 sees key 0, query 1 keys 0 and 1,
# and the last query all 5, where 3 follow in that corner and ONNX's Attention shows 3. With as many queries as keys it is
# the causal mask. Weights are read off as outputs: queries of 0 make them equal, values are rows of a unit matrix.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >causal.py <<'END'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def visible(queries, keys, operator, domain, **attributes):
    arrays = [np.zeros((1, n, 8), np.float32) for n in (queries, keys)] + [np.eye(keys, 8, dtype=np.float32)[None]]
    names = ["q", "k", "v"]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n, x in zip(names, arrays)]
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    nodes = [helper.make_node(operator, names, ["out"], domain=domain, **attributes)]
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", infos, out), opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    weights = session.run(None, dict(zip(names, arrays)))[0][0]
    return [int(n) for n in (weights > 0).sum(1)]


for shape in (3, 5), (5, 5):
    print("MultiHeadAttention", shape, visible(*shape, "MultiHeadAttention", "com.microsoft", num_heads=1, unidirectional=1))
    heads = {"q_num_heads": 1, "kv_num_heads": 1}
    print("Attention", shape, visible(*shape, "Attention", "", is_causal=1, **heads))
END
env/bin/python causal.py | tee seen
diff seen - <<'END'
MultiHeadAttention (3, 5) [1, 2, 5]
Attention (3, 5) [1, 2, 3]
MultiHeadAttention (5, 5) [1, 2, 3, 4, 5]
Attention (5, 5) [1, 2, 3, 4, 5]
END
