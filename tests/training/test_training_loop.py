"""The loop: it learns, records, accumulates without a trace, stops with a reason, and continues exactly."""

import json
import math
import shutil

import pytest
import torch

from glasshouse.core.errors import ConfigError, DataError, GlasshouseError, InterruptedRunError
from glasshouse.model import load
from glasshouse.training import LossSum
from glasshouse.training.metrics import TIMING_FIELDS


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(rows):
    return [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in rows]


class Faulty:
    """An objective that behaves like another until a step, then does something else."""

    def __init__(self, inner, step, act):
        self.inner, self.step, self.act = inner, step, act
        self.steps_per_epoch = inner.steps_per_epoch

    def check(self, model):
        self.inner.check(model)

    def identity(self):
        return self.inner.identity()

    def batch(self, step):
        self.now = step
        return self.inner.batch(step)

    def loss(self, model, batch):
        if self.now == self.step:
            return self.act(self.inner.loss(model, batch))
        return self.inner.loss(model, batch)


def stop(_):
    raise KeyboardInterrupt


def test_the_loss_falls_and_everything_is_left_in_place(tiny):
    """A run leaves a model folder, metrics of every log step and a finished state without checkpoints."""
    summary = tiny.train(tokens=60 * 64, log_every=20, checkpoint_every_seconds=0)
    out = tiny.folder / "out"
    rows = rows_of(out)
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert rows[0]["loss"] < math.log(64) and rows[2]["loss"] < 0.6 * rows[0]["loss"]  # noqa: PT018
    assert summary["steps"] == 60
    assert summary["last"] == rows[-1]
    assert sorted(path.name for path in (out / "state").iterdir()) == [
        "environment.json",
        "finished.json",
        "identity.json",
    ]
    assert load(out / "model").config.vocab_size == tiny.vocab


def test_rows_of_metrics_have_the_promised_fields(tiny):
    """Names that reports rely on; tokens count what is no padding; flops follow from them."""
    model, objective = tiny.model(), tiny.objective()
    tiny.train(model=model, objective=objective)
    rows = rows_of(tiny.folder / "out")
    tokens = 0
    for row in rows:
        assert set(row) == {
            *("step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second", "flops"),
        }
        tokens += objective.batch(row["step"] - 1).tokens
        assert row["tokens"] == tokens
        assert row["flops"] == tokens * model.config.flops_per_token(tiny.row)


def test_a_row_averages_the_steps_since_the_row_before(tiny):
    """Weighted by targets, so that it is the loss of all tokens in between."""
    tiny.train("each", log_every=1)
    tiny.train("some", log_every=5)
    each, some = rows_of(tiny.folder / "each"), rows_of(tiny.folder / "some")
    counts = [tiny.objective().batch(step).count for step in range(12)]
    assert [row["step"] for row in some] == [5, 10, 12]
    for row, steps in zip(some, (range(5), range(5, 10), range(10, 12)), strict=True):
        mean = sum(each[s]["loss"] * counts[s] for s in steps) / sum(counts[s] for s in steps)
        assert row["loss"] == pytest.approx(mean, rel=1e-9)


def test_the_first_loss_is_the_models_mean_cross_entropy(tiny):
    """Nats per target, equal to PyTorch's cross entropy of the untrained logits."""
    model, batch = tiny.model(), tiny.objective().batch(0)
    logits = model(batch.inputs, positions=batch.positions, segments=batch.segments)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())
    tiny.train(model=model)
    assert rows_of(tiny.folder / "out")[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_experts_are_trained_to_the_same_bits_twice(tiny):
    """A mixture of experts under the strict determinism of training: its routers and experts all move."""
    shape = {
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "router_aux_loss_coef": 0.01,
        "router_z_loss_coef": 0.001,
    }
    first, second = tiny.model(**shape), tiny.model(**shape)
    before = {name: p.detach().clone() for name, p in first.named_parameters()}
    tiny.train("first", model=first)
    tiny.train("second", model=second)
    for (name, one), two in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two), name
        assert not torch.equal(one, before[name]), name


@pytest.mark.parametrize("rows", [1, 3])
def test_micro_batches_change_nothing(tiny, rows):
    """The gradient of a batch does not depend on how many rows go through the model at once."""
    gradients = {}
    for micro in (None, rows):
        model, batch = tiny.model(), tiny.objective().batch(0)
        assert sum(part.count for part in batch.split(micro)) == batch.count
        for part in batch.split(micro):
            (tiny.objective().loss(model, part).loss_sum / batch.count).backward()
        gradients[micro] = [p.grad for p in model.parameters()]
    for whole, parts in zip(gradients[None], gradients[rows], strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-7)


