"""A thousand reports, twenty kills at random moments: each result once, nothing paid twice."""

import pytest
from tests.documents import folder_kills
from tests.llm.scripted_server import Wire

pytestmark = pytest.mark.accept


def test_a_thousand_reports_and_twenty_kills(tmp_path):
    wire = Wire()
    try:
        folder_kills.killed_and_restarted(tmp_path, wire, reports=1000, kills=20, seed=20261122)
    finally:
        wire.stop()
