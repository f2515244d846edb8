"""A picture of a pattern, with matplotlib: circles in a small grid, a heat map of a large one."""

from __future__ import annotations

import importlib
import math
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from ._arrays import Array, ArrayLike, array_of, axes

# With more keys or queries than this, a circle is too small to be seen.
MOST_CIRCLES = 64
# Up to this many keys and queries a circle has its number.
MOST_NUMBERS = 12
HEADS_IN_A_ROW = 4


def plot(
    pattern: ArrayLike,
    *,
    keys: Optional[Sequence[str]] = None,
    queries: Optional[Sequence[str]] = None,
    title: Optional[str] = None,
) -> Any:
    """Draws a pattern, keys × queries, or one for each head, [heads, keys, queries]: a matplotlib `Figure`, to show in a
    notebook or save with `.savefig(…)`. It takes its colours from the style, light or dark.

    A row is a key and a column a query; the area of a circle is the weight. `keys` and `queries` are their labels. From 65
    keys or queries on it is a heat map, whose scale is logarithmic."""
    array = array_of(pattern, "pattern")
    axes(array, "pattern", 2, 3)
    if array.size == 0:
        raise ValueError(f"pattern: shape {array.shape}")
    several = array if array.ndim == 3 else array[None]
    for name, labels, length in ("keys", keys, several.shape[1]), ("queries", queries, several.shape[2]):
        if labels is not None and len(labels) != length:
            raise ValueError(f"{name}: {len(labels)} labels for {length}")
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        importlib.import_module("matplotlib.figure")
    except ImportError:
        raise ImportError("this wants matplotlib: pip install 'sdpa[plot]'") from None
    return draw(matplotlib, several, keys, queries, title)


def draw(
    matplotlib: Any,
    heads: Array,
    keys: Optional[Sequence[str]],
    queries: Optional[Sequence[str]],
    title: Optional[str],
) -> Any:
    number, rows, cols = heads.shape
    across = min(number, HEADS_IN_A_ROW)
    down = math.ceil(number / across)
    numbers = number == 1 and max(rows, cols) <= MOST_NUMBERS
    side = (0.5 * max(rows, cols) if numbers else 5.2) if number == 1 else 2.7
    width, height = (max(side * n / max(rows, cols), 0.25 * side) for n in (cols, rows))
    figure = matplotlib.figure.Figure(figsize=(across * width + 1.6, down * (height + 0.35) + 1.3), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    circles = max(rows, cols) <= MOST_CIRCLES
    image = None
    for head, panel in enumerate(panels):
        if head >= number:
            panel.remove()
            continue
        if circles:
            dots(matplotlib, panel, heads[head], numbers)
        else:
            image = heat(matplotlib, panel, heads[head])
        if number > 1:
            panel.set_title(f"head {head}", fontsize="small")
        # The labels of queries stand above, as in the grid of a formula.
        panel.xaxis.set_ticks_position("top")
        for axis, labels, length in (panel.xaxis, queries, cols), (panel.yaxis, keys, rows):
            name_ticks(matplotlib, axis, labels, length, side)
        panel.tick_params(length=0 if circles else 3, labelsize="small")
        panel.tick_params(labeltop=head < across, labelleft=head % across == 0)
        if queries is not None:
            for text in panel.get_xticklabels():
                text.set(rotation=45, ha="left", va="bottom", rotation_mode="anchor")
    figure.supylabel("keys", fontsize="medium")
    figure.suptitle(f"{title}\nqueries" if title else "queries", fontsize="medium")
    if image is not None:
        bar = figure.colorbar(image, ax=list(figure.axes), shrink=0.8, extend="min")
        bar.set_label("weight (grey: none)", fontsize="small")
        bar.outline.set_visible(False)
    return figure


def colours(matplotlib: Any) -> Tuple[Any, Any, Any]:
    """The style's background and ink, and a blue that is seen on it."""
    to_rgb = matplotlib.colors.to_rgb
    paper = to_rgb(matplotlib.rcParams["axes.facecolor"])
    dark = sum(paper) < 1.5
    return paper, to_rgb(matplotlib.rcParams["text.color"]), to_rgb("#6cb0f5" if dark else "#2563a8")


def mixed(a: Any, b: Any, share: float) -> Any:
    return tuple(x + (y - x) * share for x, y in zip(a, b))


def dots(matplotlib: Any, panel: Any, pattern: Array, numbers: bool) -> None:
    paper, ink, blue = colours(matplotlib)
    rows, cols = pattern.shape
    panel.set(xlim=(-0.5, cols - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    faint = mixed(paper, ink, 0.15)
    panel.hlines(np.arange(rows + 1) - 0.5, -0.5, cols - 0.5, color=faint, linewidth=0.6, clip_on=False)
    panel.vlines(np.arange(cols + 1) - 0.5, -0.5, rows - 0.5, color=faint, linewidth=0.6, clip_on=False)
    panel.spines[:].set_visible(False)
    key, query = np.nonzero(pattern > 0)
    widths = 0.94 * np.sqrt(pattern[key, query].astype(np.float64))
    collections = importlib.import_module("matplotlib.collections")
    panel.add_collection(
        collections.EllipseCollection(
            widths, widths, np.zeros(len(widths)), units="xy", offsets=np.column_stack([query, key]),
            offset_transform=panel.transData, facecolor=blue, edgecolor="none",
        )
    )  # fmt: skip
    if not numbers:
        return
    for k, q in zip(key, query):
        weight = float(pattern[k, q])
        if weight >= 0.005:
            inside = weight > 0.25
            where: dict[str, Any] = {"y": k} if inside else {"y": k + 0.47}
            panel.text(
                x=q, s=f"{weight:.2f}", ha="center", va="center" if inside else "bottom", fontsize="x-small",
                color=paper if inside else mixed(paper, ink, 0.7), **where,
            )  # fmt: skip


def heat(matplotlib: Any, panel: Any, pattern: Array) -> Any:
    paper, ink, blue = colours(matplotlib)
    least = 0.1 / pattern.shape[0]
    colour_map = matplotlib.colors.LinearSegmentedColormap.from_list("sdpa", [paper, blue, mixed(blue, ink, 0.8)])
    colour_map = colour_map.with_extremes(bad=mixed(paper, ink, 0.15))
    panel.spines[:].set_visible(False)
    return panel.imshow(
        np.ma.masked_less_equal(pattern, 0), cmap=colour_map, norm=matplotlib.colors.LogNorm(least, 1, clip=False),
        interpolation="nearest" if max(pattern.shape) <= 512 else "antialiased", aspect="equal",
    )  # fmt: skip


def name_ticks(matplotlib: Any, axis: Any, labels: Optional[Sequence[str]], length: int, side: float) -> None:
    # As many as fit.
    step = max(1, math.ceil(length / (side * 6)))
    if labels is None:
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(nbins=min(length, int(side * 2.5)), integer=True))
    else:
        axis.set_ticks(range(0, length, step), [str(label) for label in labels][::step])
