"""LoRA in GRPO and PPO: the base is its own reference, and a reward model may stand on it too."""

import json
import shutil

import pytest
import torch

from glasshouse.alignment.grpo import GRPOConfig, grpo
from glasshouse.alignment.judge import LearntJudge, Program
from glasshouse.alignment.policy import Policy
from glasshouse.alignment.ppo import PPOConfig, ppo
from glasshouse.alignment.reward_model import RewardConfig, RewardModel, reward_model
from glasshouse.alignment.rollouts import Reply
from glasshouse.alignment.shared_trunk import on_trunk
from glasshouse.core.errors import InterruptedRunError, ModelError
from glasshouse.model import initialise, load, save
from glasshouse.model.lora import active_adapters, adapter_names
from glasshouse.tokenizer import Tokenizer
from glasshouse.training.metrics import TIMING_FIELDS

EXAMPLES = [{"prompt": [{"role": "user", "content": text}]} for text in ("Hi", "Say a", "Go", "More")]


def count_low(example, reply):
    return sum(character < "\x80" for character in reply) / max(1, len(reply))


LOW = Program("plain characters", count_low)

PLAIN = {
    "sequence_length": 48,
    "batch_tokens": 16 * 48,
    "max_new_tokens": 8,
    "updates": 2,
    "tokens": 6 * 16 * 48,
    "dtype": "float32",
    "device": "cpu",
    "adapter_lr": 0.02,
    "kl_coef": 0.1,
    "lora": {"r": 4},
}


def settings(method, **changes):
    kind = {grpo: GRPOConfig, ppo: PPOConfig}[method]
    return kind.parse(PLAIN | changes)


SHAPE = {"noise": 0.05, "max_position_embeddings": 128, "tie_word_embeddings": False}


@pytest.fixture(scope="module")
def base(small_folder):
    return small_folder(**SHAPE)


@pytest.fixture(scope="module")
def other(small_folder):
    """The same shapes with other weights."""
    return small_folder(**SHAPE, seed=1)


def pair(number):
    prompt = [{"role": "user", "content": f"{number}?"}]
    chosen, rejected = ([{"role": "assistant", "content": f"{word} {number}"}] for word in ("Yes", "No"))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.fixture(scope="module")
def reward(base, tmp_path_factory):
    """A reward model that is an adapter on the base."""
    out = tmp_path_factory.mktemp("reward")
    plain = {
        "batch_tokens": 600,
        "sequence_length": 64,
        "dtype": "float32",
        "device": "cpu",
        "lora": {"r": 4},
    }
    config = RewardConfig.parse({**plain, "epochs": 10, "adapter_lr": 0.01})
    reward_model(base, [pair(number) for number in range(24)], out, config)
    return out / "model"


def rows_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING_FIELDS} for line in lines]


