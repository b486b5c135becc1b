"""Random streams by name, devices by what they can do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glasshouse.core import devices, seeds
from glasshouse.core.errors import UsageError


def test_streams_are_fixed_by_seed_and_name():
    """The same in every process (pinned), and different for every name."""
    assert seeds.derive(7, "world", 1) == 6490142937873405070
    code = "from glasshouse.core.seeds import derive; print(derive(7, 'world', 1))"
    printed = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert printed == {f"{seeds.derive(7, 'world', 1)}\n"}
    assert len({seeds.derive(7, name) for name in ("a", "b", "c")} | {seeds.derive(8, "a")}) == 4


def test_unknown_and_absent_devices_are_usage_errors():
    with pytest.raises(UsageError, match="unknown device"):
        devices.pick("tpu")
    assert devices.pick("cpu") == "cpu"


def test_the_package_imports_without_torch():
    """`import glasshouse` must stay fast: torch is loaded by the names that need it."""
    code = "import sys, glasshouse; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
