"""Wrong usage and bad input: one clear line with the place and the fix, the right exit code, nothing lost."""

import re
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command

from glasshouse import __version__
from glasshouse.cli.app import build


def line(result, code: int) -> str:
    """The one line of a failure."""
    assert result.code == code, result
    assert "Traceback" not in result.err
    shown = result.err.strip().split("\n")
    assert len(shown) == 1, result.err
    assert shown[0].startswith("Error: ")
    return shown[0]


def verbs(command=None, path=()):
    """Every verb of the command with its path: ("train", "sft")."""
    command = command or get_command(build())
    found = []
    for name, verb in command.commands.items():
        found.append(((*path, name), verb))
        if hasattr(verb, "commands"):
            found += verbs(verb, (*path, name))
    return found


def test_version(glasshouse):
    assert glasshouse("--version").out.strip() == __version__


def test_without_a_verb_the_help_is_shown(glasshouse):
    result = glasshouse()
    assert result.code == 2
    assert "glasshouse run pocket" in result.err


@pytest.mark.parametrize("path", [" ".join(path) for path, _ in verbs()])
def test_help_of_every_verb_shows_an_example_of_it(glasshouse, path):
    result = glasshouse(*path.split(), "--help")
    assert result.code == 0
    assert re.search(rf"glasshouse {path}\b", result.out.split("Example", 1)[1]), result.out


@pytest.mark.parametrize("path", [path for path, verb in verbs() if not hasattr(verb, "commands")])
def test_the_example_of_every_verb_parses(path):
    """Options exist, required ones are given: the example is not out of date."""
    command = get_command(build())
    verb = dict(verbs())[path]
    example = next(
        shlex.split(text)
        for text in (verb.epilog or "").replace("Example:", "\n").split("\n")
        if text.strip().startswith(f"glasshouse {' '.join(path)}")
    )
    with command.make_context("glasshouse", example[1:], resilient_parsing=False) as context:
        arguments = example[1 + len(path) :]
        verb.make_context(" ".join(path), arguments, parent=context)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["rn"], ["run"]),
        (["run", "poket"], ["'poket'", "'pocket'"]),
        (["run", "pocket", "--set", "sft.epoch=2"], ["sft.epoch", "sft.epochs", "pocket"]),
        (["run", "pocket", "--set", "sft.epochs"], ["sft.epochs", "key=value"]),
        (["run", "pocket", "--set", "sft.epochs=-1"], ["sft.epochs", "-1"]),
        (["run", "pocket", "--until", "grpo"], ["grpo", "corpus, tokenizer, pretrain, sft, reward, ppo"]),
        (["run", "pocket", "--data", "x.txt"], ["own-text"]),
        (["run", "own-text"], ["--data"]),
        (["run", "pocket", "extra"], ["extra"]),
        (["run", "absent.yaml"], ["absent.yaml"]),
        (["report", "nowhere"], ["nowhere", "recipe.yaml"]),
        (["verify", "nowhere"], ["nowhere"]),
        (["compare", "nowhere", "either"], ["nowhere"]),
        (["run", "pocket", "--set", "evaluate.probes=[brier, ecee]"], ["evaluate.probes", "'ecee'", "'ece'"]),
        (["run", "pocket", "--device", "tpu"], ["tpu", "cpu"]),
        (["eval", "nowhere"], ["nowhere"]),
        (["eval", "hf://org/name"], ["hf://org/name"]),
        (["eval"], ["glasshouse run pocket"]),
        (["train", "sft", "--data", "x.jsonl", "--out", "o"], ["--model"]),
        (["train", "context", "--data", "x.txt", "--out", "o"], ["--model"]),
        (["train", "context", "--model", "nowhere", "--data", "x.txt", "--out", "o"], ["nowhere"]),
        (["run", "pocket", "--nonsense"], ["--nonsense"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(glasshouse, tmp_path, arguments, named):
    shown = line(glasshouse(*arguments), 2)
    for part in named:
        assert part in shown
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_debug_shows_the_traceback_wherever_it_stands(glasshouse):
    result = glasshouse("run", "poket", "--debug")
    assert "Traceback" in result.err
    assert result.code == 2


BAD_DATA = {
    "missing": (None, "bad.jsonl", ["bad.jsonl", "no such file"]),
    "empty": (b"", "bad.jsonl", ["bad.jsonl", "empty"]),
    "empty text": (b"  \n ", "bad.txt", ["bad.txt"]),
    "no JSON at row 3": (b'{"text": "a"}\n{"text": "b"}\n{"text": \n', "bad.jsonl", ["bad.jsonl", "row 3"]),
    "not an object": (b'{"text": "a"}\n[1]\n', "bad.jsonl", ["bad.jsonl", "row 2"]),
    "without text": (b'{"body": "a"}\n', "bad.jsonl", ["bad.jsonl", "row 1", "text"]),
    "conversations": (b'{"messages": []}\n', "bad.jsonl", ["bad.jsonl", "row 1"]),
    "not UTF-8": (b"caf\xe9 au lait", "bad.txt", ["bad.txt", "UTF-8"]),
    "unknown format": (b"GIF89a", "bad.gif", ["bad.gif"]),
    "smaller than a sequence": (b"a few words only\n" * 3, "bad.txt", ["sequence"]),
    "damaged archive": (b"\x1f\x8bnothing", "bad.jsonl.gz", ["bad.jsonl.gz"]),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_one_line_that_names_the_place(glasshouse, tmp_path, kind):
    content, name, named = BAD_DATA[kind]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    settings = ["--set=tokenizer.vocab_size=300", "--set=model.hidden_size=32"]
    result = glasshouse("run", "own-text", "--data", name, "--out", "out", *settings)
    shown = [text for text in result.err.strip().split("\n") if text.startswith("Error")]
    assert result.code == 1, result
    assert len(shown) == 1
    assert result.err.strip().endswith(shown[0])
    for part in named:
        assert part in shown[0]


def test_bad_conversations_are_one_line_and_the_model_stays(glasshouse, tmp_path, tiny_model):
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "user"}]}\n')
    result = glasshouse("train", "sft", "--model", tiny_model, "--data", "chats.jsonl", "--out", "out")
    assert "chats.jsonl" in line(result, 1)
    assert "row 1" in result.err


