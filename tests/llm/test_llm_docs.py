"""The examples of docs/models.md run as they stand, with a scripted server where theirs would be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("place", range(len(EXAMPLES)))
def test_an_example_runs(place, wire, random_model, tmp_path, monkeypatch, capsys):
    from tests.llm.scripted_server import Reply

    from glasshouse.model.hf_folder import save
    from glasshouse.tokenizer import Tokenizer

    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
    monkeypatch.setenv("OLLAMA_HOST", wire.url)
    code = re.sub(r"http://127\.0\.0\.1:\d+", wire.url, EXAMPLES[place])
    if ".gguf" in code:
        tokenizer = Tokenizer.train([], 265)
        model = random_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=512)
        save(model, tokenizer, tmp_path / "model")
        code = re.sub(r'"[^"]+\.gguf"', repr(str(tmp_path / "model")), code)
    if "tools=" in code:
        wire.script(Reply("", tool_calls=(("look", '{"at": "owl"}'),)), Reply("It sleeps."))
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip()
    assert wire.asked or ".gguf" in EXAMPLES[place]
