#!/usr/bin/env bash
# onnx 1.23.2: collect_testcases(operator) gives the cases of the operator that was asked for first in the process.
#
# The cases of an operator are collected while the modules of all operators are imported, which happens once: a later call
# for another operator returns those of the first again, without an error. A conformance suite that asks for one operator
# after another tests the first one several times and the others never.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir onnx==1.23.2 numpy==2.4.6
cat >collect.py <<'END'
import sys
import warnings

from onnx.backend.test.case.node import collect_testcases

warnings.simplefilter("ignore")
for operator in sys.argv[1:]:
    names = sorted({case.name for case in collect_testcases(operator)})
    print(operator, len(names), names[0])
END
env/bin/python collect.py Attention RotaryEmbedding 2>/dev/null | tee seen
env/bin/python collect.py RotaryEmbedding Attention 2>/dev/null | tee -a seen
diff seen - <<'END'
Attention 186 test_attention_23_boolmask_fullymasked_row_nan_robustness
RotaryEmbedding 186 test_attention_23_boolmask_fullymasked_row_nan_robustness
RotaryEmbedding 16 test_rotary_embedding
Attention 16 test_rotary_embedding
END