def test_training_with_micro_batches_follows_the_same_path(tiny):
    """Twelve steps in fp32 end at the same loss."""
    tiny.train("whole")
    tiny.train("parts", micro_batch_rows=1)
    whole, parts = rows_of(tiny.folder / "whole"), rows_of(tiny.folder / "parts")
    for a, b in zip(whole, parts, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_evaluation_is_merged_into_the_rows_and_leaves_no_trace(tiny):
    """At every multiple of eval_every and at the end; losses are bit for bit those without it."""
    seen = []

    def evaluate(model, step):
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(step)
        return {"val_loss": float(step)}

    tiny.train("with", evaluate=evaluate, eval_every=5)
    tiny.train("without")
    rows = rows_of(tiny.folder / "with")
    assert seen == [5, 10, 12]
    assert {row["step"]: row["val_loss"] for row in rows if "val_loss" in row} == {5: 5.0, 10: 10.0, 12: 12.0}
    for row in rows:
        row.pop("val_loss", None)
    plain = rows_of(tiny.folder / "without")
    assert timeless(rows) == timeless(plain)


def test_epochs_give_the_budget(tiny):
    """Two epochs are twice the rows that the corpus packs into, rounded up to whole steps."""
    objective = tiny.objective()
    summary = tiny.train(epochs=2)
    assert summary["steps"] == math.ceil(2 * objective.steps_per_epoch)


def test_a_finished_run_returns_at_once(tiny):
    """The same call again reads its summary and touches nothing."""
    first = tiny.train()
    before = (tiny.folder / "out" / "metrics.jsonl").stat().st_mtime_ns
    again = tiny.train(objective=Faulty(tiny.objective(), 0, stop))
    assert again == first
    assert (tiny.folder / "out" / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("at", [0, 1, 7, 11])
def test_an_interrupted_run_continues_to_the_same_bits(tiny, at):
    """Weights and metrics, timing apart, equal those of a run that was left alone."""
    tiny.train("whole", log_every=5)
    arguments = {"log_every": 5, "checkpoint_every_seconds": 0}
    with pytest.raises(InterruptedRunError, match="run the same command again"):
        tiny.train("parts", objective=Faulty(tiny.objective(), at, stop), **arguments)
    tiny.train("parts", **arguments)
    whole, parts = tiny.folder / "whole", tiny.folder / "parts"
    assert timeless(rows_of(whole)) == timeless(rows_of(parts))
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, parts)]
    assert weights[0] == weights[1]


def test_rows_past_the_checkpoint_are_cut(tiny):
    """Steps done after the newest checkpoint are done again, so their rows and a torn one must go."""
    out = tiny.folder / "out"
    with pytest.raises(InterruptedRunError):
        tiny.train(objective=Faulty(tiny.objective(), 6, stop), checkpoint_every_seconds=0)
    with open(out / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 7, "loss": 99.0}) + "\n" + '{"step": 8, "lo')
    tiny.train(checkpoint_every_seconds=0)
    rows = rows_of(out)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert all(row["loss"] < 99 for row in rows)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(tiny, value):
    """The message names the step and the last good checkpoint, which still holds."""
    spoil = Faulty(tiny.objective(), 5, lambda part: LossSum(part.loss_sum * value, part.count))
    with pytest.raises(GlasshouseError, match=r"step 6.*last good checkpoint: step 5"):
        tiny.train(objective=spoil, checkpoint_every_seconds=0)
    assert [row["step"] for row in rows_of(tiny.folder / "out")] == [1, 2, 3, 4, 5]
    assert tiny.train(checkpoint_every_seconds=0)["steps"] == 12


def test_an_evaluation_that_is_no_number_stops_the_run(tiny):
    """Infinity in a metrics row would be no JSON; the message names the value."""
    with pytest.raises(GlasshouseError, match="val_loss became inf"):
        tiny.train(evaluate=lambda model, step: {"val_loss": math.inf})


@pytest.mark.parametrize(
    ("change", "what"), [({"muon_lr": 0.5}, "settings"), ({"data": 1}, "data"), ({"weights": 1}, "weights")]
)
def test_a_folder_of_another_run_is_refused(tiny, change, what):
    """Continuing with other settings, data or starting weights would give a model that nobody asked for."""
    with pytest.raises(InterruptedRunError):
        tiny.train(objective=Faulty(tiny.objective(), 3, stop))
    objective = tiny.objective(tiny.corpus("other", seed=5)) if "data" in change else tiny.objective()
    model = tiny.model(seed=change.pop("weights", 0))
    change.pop("data", None)
    with pytest.raises(ConfigError, match=f"other {what}"):
        tiny.train(model=model, objective=objective, **change)


def test_settings_without_effect_on_the_numbers_may_change(tiny):
    """Such as how often checkpoints are written."""
    with pytest.raises(InterruptedRunError):
        tiny.train(objective=Faulty(tiny.objective(), 3, stop), checkpoint_every_seconds=0)
    assert tiny.train(checkpoint_every_seconds=100)["steps"] == 12


def test_data_of_another_vocabulary_is_refused_before_the_first_step(tiny):
    """An id that the embedding does not have."""
    with pytest.raises(DataError, match="encode the data with this model's tokenizer"):
        tiny.train(model=tiny.model(vocab_size=50))
    assert not (tiny.folder / "out").exists()


def test_rows_longer_than_the_context_are_refused(tiny):
    """The message names both lengths."""
    with pytest.raises(ConfigError, match=r"sequence_length 16 .* context of 8"):
        tiny.train(model=tiny.model(max_position_embeddings=8))


def test_global_settings_are_put_back(tiny):
    """Deterministic algorithms and thread counts are the run's, not the caller's."""
    tiny.train()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_training_needs_no_compiler_stack(tiny):
    """Start-up counts: without compilation torch's compiler (a second of imports) stays unloaded."""
    import subprocess
    import sys

    script = tiny.folder / "script.py"
    shutil.copy(__file__.replace("test_training_loop", "conftest"), tiny.folder / "tiny.py")
    script.write_text(
        "import sys, pathlib; from tiny import Tiny; Tiny(pathlib.Path(sys.argv[1])).train();"
        "assert 'torch._dynamo' not in sys.modules, 'torch._dynamo was loaded'"
    )
    subprocess.run([sys.executable, script, tiny.folder], check=True, cwd=tiny.folder)
