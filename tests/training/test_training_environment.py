"""What a run's numbers depend on is settled once, and the compiler is used where it earns its time."""

import json
import time

import pytest
import torch

from glasshouse.core.errors import DataError
from glasshouse.training import compilation
from glasshouse.training.compilation import choose
from glasshouse.training.environment import STATE, settle


def frozen(tiny):
    return json.loads((tiny.folder / "out" / "state" / "environment.json").read_text())


def test_the_environment_is_written_at_the_first_start(tiny):
    """Type of products and threads with their reasons, and the machine and versions."""
    tiny.train(dtype="auto")
    written = frozen(tiny)
    assert written["dtype"] in ("float32", "bfloat16")
    assert "times the speed" in written["dtype_reason"]
    assert written["threads"] == torch.get_num_threads()
    assert written["compile"] is False
    assert {"processor", "torch", "glasshouse"} <= written["machine"].keys()


def test_later_starts_use_what_the_first_one_chose(tiny, monkeypatch):
    """Even where this start would choose otherwise: sums in another order would drift."""
    said = []
    monkeypatch.setattr("glasshouse.training.environment.say", said.append)
    first = settle(tiny.folder, tiny.config(dtype="bfloat16"))
    assert settle(tiny.folder, tiny.config(dtype="float32")) == first
    decided = first.decided(tiny.folder, False, "")
    assert settle(tiny.folder, tiny.config(dtype="auto")) == decided != first
    assert said == ["notice: this run goes on with dtype bfloat16, as it began"]


def test_another_version_is_noticed(tiny, monkeypatch):
    """The run goes on, and says that it cannot promise the same bits."""
    said = []
    monkeypatch.setattr("glasshouse.training.environment.say", said.append)
    path = tiny.folder / STATE
    settle(tiny.folder, tiny.config())
    content = json.loads(path.read_text())
    content["machine"]["torch"] = "1.0"
    content["native_kernels"] = not content["native_kernels"]
    path.write_text(json.dumps(content))
    settle(tiny.folder, tiny.config())
    assert said == [
        "notice: changed since this run began: torch, the native kernels. It goes on, but not bit for bit"
    ]


def test_a_state_of_another_layout_is_refused(tiny):
    """With the fix, not a traceback."""
    path = tiny.folder / STATE
    path.parent.mkdir()
    path.write_text('{"device": "cpu"}')
    with pytest.raises(DataError, match="another version"):
        settle(tiny.folder, tiny.config())


class Passes:
    """A stand-in for the timed pass: seconds of eager passes, then of the first compiled one and others."""

    def __init__(self, *seconds):
        self.seconds = list(seconds)

    def __call__(self):
        seconds = self.seconds.pop(0)
        if isinstance(seconds, Exception):
            raise seconds
        time.sleep(seconds)


@pytest.fixture
def model(tiny, monkeypatch):
    """A model whose compiler and waiting times cost nothing; compiled blocks are only marked."""
    monkeypatch.setattr(compilation, "COMPILE_SECONDS", 1.0)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: None)
    model = tiny.model()
    for block in model.model.layers:
        monkeypatch.setattr(block, "compile", lambda block=block: setattr(block, "_compiled_call_impl", 1))
    return model


def compiled(model):
    marks = {block._compiled_call_impl is not None for block in model.model.layers}
    assert len(marks) == 1
    return marks.pop()


def test_a_faster_step_is_kept(model):
    """Tried on a long run, measured, kept; the reason holds the numbers."""
    chosen, reason = choose("auto", model, "cuda", 10_000, Passes(0.04, 0.04, 0.05, 0.01, 0.01))
    assert chosen
    assert compiled(model)
    assert "s a step against" in reason


@pytest.mark.parametrize(
    ("steps", "seconds", "words"),
    [
        (10, (0.02, 0.02), "too few"),
        (10_000, (0.02, 0.02, 0.03, 0.03, 0.03), "s a step against"),
        (10_000, (0.02, 0.02, RuntimeError("no g++\nmore")), "torch.compile failed: no g"),
    ],
)
def test_what_does_not_pay_or_work_is_left_out(model, steps, seconds, words):
    """A short run, a slower step, a missing compiler: eager, with the reason on record."""
    chosen, reason = choose("auto", model, "cuda", steps, Passes(*seconds))
    assert not chosen
    assert not compiled(model)
    assert words in reason


def test_the_user_decides(model):
    """ "off" measures nothing; "on" is kept though slower; a CPU has better than a compiler."""
    assert choose("off", model, "cuda", 10_000, Passes()) == (False, "set by the user")
    assert not choose("on", model, "cpu", 10_000, Passes())[0]
    assert choose("on", model, "cuda", 1, Passes(0.01, 0.01, 0.02, 0.02, 0.02))[0]
    assert compiled(model)
