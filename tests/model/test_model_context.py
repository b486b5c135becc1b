"""A longer window: the same weights and, where positions allow it, the same logits within the old one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.model import ModelConfig, Transformer, initialise, load, save
from glasshouse.model.context import drawn_out, extend_context, extended_config
from glasshouse.model.lora import LoRAConfig, add_adapter
from glasshouse.model.rope import frequencies

OLD, NEW = 24, 60


def model(**changes: object) -> Transformer:
    """A small model whose every weight matters: nothing of it is left at zero."""
    shape = {
        "vocab_size": 71,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": OLD,
    }
    made = initialise(ModelConfig.parse({**shape, **changes}), 3).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made


def gpt2(positions: str = "learned") -> Transformer:
    return model(model_type="gpt2", positions=positions)


def ids(length: int) -> torch.Tensor:
    return torch.randint(0, 71, (2, length), generator=torch.Generator().manual_seed(1))


def logits(of: Transformer, length: int) -> torch.Tensor:
    with torch.no_grad():
        return of(ids(length))


SAME = {
    "none": (lambda: model(), "none"),
    "dynamic": (lambda: model(), "dynamic"),
    "sinusoidal": (lambda: gpt2("sinusoidal"), None),
    "no positions": (lambda: gpt2("none"), None),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_old_window_is_untouched(kind: str) -> None:
    """Rows up to the old length have the logits that they had; longer ones can be read."""
    make, scaling = SAME[kind]
    before = make()
    after = extend_context(before, NEW, scaling)
    assert torch.allclose(logits(after, OLD), logits(before, OLD), atol=1e-6)
    assert after.config.context == NEW
    assert logits(after, NEW).isfinite().all()


@pytest.mark.parametrize("scaling", ["yarn", "linear", "llama3"])
def test_stretched_positions_change_angles_only(scaling: str) -> None:
    """The weights are equal and are copies; the slowest pair turns by the factor more slowly."""
    before = model()
    after = extend_context(before, NEW, scaling)
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight)
        assert after.state_dict()[name].data_ptr() != weight.data_ptr()
    slow, slower = (frequencies(m.config, NEW)[0][-1] for m in (before, after))
    assert float(slow / slower) == pytest.approx(NEW / OLD)
    assert not torch.allclose(logits(after, OLD), logits(before, OLD), atol=1e-3)


def test_yarn_is_the_default_and_remembers_the_trained_window() -> None:
    scaling = extended_config(model().config, NEW).rope_scaling
    assert scaling is not None
    assert (scaling.rope_type, scaling.factor) == ("yarn", NEW / OLD)
    assert scaling.original_max_position_embeddings == OLD


def test_a_learned_table_is_drawn_out_between_its_ends() -> None:
    """Channel by channel numpy's linear interpolation on an even grid from the first to the last vector."""
    before = gpt2()
    after = extend_context(before, NEW)
    table = before.model.embed_positions.weight.detach().numpy()
    grid = np.linspace(0, OLD - 1, NEW)
    wanted = np.stack([np.interp(grid, np.arange(OLD), column) for column in table.T], axis=1)
    assert np.allclose(after.model.embed_positions.weight.detach().numpy(), wanted, atol=1e-5)
    assert torch.equal(drawn_out(torch.eye(3), 3), torch.eye(3))


@pytest.mark.parametrize(
    ("before", "scaling"),
    [(model, scaling) for scaling in ("yarn", "linear", "llama3", "dynamic", "none")]
    + [(gpt2, None), (lambda: gpt2("sinusoidal"), None), (lambda: gpt2("none"), None)],
)
def test_the_saved_folder_opens_with_the_same_logits(before, scaling, tmp_path: Path) -> None:
    after = extend_context(before(), NEW, scaling)
    save(after, None, tmp_path / "model")
    opened = load(tmp_path / "model")
    assert opened.config == after.config
    assert torch.equal(logits(opened, NEW), logits(after, NEW))


@pytest.mark.parametrize("scaling", ["yarn", "linear", "dynamic", "llama3"])
def test_two_extensions_of_one_kind_are_one(scaling: str) -> None:
    """Twice and then twice as long is four times as long; the kind need not be said again."""
    config = model().config
    twice = extended_config(extended_config(config, 2 * OLD, scaling), 4 * OLD)
    once = extended_config(config, 4 * OLD, scaling)
    if scaling in ("linear", "dynamic"):
        assert twice == once
    else:
        assert twice.rope_scaling == once.rope_scaling  # the trained window is still the first one
        assert twice.context == 4 * OLD


def test_more_positions_of_a_scaled_model_keep_its_scaling() -> None:
    scaled = extended_config(model().config, NEW, "yarn")
    longer = extended_config(scaled, 2 * NEW, "none")
    assert longer.rope_scaling == scaled.rope_scaling
    assert longer.max_position_embeddings == 2 * NEW


@pytest.mark.parametrize("trained", range(1, 200, 7))
def test_dynamic_reaches_the_last_token_of_the_window(trained: int) -> None:
    """Whatever the factor rounds to."""
    config = model(max_position_embeddings=trained).config
    for length in range(trained + 1, trained + 300, 13):
        assert extended_config(config, length, "dynamic").context == length


def test_rope_theta_replaces_the_base() -> None:
    longer = extended_config(model().config, NEW, "none", rope_theta=500_000.0)
    assert (longer.rope_theta, longer.rope_scaling) == (500_000.0, None)


@pytest.mark.parametrize(
    ("config", "length", "scaling", "theta", "said"),
    [
        (lambda: model().config, OLD, "yarn", None, "not longer than the model's 24"),
        (lambda: model().config, OLD - 1, "none", None, "not longer"),
        (lambda: extended_config(model().config, NEW, "yarn"), 99, "linear", None, "scaled already .yarn"),
        (lambda: extended_config(model().config, NEW, "dynamic"), 99, "none", None, "scaled already"),
        (lambda: extended_config(model().config, NEW, "dynamic"), NEW, None, None, "not longer"),
        (lambda: gpt2().config, NEW, "yarn", None, "are learned"),
        (lambda: gpt2().config, NEW, "none", None, "set it to linear"),
        (lambda: gpt2("sinusoidal").config, NEW, "linear", None, "set it to none"),
        (lambda: gpt2().config, NEW, None, 5.0, "no RoPE"),
    ],
)
def test_what_cannot_be_is_refused(config, length, scaling, theta, said) -> None:
    with pytest.raises(ConfigError, match=said):
        extended_config(config(), length, scaling, theta)


def test_a_model_with_an_adapter_is_refused() -> None:
    adapted = model()
    add_adapter(adapted, LoRAConfig(r=2), seed=1)
    with pytest.raises(UsageError, match="adapters"):
        extend_context(adapted, NEW)
