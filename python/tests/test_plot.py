"""Pictures: circles whose areas are the weights, heat maps, heads, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdpa

matplotlib = pytest.importorskip("matplotlib")
style = pytest.importorskip("matplotlib.style")


def weights(figure: Any, panel: int = 0) -> Any:
    circles = figure.axes[panel].collections[-1]
    return (circles.get_widths() / 0.94) ** 2, circles.get_offsets()


def test_areas_are_the_weights(floats: Any) -> None:
    pattern = sdpa.pattern(floats(5, 8), floats(7, 8), causal=True)
    figure = sdpa.plot(pattern, keys=list("abcdefg"), queries=list("vwxyz"), title="a title")
    areas, centres = weights(figure)
    drawn = np.zeros_like(pattern)
    for area, (query, key) in zip(areas, centres):
        drawn[int(key), int(query)] = area
    np.testing.assert_allclose(drawn, pattern, atol=1e-6)
    panel = figure.axes[0]
    assert panel.get_ylim() == (6.5, -0.5)  # key 0 is the upper row
    assert [text.get_text() for text in panel.get_xticklabels()] == list("vwxyz")
    assert [text.get_text() for text in panel.get_yticklabels()] == list("abcdefg")


def test_heads_are_small_multiples(floats: Any) -> None:
    pattern = sdpa.pattern(floats(5, 4, 8), floats(5, 6, 8))
    figure = sdpa.plot(pattern)
    assert len(figure.axes) == 5
    np.testing.assert_allclose(weights(figure, 3)[0], pattern[3].ravel(), atol=1e-6)


def test_a_large_grid_is_a_heat_map(floats: Any) -> None:
    image = sdpa.plot(sdpa.pattern(floats(65, 8), floats(9, 8), causal=True)).axes[0].images[0]
    assert image.get_array().shape == (9, 65)
    assert image.get_array().mask[3, 2] and not image.get_array().mask[2, 2]


@pytest.mark.parametrize("name", ["default", "dark_background"])
def test_colours_of_the_style(name: str, floats: Any, tmp_path: Path) -> None:
    with style.context(name):
        figure = sdpa.plot(sdpa.pattern(floats(3, 8), floats(3, 8)))
        figure.savefig(tmp_path / "pattern.png")
        blue = figure.axes[0].collections[-1].get_facecolor()[0][:3]
        paper = matplotlib.colors.to_rgb(matplotlib.rcParams["axes.facecolor"])
    assert abs(sum(blue) - sum(paper)) > 1


def test_refused_pictures(floats: Any) -> None:
    with pytest.raises(ValueError, match="keys: 1 labels for 2"):
        sdpa.plot(floats(2, 3), keys=["a"])
    with pytest.raises(ValueError, match="queries: 2 labels for 3"):
        sdpa.plot(floats(2, 3), queries=["a", "b"])
    with pytest.raises(ValueError, match="axes"):
        sdpa.plot(floats(3))
    with pytest.raises(ValueError, match="shape"):
        sdpa.plot(floats(0, 3))
