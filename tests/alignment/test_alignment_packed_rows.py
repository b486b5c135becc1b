"""Packed replies: every token's state is what its own row gives, in fewer tokens."""

import pytest
import torch

from glasshouse.alignment.packed_rows import WIDTH, pack_rows
from glasshouse.alignment.rollouts import Reply, make_rows
from glasshouse.data import IGNORE

CONTEXT = 64
NOISY = {"noise": 0.3, "max_position_embeddings": CONTEXT}


def random_rows(seed, groups=6, group=4):
    """Replies of 1 to 25 tokens to prompts of 1 to 20, `group` to each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    replies = []
    for _ in range(groups):
        prompt = tuple(draw(1, 50) for _ in range(draw(1, 21)))
        for _ in range(group):
            replies.append(Reply(prompt, tuple(draw(1, 50) for _ in range(draw(1, 26))), "", True))
    return make_rows(replies)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("positions", ["rope", "learned"])
@pytest.mark.parametrize("group", [1, 4])
def test_states_are_those_of_each_row_alone(small_model, group, positions, gradients):
    """With the prompt shared or not, with places counted from each row's beginning, with and without
    gradients (other kernels): at every position that counts."""
    family = {"model_type": "gpt2", "num_key_value_heads": 2} if positions == "learned" else {}
    model = small_model(**NOISY, **family)
    for seed in range(3):
        rows = random_rows(seed, group=group)
        packed = pack_rows(rows.inputs, rows.targets, rows.segments, CONTEXT)
        with torch.set_grad_enabled(gradients):
            states = packed.states(model)[packed.places]
            for row in range(len(rows.inputs)):
                real = rows.segments[row] >= 0
                alone = model.hidden(rows.inputs[row][None, real])[0]
                torch.testing.assert_close(states[row, real], alone, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_padded_rows(small_model):
    """Of a sum over the states that count, weighted at random."""
    rows = random_rows(5)
    weights = torch.randn(int(rows.mask.sum()), 32, generator=torch.Generator().manual_seed(2))
    gradients = []
    for packed in (True, False):
        model = small_model(**NOISY)
        if packed:
            found = pack_rows(rows.inputs, rows.targets, rows.segments, CONTEXT)
            states = found.states(model)[found.places[rows.mask]]
        else:
            states = model.hidden(rows.inputs, segments=rows.segments)[rows.mask]
        (states * weights).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-3)


def test_a_long_reply_costs_the_others_nothing():
    """One of 40 tokens among thirty of 4: hardly a token is padding."""
    replies = [Reply((1, 2), tuple(range(1, n)), "", True) for n in [41] + [5] * 30]
    rows = make_rows(replies)
    packed = pack_rows(rows.inputs, rows.targets, rows.segments, CONTEXT)
    assert rows.inputs.numel() == 31 * 41
    assert packed.inputs.numel() < 1.2 * int((packed.segments >= 0).sum())


def test_a_prompt_is_read_once_for_its_group_and_no_further_than_a_row():
    """By hand: 4 replies of 2 tokens to a prompt of 10, of which 9 are shared: 11 tokens, then 2 + 1 more for
    each. In a row that does not hold them all, the prompt is read again."""
    replies = [Reply(tuple(range(1, 11)), (20 + i, 30), "", True) for i in range(4)]
    rows = make_rows(replies)
    packed = pack_rows(rows.inputs, rows.targets, rows.segments, CONTEXT)
    assert packed.inputs.shape == (1, 11 + 3 * 2)
    assert packed.positions[0].tolist() == [*range(11), 9, 10, 9, 10, 9, 10]
    assert packed.places[2].tolist() == [*range(9), 13, 14]
    narrow = pack_rows(rows.inputs, rows.targets, rows.segments, 14)
    assert narrow.inputs.shape == (2, 13)
    assert int((narrow.segments >= 0).sum()) == 2 * 13


def test_rows_are_as_wide_as_the_context_allows():
    """Many short replies stand in rows of WIDTH tokens, or of the context where it is shorter."""
    rows = make_rows([Reply((i,), (1, 2, 3), "", True) for i in range(1, 200)])
    for context, width in ((10_000, WIDTH), (40, 39)):  # rows of 3 tokens
        packed = pack_rows(rows.inputs, rows.targets, rows.segments, context)
        assert width - 2 <= packed.inputs.shape[1] <= min(context, WIDTH)
        assert (packed.inputs.flatten()[packed.places] == rows.inputs).all()
    assert (rows.targets != IGNORE).all()
