"""Preference losses against trl on the same model, tokens and reference; reward folders, transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glasshouse.alignment.dpo import DPO, DPOConfig
from glasshouse.alignment.pair_batches import Pairs
from glasshouse.alignment.preference_pairs import encode_pairs
from glasshouse.alignment.reward_model import PreferenceFit, RewardModel
from glasshouse.model import save
from glasshouse.model.scalar_head import ScalarTransformer, save_scalar
from glasshouse.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

ROW = 64


def pair(number: int) -> dict[str, object]:
    prompt = [{"role": "user", "content": f"{number}?"}]
    chosen = [{"role": "assistant", "content": f"Yes, {number}" + "!" * (number % 4)}]
    rejected = [{"role": "assistant", "content": f"No, {number}" + "." * (number % 7)}]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train([], 265)


@pytest.fixture
def pairs(tmp_path: Path, tokenizer: Tokenizer) -> Pairs:
    encode_pairs([pair(number) for number in range(6)], tokenizer, tmp_path / "pairs", ROW)
    return Pairs(tmp_path / "pairs", ROW, 2000, 0, pad=tokenizer.pad_id)


def padded(pairs: Pairs, numbers: list[int]) -> dict[str, torch.Tensor]:
    """What trl's collators make: the chosen sequences above the rejected ones, padded on the right."""
    rows = [2 * number + side for side in (0, 1) for number in numbers]
    texts = [torch.tensor(pairs.shards.document(row).astype("int64")) for row in rows]
    width = max(map(len, texts))
    ids, mask, replies = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(3))
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        start = int(pairs.shards.offsets[row])
        ids[i, : len(text)], mask[i, : len(text)] = text, 1
        replies[i, : len(text)] = torch.tensor(pairs.shards.mask[start : start + len(text)].astype("int64"))
    return {"input_ids": ids, "attention_mask": mask, "completion_mask": replies}


@pytest.mark.parametrize(
    ("changes", "theirs"),
    [
        ({"beta": 0.1}, {"loss_type": ["sigmoid"]}),
        ({"beta": 0.5, "loss": "ipo", "length_normalised": True}, {"loss_type": ["ipo"]}),
        ({"beta": 2.0, "length_normalised": True}, {"loss_type": ["sigmoid_norm"]}),
    ],
)
def test_dpo_losses_and_gradients_equal_trl(tmp_path, tokenizer, pairs, random_model, changes, theirs):
    """Of two different models, policy and reference, within 1e-5 in fp32."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    reference_model, model = random_model(model_type="llama"), random_model(model_type="llama")
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7))
    for name, each in (("policy", model), ("reference", reference_model)):
        save(each, tokenizer, tmp_path / name)
    reference = torch.zeros(len(pairs), 2)
    with torch.no_grad():
        for batch in pairs.in_order():
            reference[batch.pairs] = batch.sequence_logprobs(reference_model)
    objective = DPO(pairs, reference, DPOConfig.parse({"sequence_length": ROW, **changes}))
    batch = objective.batch(0)
    found = objective.loss(model, batch)
    (found.loss_sum / found.count).backward()

    policy, frozen = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("policy", "reference")
    )
    trainer = trl.DPOTrainer(
        model=policy,
        ref_model=frozen,
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "trl"),
            beta=changes["beta"],
            use_cpu=True,
            report_to=[],
            bf16=False,
            **theirs,
        ),
        train_dataset=datasets.Dataset.from_list([pair(number) for number in range(6)]),
        processing_class=transformers.AutoTokenizer.from_pretrained(tmp_path / "policy"),
    )
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, padded(pairs, batch.pairs.tolist()))
    loss.backward()
    assert found.loss_sum.item() / found.count == pytest.approx(float(loss), abs=1e-5, rel=1e-5)
    gradients = {name: p.grad for name, p in policy.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4), name


def test_the_reward_loss_equals_trl(tmp_path, tokenizer, pairs, random_model):
    """The mean Bradley-Terry loss of the same conversations, within 1e-5 in fp32."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    model = ScalarTransformer.on_trunk(random_model(model_type="qwen3"))
    model.score.weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    save_scalar(model, tokenizer, tmp_path / "reward")
    objective = PreferenceFit(pairs)
    batch = objective.batch(0)
    found = objective.loss(model, batch)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    trainer = trl.RewardTrainer(
        model=theirs,
        args=trl.RewardConfig(output_dir=str(tmp_path / "trl"), use_cpu=True, report_to=[], bf16=False),
        train_dataset=datasets.Dataset.from_list([pair(number) for number in range(6)]),
        processing_class=transformers.AutoTokenizer.from_pretrained(tmp_path / "reward"),
    )
    trainer.model.eval()
    inputs = padded(pairs, batch.pairs.tolist())
    inputs.pop("completion_mask")
    # trl scores the last token that is not padding, which right padding with zeros would hide.
    inputs["input_ids"][inputs["attention_mask"] == 0] = tokenizer.pad_id
    loss = trainer.compute_loss(trainer.model, inputs)
    assert found.loss_sum.item() / found.count == pytest.approx(float(loss), abs=1e-5, rel=1e-5)


def test_transformers_opens_a_reward_model_of_every_family(tmp_path, tokenizer, random_model, family):
    """AutoModelForSequenceClassification: no weight missing or left over, and the same rewards."""
    model = ScalarTransformer.on_trunk(random_model(**family))
    model.score.weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    save_scalar(model, tokenizer, tmp_path)
    theirs, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(loading.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    conversations = [
        {"messages": [*pair(n)["prompt"], *pair(n)[side]]}
        for n in range(4)
        for side in ("chosen", "rejected")
    ]
    ours = RewardModel.load(tmp_path).score(conversations)
    with torch.no_grad():
        for reward, conversation in zip(ours.tolist(), conversations, strict=True):
            ids = peer.apply_chat_template(conversation["messages"], return_tensors="pt", return_dict=True)
            logits = theirs.eval()(**ids).logits
            assert logits.shape == (1, 1)
            assert reward == pytest.approx(float(logits), abs=2e-5)
