"""GRPO's loss and its gradient against trl's trainer, on the same weights and the same rollouts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from glasshouse.alignment.grpo_loss import Normalisation, grpo_loss, token_weights
from glasshouse.alignment.rollouts import Reply, Rows, make_rows, token_logprobs
from glasshouse.model import ModelConfig, Transformer, initialise, load, save
from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
trl = pytest.importorskip("trl", reason="the peer is not installed")
datasets = pytest.importorskip("datasets", reason="trl needs it")

LONGEST, BETA = 9, 0.1
THEIRS: dict[Normalisation, str] = {"sequence": "grpo", "token": "bnpo", "constant": "dr_grpo"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3 with plain bytes whose distributions are not flat."""
    tokenizer = Tokenizer.train([], 265)
    shape = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
    }
    model = initialise(ModelConfig.parse(shape), 0)
    shake(model, 1)
    path = tmp_path_factory.mktemp("grpo") / "model"
    save(model, tokenizer, path)
    return path


def shake(model: Transformer, seed: int, size: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def some_replies() -> list[Reply]:
    """Six replies of different lengths to prompts of different lengths."""
    ids = torch.randint(0, 256, (6, 20), generator=torch.Generator().manual_seed(2)).tolist()
    return [Reply(tuple(row[: 3 + i % 3]), tuple(row[9 : 9 + 2 + i]), "", True) for i, row in enumerate(ids)]


def padded(rows: list[tuple[int, ...]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) as trl keeps prompts (padded on the left) and completions (on the right)."""
    longest = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.int64)
    for i, row in enumerate(rows):
        part = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[i, part], mask[i, part] = torch.tensor(row), 1
    return ids, mask


@pytest.mark.parametrize("correct_kl", [True, False])
@pytest.mark.parametrize("normalisation", THEIRS)
def test_loss_and_gradient_are_those_of_trl(
    folder: Path, tmp_path: Path, normalisation: Normalisation, correct_kl: bool
) -> None:
    """Off the policy that sampled, with both clips and the penalty at work: within 1e-5 in float32."""
    old_model, reference, replies = load(folder), load(folder), some_replies()
    shake(old_model, 3, 0.01)
    shake(reference, 4, 0.03)
    rows = make_rows(replies)
    advantages = torch.tensor([1.2, -0.4, 0.3, -1.5, 0.9, -0.5])
    with torch.no_grad():
        old, ref = (score(model, rows) for model in (old_model, reference))

    model = load(folder)
    weights, counts = token_weights(rows.mask, normalisation, LONGEST)
    penalty = {"reference_logprobs": ref, "kl_coef": BETA, "correct_kl": correct_kl}
    ours = grpo_loss(score(model, rows), old, advantages, weights, clip_high=0.3, **penalty)
    ours = ours / counts.sum()
    ours.backward()

    trainer = make_trainer(folder, tmp_path, THEIRS[normalisation], correct_kl)
    prompt_ids, prompt_mask = padded([reply.prompt for reply in replies], left=True)
    completion_ids, completion_mask = padded([reply.ids for reply in replies], left=False)
    inputs = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": advantages,
        "old_per_token_logps": aligned(old, rows, completion_mask),
        "ref_per_token_logps": aligned(ref, rows, completion_mask),
        "num_items_in_batch": completion_mask.sum(),
    }
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    gradients = {name: p.grad for name, p in trainer.model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


def score(model: Transformer, rows: Rows) -> torch.Tensor:
    return token_logprobs(model, rows.inputs, rows.targets, rows.segments)


def aligned(logprobs: torch.Tensor, rows: Rows, completion_mask: torch.Tensor) -> torch.Tensor:
    """Our columns begin with the prompt, trl's with the reply."""
    moved = torch.zeros(completion_mask.shape)
    return moved.masked_scatter(completion_mask.bool(), logprobs[rows.mask])


def make_trainer(folder: Path, out: Path, loss_type: str, correct_kl: bool) -> Any:
    settings = trl.GRPOConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=6,
        num_generations=6,
        max_completion_length=LONGEST,
        beta=BETA,
        epsilon=0.2,
        epsilon_high=0.3,
        loss_type=loss_type,
        use_bias_correction_kl=correct_kl,
        gradient_checkpointing=False,
    )
    return trl.GRPOTrainer(
        model=str(folder),
        args=settings,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a", "b"]}),
    )
