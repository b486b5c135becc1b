"""The programs of docs/money.md run as they stand, and print what the page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from glasshouse.model import save
from glasshouse.tokenizer import Tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "money.md"


def test_every_program_of_the_page_runs(random_model, tmp_path):
    tokenizer = Tokenizer.train([], 265)
    shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 128}
    save(random_model(**shape), tokenizer, tmp_path / "runs" / "pocket")
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(programs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, spent, own, listed, unknown = done.stdout.splitlines()
    assert re.fullmatch(r"\$0\.0\d*[1-9]\d* asked, and kept", first)
    assert second == "$0.00000000 read from the cache, 0 s old"
    found = re.fullmatch(r"spent \$(0\.\d+) of \$0\.5, saved \$(0\.\d+)", spent)
    assert found, spent
    paid, saved = map(float, found.groups())
    assert paid == pytest.approx(saved, abs=1.1e-8)  # the ledger rounds up to whole nanodollars
    assert (own, unknown) == ("0.0004", "None")
    assert float(listed) > 0
