"""The populations of benchmarks/routing.py, whose truth is known."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def routing():
    path = Path(__file__).parents[3] / "benchmarks/routing.py"
    spec = importlib.util.spec_from_file_location("benchmark_routing", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
