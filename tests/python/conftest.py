"""Fixtures of all Python tests."""

import numpy as np
import pytest

import qkv


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=[t["name"] for t in qkv.info()["tiers"] if t["available"]])
def tier(request):
    """Runs the test once for each tier of this machine."""
    qkv.set_cpu_tier(request.param)
    yield request.param
    qkv.set_cpu_tier(None)
