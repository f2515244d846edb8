"""Scaled dot-product attention on NumPy arrays, with the bits of a microcontroller.

The score grid and the pattern have a **row per key and a column per query**. Arrays are float32, of NumPy or of whatever
has `__array_interface__` or DLPack on the CPU; none is copied. A call that is refused raises and has written nothing.
"""

from ._attention import attention, attention_packed, join, merge, pattern, states
from ._cache import Cache
from ._compare import Comparison, compare
from ._elements import Elements, narrow
from ._export import export
from ._library import KEY_BLOCK, SPAN, Error, backends
from ._library import version as __version__
from ._plot import plot
from ._operations import dot, project, scores, softmax, weighted_sum
from ._rotary import RotaryTable, rotate

__all__ = [
    "KEY_BLOCK", "SPAN", "Cache", "Comparison", "Elements", "Error", "RotaryTable", "__version__", "attention",
    "attention_packed", "backends", "compare", "dot", "export", "join", "merge", "narrow", "pattern", "plot", "project",
    "rotate", "scores", "softmax", "states", "weighted_sum",
]  # fmt: skip
