"""The commands of docs/documents.md run as they stand, with a scripted model where others would be."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.llm.scripted_server import Asked, Reply, Wire

from glasshouse.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "documents.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
BLOCKS = [text for kind, text in FENCED if not kind]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("glasshouse ")]
OURS = ("runs/", "train ", ".gguf")
"""Models that would have to be grown or downloaded first."""

SAYS = {
    "revenue": ("Revenue was 48.6 million crowns in the third quarter", 48.6),
    "margin": ("The operating margin fell to 14.2%", 14.2),
    "margin_previous_quarter": ("from 15.1% in the second quarter", 15.1),
    "income": ("Net income came to 5.3 million crowns.", 5.3),
    "income_expected": ("Analysts had expected 4.9 million crowns on average.", 4.9),
    "cash_flow": ("Cash flow from operations was 7.1 million crowns", 7.1),
    "outlook": (
        "the board expects revenue between 49 and 51 million crowns",
        "revenue between 49 and 51 million crowns",
    ),
}
PROFILE = {
    "name": ("Tallow Reach Ferries", "Tallow Reach Ferries"),
    "revenue": ("revenue of 212 million crowns last year", 212),
    "employees": ("It employs 1,340 people", 1340),
    "industry": ("passenger and freight shipping", "passenger and freight shipping"),
}


def say(asked: Asked) -> Reply:
    """An object of the schema that was asked for, with what the two examples say."""
    schema = _schema(asked.body)
    known = PROFILE if "Tallow Reach" in json.dumps(asked.body["messages"]) else SAYS
    return Reply(json.dumps(_object(schema, schema, known)))


def _schema(body: dict) -> dict:
    for place in (
        ("response_format", "json_schema", "schema"),
        ("output_config", "format", "schema"),
        ("output_format", "schema"),
        ("format",),
    ):
        value = body
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict):
            return value
    raise AssertionError(f"no schema in {sorted(body)}")


def _object(schema: dict, root: dict, known: dict, name: str = ""):
    if "$ref" in schema:
        return _object(root["$defs"][schema["$ref"].rpartition("/")[2]], root, known, name)
    if name in known and {"quote", "value"} <= set(schema.get("properties", {})):
        quote, value = known[name]
        return {"quote": quote, "value": value}
    if "anyOf" in schema:
        return None if {"type": "null"} in schema["anyOf"] else _object(schema["anyOf"][0], root, known)
    kind = schema.get("type")
    if "enum" in schema:
        return None if None in schema["enum"] else schema["enum"][0]
    if kind == "object":
        return {key: _object(inner, root, known, key) for key, inner in schema["properties"].items()}
    if isinstance(kind, list):
        return None
    if kind == "array":
        return [_object(schema["items"], root, known)] if schema.get("minItems") else []
    return {"string": "crowns", "boolean": True, "null": None}.get(kind, 1)


@pytest.fixture
def wire(monkeypatch, tmp_path):
    wire = Wire()
    wire.script(say)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
    monkeypatch.setenv("OLLAMA_HOST", wire.url)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "reports").mkdir()
    shutil.copy(ROOT / "examples/documents/quarterly-report.txt", tmp_path / "reports" / "q3.txt")
    shutil.copy(ROOT / "examples/documents/quarterly-report.txt", tmp_path / "report.pdf")
    monkeypatch.chdir(tmp_path)
    yield wire
    wire.stop()


def run(command: str, wire: Wire, capsys) -> str:
    line = shlex.split(re.sub(r"http://127\.0\.0\.1:\d+", wire.url, command))[1:]
    if line[0] == "analyze" and "--model" not in line:
        line += ["--model", "openai:gpt-5-mini"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(line)
    printed = capsys.readouterr()
    assert ended.value.code == 0, f"{command}\n{printed.err}"
    return printed.out


def test_the_page_shows_commands():
    assert len(COMMANDS) > 12
    assert COMMANDS[0] in PAGE[:300], "the shortest useful example comes first"


def test_every_command_that_needs_no_model_from_elsewhere_runs_in_order(wire, capsys, monkeypatch):
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 5))
    ran = [command for command in COMMANDS if not any(part in command for part in OURS)]
    assert len(ran) >= 11
    for command in ran:
        run(command, wire, capsys)
    models = {asked.body["model"] for asked in wire.chats()}
    assert {"gpt-5-mini", "claude-haiku-4-5", "qwen3:4b", "qwen3-4b"} <= models


def test_the_output_on_the_page_is_what_is_printed(wire, capsys):
    """Column widths aside."""

    def rows(text: str) -> list[list[str]]:
        return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if "  " in line.strip()]

    shown = rows(BLOCKS[1])
    assert len(shown) == 8
    out = " ".join(run(COMMANDS[0], wire, capsys).split())
    for row in shown:
        for cell in row:
            assert all(word in out for word in cell.split()), cell


def test_the_python_example_runs(wire, capsys):
    (code,) = [text for kind, text in FENCED if kind == "python"]
    exec(compile(code, "documents.md", "exec"), {"__name__": "example"})
    assert "crowns" in capsys.readouterr().out
