#!/usr/bin/env bash
# openvino 2026.4.1: with state variables attention keeps keys and values in 8 bits, where float32 was asked for too.
#
# INFERENCE_PRECISION_HINT=f32 makes ScaledDotProductAttention exact to 4e-7 over plain inputs. Where the same keys and
# values come from state variables (ReadValue, Gather, Concat, Assign), the CPU plugin makes a KV cache of them, whose
# default KV_CACHE_PRECISION is u8 and does not follow the hint: decoding is off by 6e-3, which is 5 % of the outputs'
# standard deviation. KV_CACHE_PRECISION=f32 gives 4e-7 again.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo || { echo "this needs an x86-64 with AVX2" && exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir openvino==2026.4.1 numpy==2.4.6
cat >cache.py <<'END'
import numpy as np
import openvino as ov
from openvino import opset6, opset13 as op
from openvino.op.util import Variable, VariableInfo

HEADS, TOKENS, DIM = 4, 200, 64
random = np.random.default_rng(1)
q, k, v = (random.standard_normal((1, HEADS, TOKENS, DIM), dtype=np.float32) for _ in range(3))


def request(stateful, **config):
    inputs = [op.parameter([1, HEADS, -1, DIM], ov.Type.f32, name) for name in "qkv"]
    keys_values, sinks = inputs[1:], []
    if stateful:
        beam = op.parameter([-1], ov.Type.i32, "beam")
        for i, new in enumerate(inputs[1:]):
            info = VariableInfo()
            info.data_shape, info.data_type = ov.PartialShape([-1, HEADS, -1, DIM]), ov.Type.f32
            info.variable_id = f"past {i}"
            variable = Variable(info)
            past = opset6.read_value(op.constant(np.zeros((1, HEADS, 0, DIM), np.float32)), variable)
            keys_values[i] = op.concat([op.gather(past, beam, op.constant(0)), new], 2)
            sinks.append(opset6.assign(keys_values[i], variable))
        inputs.append(beam)
    # A model's mask is an input; the cache is made only where there is one.
    mask = op.parameter([1, 1, -1, -1], ov.Type.f32, "mask")
    out = op.result(op.scaled_dot_product_attention(inputs[0], *keys_values, attention_mask=mask))
    model = ov.Model([out], sinks, inputs + [mask], "attention")
    config["INFERENCE_PRECISION_HINT"] = "f32"
    return ov.Core().compile_model(model, "CPU", config).create_infer_request()


def error(stateful, **config):
    decode, worst = request(stateful, **config), 0
    for i in range(TOKENS):
        token = slice(i if stateful else 0, i + 1)
        inputs = [q[:, :, i: i + 1], k[:, :, token], v[:, :, token]]
        inputs += [np.zeros(1, np.int32)] * stateful + [np.zeros((1, 1, 1, i + 1), np.float32)]
        out = decode.infer([np.ascontiguousarray(a) for a in inputs])[0]
        scores = q[:, :, i: i + 1].astype(float) @ k[:, :, : i + 1].transpose(0, 1, 3, 2) / DIM**0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        exact = weights @ v[:, :, : i + 1] / weights.sum(-1, keepdims=True)
        worst = max(worst, abs(out - exact).max())
    return f"off by more than 1e-3: {worst > 1e-3}, more than 2e-6: {worst > 2e-6}"


print("plain inputs:", error(False))
print("state:", error(True))
print("state, KV_CACHE_PRECISION=f32:", error(True, KV_CACHE_PRECISION="f32"))
END
env/bin/python cache.py | tee seen
diff seen - <<'END'
plain inputs: off by more than 1e-3: False, more than 2e-6: False
state: off by more than 1e-3: True, more than 2e-6: True
state, KV_CACHE_PRECISION=f32: off by more than 1e-3: False, more than 2e-6: False
END
