#!/usr/bin/env bash
# onnxruntime 1.32.0: the same Attention node has other results at opset 25 than at 24.
#
# A query whose keys all have a bias of the lowest float sees no key at opset 24 (its output is 0), and all keys alike at
# 25 (the mean): equal sums have equal weights there, as in ONNX's own reference at both opsets. A scale of 0 is an error
# at 24 and gives equal weights at 25. Weights are read off as outputs: values are rows of a unit matrix.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >opsets.py <<'END'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def weights(opset, run, bias, **attributes):
    arrays = {name: np.ones((1, 1, 4, 4), np.float32) for name in "qk"}
    arrays |= {"v": np.eye(4, dtype=np.float32)[None, None], "bias": np.full((4, 4), bias, np.float32)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in arrays.items()]
    nodes = [helper.make_node("Attention", list(arrays), ["out"], **attributes)]
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(helper.make_graph(nodes, "g", infos, out), opset_imports=opsets, ir_version=10)
    try:
        return run(model, arrays)[0, 0, 0].tolist()
    except Exception as error:
        return "an error" if "scale" in str(error) else str(error)


def in_onnxruntime(model, arrays):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, arrays)[0]


def in_reference(model, arrays):
    return ReferenceEvaluator(model).run(None, arrays)[0]


lowest = np.finfo(np.float32).min
for opset in 24, 25:
    print(opset, "onnxruntime", weights(opset, in_onnxruntime, lowest))
    print(opset, "reference", weights(opset, in_reference, lowest))
    print(opset, "onnxruntime, scale 0", weights(opset, in_onnxruntime, 0.0, scale=0.0))
END
env/bin/python opsets.py | tee seen
diff seen - <<'END'
24 onnxruntime [0.0, 0.0, 0.0, 0.0]
24 reference [0.25, 0.25, 0.25, 0.25]
24 onnxruntime, scale 0 an error
25 onnxruntime [0.25, 0.25, 0.25, 0.25]
25 reference [0.25, 0.25, 0.25, 0.25]
25 onnxruntime, scale 0 [0.25, 0.25, 0.25, 0.25]
END
