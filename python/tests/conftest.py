"""Every test of a function that takes `backend` runs on each back end of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdpa

ROOT = Path(os.environ.get("SDPA_ROOT", Path(__file__).resolve().parents[2]))


@pytest.fixture(params=sdpa.backends())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def floats(rng: np.random.Generator) -> Any:
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)