def weights_of(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", [grpo, ppo])
def test_the_base_is_the_same_reference_as_a_copy_of_it(base, tmp_path, method):
    """Every number of the run, and every weight, to the bit; the KL begins at 0 and rises."""
    method(base, EXAMPLES, LOW, tmp_path / "own", settings(method))
    copy = shutil.copytree(base, tmp_path / "another")
    method(base, EXAMPLES, LOW, tmp_path / "copy", settings(method, reference=str(copy)))
    own = rows_of(tmp_path / "own")
    assert own == rows_of(tmp_path / "copy")
    assert weights_of(tmp_path / "own") == weights_of(tmp_path / "copy")
    assert (own[0]["kl"], own[0]["kl_k3"]) == (0, 0)
    assert own[-1]["kl_k3"] > 1e-4


@pytest.mark.parametrize("method", [grpo, ppo])
def test_only_the_adapter_learns_and_is_saved_beside_the_merged_model(base, tmp_path, method):
    """Embeddings, norms and head are the base's; merged and base with adapter say the same."""
    config = settings(method, tokens=20 * 16 * 48, kl_coef=0.001)
    method(base, EXAMPLES, LOW, tmp_path, config)
    before, after = dict(load(base).named_parameters()), dict(load(tmp_path / "model").named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("_proj" in name for name in changed)
    assert set(before) == set(after)  # no value head
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    rewards = [row["reward_proxy"] for row in rows_of(tmp_path)]
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.1


@pytest.mark.parametrize("method", [grpo, ppo])
def test_a_stopped_run_of_an_adapter_continues_with_the_same_bits(base, tmp_path, method):
    config = settings(method, checkpoint_every_seconds=0, lora={"r": 4, "dropout": 0.1})
    method(base, EXAMPLES, LOW, tmp_path / "whole", config)
    calls = 0

    def stopping(example, reply):
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt
        return count_low(example, reply)

    with pytest.raises(InterruptedRunError):
        method(base, EXAMPLES, Program(LOW.name, stopping), tmp_path / "parts", config)
    method(base, EXAMPLES, LOW, tmp_path / "parts", config)
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")
    assert weights_of(tmp_path / "whole") == weights_of(tmp_path / "parts")


REPLIES = [[Reply((1,), (2,), text, True) for text in ("Yes 3", "No 3", "What?")] for _ in EXAMPLES]


def test_a_reward_model_on_the_policys_trunk_gives_the_rewards_of_its_own_folder(base, reward):
    """To rounding: a merged weight is rounded once more. The policy's own adapter takes no part."""
    policy = Policy.open(base, settings(ppo)).model
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".adapters.default.b" in name:
                parameter += 0.1
    ids = torch.tensor([[5, 6, 7]])
    said = policy(ids)
    shared = on_trunk(policy, reward)
    assert shared is not None
    apart = RewardModel.load(reward)
    judges = [LearntJudge("reward", model) for model in (shared, apart)]
    ours, theirs = (torch.tensor(judge.rewards(EXAMPLES, REPLIES)) for judge in judges)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert float(theirs.std()) > 0.1
    assert active_adapters(policy) == ["default"]
    assert torch.equal(policy(ids), said)
    held = {parameter.data_ptr() for parameter in policy.parameters()}
    own = [p for p in shared.model.parameters() if p.data_ptr() not in held]
    assert [list(p.shape) for p in own] == [[1, 32]]  # the head


def test_a_reward_model_of_other_weights_is_not_put_on_the_trunk(reward, other):
    """Nor one without an adapter; the policy is left as it was."""
    policy = Policy.open(other, settings(ppo)).model
    assert on_trunk(policy, reward) is None
    assert adapter_names(policy) == ["default"]
    assert on_trunk(policy, other) is None


def test_ppo_learns_from_a_reward_model_on_its_own_trunk(base, reward, tmp_path):
    """The saved adapter is the policy's alone, and the base's weights stay frozen."""
    ppo(base, EXAMPLES, lambda policy: LearntJudge("r", on_trunk(policy, reward)), tmp_path, settings(ppo))
    apart = tmp_path / "apart"
    ppo(base, EXAMPLES, LearntJudge("r", RewardModel.load(reward)), apart, settings(ppo))
    ours, theirs = rows_of(tmp_path), rows_of(apart)
    assert ours[0]["reward_proxy"] == pytest.approx(theirs[0]["reward_proxy"], abs=1e-5)
    assert ours[0]["reward_proxy"] != 0


@pytest.mark.parametrize("method", [grpo, ppo])
def test_another_model_may_be_the_reference(base, other, tmp_path, method):
    """The KL to it is not 0 at the start; with and without an adapter."""
    for lora in ({"r": 4}, None):
        out = tmp_path / str(lora is None)
        method(base, EXAMPLES, LOW, out, settings(method, lora=lora, reference=str(other), tokens=16 * 48))
        assert rows_of(out)[0]["kl_k3"] > 0


@pytest.mark.parametrize("method", [grpo, ppo])
def test_a_reference_of_other_shapes_or_tokenizer_is_refused(base, small_folder, tmp_path, method):
    """Before training, naming the weight; a tokenizer that gives other ids is another one."""
    wide = small_folder(**SHAPE, hidden_size=64)
    with pytest.raises(ModelError, match=r"other shapes.*embed_tokens.weight is \[265, 64\].*\[265, 32\]"):
        method(base, EXAMPLES, LOW, tmp_path / "out", settings(method, reference=str(wide)))
    longer = tmp_path / "longer"
    tokenizer = Tokenizer.train(["the man and the owl and the hen " * 50], 300)
    shape = load(base).config.model_copy(update={"vocab_size": tokenizer.vocab_size})
    save(initialise(shape, seed=0), tokenizer, longer)
    with pytest.raises(ModelError, match="another tokenizer"):
        method(base, EXAMPLES, LOW, tmp_path / "out", settings(method, reference=str(longer)))
