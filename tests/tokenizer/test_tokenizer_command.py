"""`glasshouse tokenizer train` and `show`: what they write, print and refuse."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from glasshouse.cli.tokenizer import app
from glasshouse.core.errors import GlasshouseError
from glasshouse.tokenizer import Tokenizer
from glasshouse.tokenizer.counting import EXAMPLES, readable

PETS = "the cat sat on the mat, the dog sat on the log\n" * 20


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a text file and a tokenizer trained on it."""
    monkeypatch.chdir(tmp_path)
    Path("pets.txt").write_text(PETS)
    run("train", "--data", "pets.txt", "--vocab-size", "300", "--out", "pets")
    return tmp_path


def run(*arguments: str) -> Result:
    """Run the command; errors of ours come through as they do to the `glasshouse` command."""
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, GlasshouseError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_train_reads_every_path_after_data(pets: Path):
    """Several files after one --data, repeated --data and folders are all read."""
    Path("more").mkdir()
    Path("more/rows.jsonl").write_text(json.dumps({"text": "zebra " * 50}))
    result = run(
        "train", "--data", "pets.txt", "more", "--data", "pets.txt", "--vocab-size", "400", "--out", "x"
    )
    assert "3 documents" in result.stdout


def test_train_keeps_the_size_and_says_what_next(pets: Path):
    """The folder holds a tokenizer that loads, of at most the size asked for."""
    assert Tokenizer.load("pets").vocab_size <= 300
    result = run("train", "--data", "pets.txt", "--vocab-size", "265", "--out", "bytes")
    assert "265 tokens" in result.stdout
    assert "glasshouse tokenizer show --tokenizer bytes" in result.stdout


@pytest.mark.parametrize(
    "arguments", [["--vocab-size", "299"], ["--data", "missing.txt"], ["--data", "empty.txt"]]
)
def test_train_refuses_before_it_writes(pets: Path, arguments: list[str]):
    """A size out of range, a missing or an empty file: one error, and no folder."""
    Path("empty.txt").touch()
    with pytest.raises(GlasshouseError):
        run("train", "--data", "pets.txt", *arguments, "--out", "new")
    assert not Path("new").exists()


def test_show_prints_pieces_ids_and_counts(pets: Path):
    """Without colours, bars stand between tokens."""
    shown = run("show", "the cat", "--tokenizer", "pets").stdout
    tokenizer = Tokenizer.load("pets")
    ids = tokenizer.encode("the cat")
    assert "|".join(readable(tokenizer.token_bytes(i)) for i in ids) in shown
    assert " ".join(map(str, ids)) in shown
    assert f"{len(ids)} tokens, {len(ids) / 2:.2f} per word" in shown


def test_show_without_texts_uses_the_examples(pets: Path):
    """They are those of the help."""
    shown = run("show", "--tokenizer", "pets", "--json").stdout
    (column,) = json.loads(shown)
    assert [text["text"] for text in column["texts"]] == list(EXAMPLES)
    assert " ".join(EXAMPLES) in " ".join(run("show", "--help").stdout.split())


def test_show_compares_tokenizers_and_prices(pets: Path):
    """One column each; the price is count times rate."""
    run("train", "--data", "pets.txt", "--vocab-size", "265", "--out", "bytes")
    arguments = [
        "show",
        "--file",
        "pets.txt",
        "--tokenizer",
        "pets",
        "--tokenizer",
        "bytes",
        "--price-per-million",
        "2",
    ]
    trained, plain = json.loads(run(*arguments, "--json").stdout)
    assert plain["count"] == len(PETS.encode()) > trained["count"]
    assert plain["price_usd"] == pytest.approx(plain["count"] * 2e-6)
    assert plain["tokens_per_word"] == pytest.approx(plain["count"] / len(PETS.split()))
    assert plain["texts"][0]["ids"] == Tokenizer.load("bytes").encode(PETS)
    table = run(*arguments).stdout
    assert "pets (" in table
    assert "bytes (265 tokens)" in table
    assert f"${plain['count'] * 2e-6:.5f}".rstrip("0") in table
    assert "more" in table  # a whole file is cut after some hundred tokens


def test_show_finds_the_tokenizer_of_a_run(pets: Path):
    """A run folder has its tokenizer in tokenizer/; a stage's folder in model/."""
    for place in ("run/tokenizer", "stage/model"):
        Tokenizer.load("pets").save(place)
        assert run("show", "the cat", "--tokenizer", place.split("/")[0]).exit_code == 0


def test_show_names_what_it_cannot_open(pets: Path):
    """No run yet, a folder without a tokenizer, a path that does not exist."""
    Path("empty").mkdir()
    for arguments in ([], ["--tokenizer", "empty"], ["--tokenizer", "nowhere"]):
        with pytest.raises(GlasshouseError, match="Fix: "):
            run("show", "x", *arguments)


def test_nothing_in_a_text_is_taken_for_markup(pets: Path):
    """Square brackets and control characters are shown, not obeyed."""
    shown = run("show", "[bold]x[/bold] \x1b[31m", "--tokenizer", "pets").stdout
    assert "\x1b" not in shown
    assert "[" in shown
    assert "\\x1b" in shown


@pytest.mark.parametrize("command", ["train", "show"])
def test_the_examples_of_the_help_work(pets: Path, command: str):
    """Each line of the help's examples runs as it stands."""
    Tokenizer.load("pets").save("path/to/gpt2")
    Tokenizer.load("pets").save("runs/pocket")
    Path("README.md").write_text("# Read me")
    lines = re.findall(r"^ +(?:glasshouse tokenizer) (.*)$", run(command, "--help").stdout, re.MULTILINE)
    assert lines
    for line in lines:
        arguments = shlex.split(line)
        if "--tokenizer" not in arguments and command == "show":
            arguments += ["--tokenizer", "runs/pocket"]  # here is no finished run to take the newest of
        run(*arguments)


@pytest.mark.parametrize(
    ("token", "shown"),
    [(b" the", "·the"), (b"\r\n\t", "←↵→"), (b"\xc3", "\\xc3"), ("é\x00".encode(), "é\\x00"), (b"\\", "\\")],
)
def test_tokens_are_readable(token: bytes, shown: str):
    """White space, control characters and half characters have a visible form."""
    assert readable(token) == shown