WINDOW = "--set=max_position_embeddings="


@pytest.mark.parametrize(
    ("settings", "code", "named"),
    [
        ([], 2, ["context.max_position_embeddings"]),
        ([WINDOW + "512"], 2, ["512", "not longer"]),
        ([WINDOW + "600", "--set=sequence_length=700"], 2, ["sequence_length (700)", "600"]),
        ([WINDOW + "600", "--set=scalling=yarn"], 2, ["context.scalling", "context.scaling"]),
        ([WINDOW + "600", "--data", "absent.txt"], 1, ["absent.txt"]),
    ],
)
def test_a_window_that_cannot_be_is_one_line(glasshouse, tmp_path, tiny_model, settings, code, named):
    """Before anything is done: no run folder is begun."""
    (tmp_path / "text.txt").write_text("some words " * 500)
    result = glasshouse(
        "train", "context", "--model", tiny_model, "--data", "text.txt", "--out", "out", *settings
    )
    shown = line(result, code)
    for part in named:
        assert part in shown
    assert not (tmp_path / "out").exists()


def test_a_longer_window_needs_text(glasshouse, tiny_model):
    result = glasshouse("train", "context", "--model", tiny_model, "--out", "out", WINDOW + "600")
    assert "--data" in line(result, 2)


def python(code: str, more: str = "") -> subprocess.CompletedProcess:
    """Run code in a new process, in a shell where `more` follows the command."""
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {more}"
    return subprocess.run(line, shell=True, capture_output=True, text=True)


def test_a_reader_that_leaves_early_causes_no_traceback():
    """`glasshouse --help | head -1` ends silently."""
    process = python("from glasshouse.cli import main; main(['run', '--help'])", "| head -1")
    assert process.stdout.startswith("Usage")
    assert process.stderr == ""


def test_help_needs_no_torch():
    """The command answers at once; only verbs that compute load what computing needs."""
    heavy = {"torch", "matplotlib", "pyarrow", "sklearn"}
    code = (
        "import sys\n"
        "from glasshouse.cli import main\n"
        "try:\n    main(['run', '--help'])\n"
        f"except SystemExit:\n    print({heavy} & sys.modules.keys())"
    )
    assert python(code).stdout.strip().split("\n")[-1] == "set()"


def test_the_module_is_the_command():
    """For a Python whose scripts are not on the path."""
    ran = subprocess.run([sys.executable, "-m", "glasshouse", "--version"], capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stdout.strip() == __version__
