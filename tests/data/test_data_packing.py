"""Packing: every token once an epoch, whole documents, little padding, and only the step number to resume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError
from glasshouse.data import IGNORE, PackedBatches, Shards, ShardWriter, best_fit

ROW, ROWS = 32, 4


@pytest.fixture
def shards(tmp_path):
    """Documents 1..59 tokens long; token ids tell document and place apart."""
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "s", 60_000, 0) as writer:
        next_id = 1
        for length in rng.integers(1, 60, 300):
            writer.add(list(range(next_id, next_id + length)))
            next_id += length
    return Shards(tmp_path / "s")


def epoch_of(batches):
    """All rows of epoch 0, as arrays of (steps · rows, length)."""
    steps = -(-round(batches.steps_per_epoch * batches.rows_per_batch) // batches.rows_per_batch)
    parts = [batches.batch(step) for step in range(steps)]
    rows = round(batches.steps_per_epoch * batches.rows_per_batch)
    return [
        np.concatenate([getattr(p, n) for p in parts])[:rows]
        for n in ("inputs", "targets", "segments", "positions")
    ]


def test_an_epoch_holds_every_target_exactly_once(shards):
    """Token ids are unique in this corpus, so the targets of an epoch are its tokens and its separators."""
    _, targets, segments, _ = epoch_of(PackedBatches(shards, ROW, ROWS, seed=1))
    counted = targets[targets != IGNORE]
    assert sorted(counted.tolist()) == sorted(shards.tokens[1:].tolist())
    assert (targets == IGNORE).sum() == (segments == -1).sum()


def test_rows_hold_contiguous_pieces_of_documents(shards):
    """Within a segment the stream goes on token by token and positions count from 0; targets are the next."""
    inputs, targets, segments, positions = epoch_of(PackedBatches(shards, ROW, ROWS, seed=1))
    stream = shards.tokens.tolist()
    place = {token: i for i, token in enumerate(stream) if token}
    for row in range(len(inputs)):
        for segment in range(segments[row].max() + 1):
            at = np.flatnonzero(segments[row] == segment)
            assert at.tolist() == list(range(at[0], at[-1] + 1))
            assert positions[row, at].tolist() == list(range(len(at)))
            first = place[targets[row, at[0]]] - 1 if targets[row, at[0]] else place[inputs[row, at[0]]]
            assert inputs[row, at].tolist() == stream[first : first + len(at)]
            assert targets[row, at].tolist() == stream[first + 1 : first + 1 + len(at)]


def test_documents_that_fit_are_never_cut(shards):
    """Only a document longer than a row may start anywhere but at its separator."""
    inputs, _, segments, positions = epoch_of(PackedBatches(shards, ROW, ROWS, seed=1))
    starts = inputs[(positions == 0) & (segments >= 0)]
    lengths = np.diff(shards.offsets.astype(int))
    assert (starts == 0).sum() == len(shards)
    owner = (
        np.searchsorted(shards.offsets, np.flatnonzero(np.isin(shards.tokens, starts[starts > 0])), "right")
        - 1
    )
    assert (lengths[owner] > ROW).all()


def test_padding_stays_small(tmp_path):
    """Below 3% on documents like those of the invented world, in the first epoch and whatever the seed."""
    rng = np.random.default_rng(3)
    with ShardWriter(tmp_path / "s", 100, 0) as writer:
        for length in rng.integers(8, 110, 4000):
            writer.add(rng.integers(1, 100, length))
    for seed in range(3):
        batches = PackedBatches(Shards(tmp_path / "s"), 256, 32, seed)
        segments = epoch_of(batches)[2]
        assert (segments == -1).mean() < 0.03


def test_a_batch_depends_on_seed_and_step_only(shards):
    """A fresh object asked for a late step, as after a restart, gives what a long-lived one gives."""
    walked = PackedBatches(shards, ROW, ROWS, seed=7)
    late = int(2.5 * walked.steps_per_epoch)
    batches = [walked.batch(step) for step in range(late + 1)]
    for step in (late, 0, late // 2):
        fresh = PackedBatches(shards, ROW, ROWS, seed=7).batch(step)
        for name in ("inputs", "targets", "segments", "positions"):
            assert np.array_equal(getattr(batches[step], name), getattr(fresh, name))


def test_epochs_and_seeds_order_the_corpus_differently(shards):
    """The shuffle is global and fresh: the second epoch and another seed begin with other rows."""
    batches = PackedBatches(shards, ROW, ROWS, seed=7)
    second = round(batches.steps_per_epoch + 1)
    assert not np.array_equal(batches.batch(0).inputs, batches.batch(second).inputs)
    assert not np.array_equal(batches.batch(0).inputs, PackedBatches(shards, ROW, ROWS, 8).batch(0).inputs)


def test_the_shuffle_is_global(tmp_path):
    """The first batches draw from the whole corpus, not from its beginning."""
    with ShardWriter(tmp_path / "s", 60_000, 0) as writer:
        for i in range(5000):
            writer.add([i + 1] * 7)
    batches = PackedBatches(Shards(tmp_path / "s"), ROW, 8, seed=0)
    seen = np.concatenate([batches.batch(step).inputs.ravel() for step in range(20)])
    seen = seen[seen > 0]
    assert abs(seen.mean() - 2500) < 300
    assert seen.max() > 4500


def test_long_documents_are_cut_at_another_phase_each_epoch(tmp_path):
    """One long text: the cuts move, so that no token is always without its context."""
    with ShardWriter(tmp_path / "s", 60_000, 0) as writer:
        writer.add(list(range(1, 10_001)))
    batches = PackedBatches(Shards(tmp_path / "s"), 100, 5, seed=0)
    steps = int(batches.steps_per_epoch)
    phases = []
    for first in (0, steps + 1):
        starts = np.concatenate([batches.batch(first + i).inputs[:, 0] for i in range(steps - 1)])
        phases.append(np.bincount(starts % 100).argmax())
    assert phases[0] != phases[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_fixed_cuts_make_windows_from_the_start_of_a_long_document(tmp_path, seed):
    """For evaluation: non-overlapping windows, every target once, whatever the seed."""
    with ShardWriter(tmp_path / "s", 1000, 0) as writer:
        writer.add(list(range(1, 251)))
    batches = PackedBatches(Shards(tmp_path / "s"), 100, 1, seed, fixed_cuts=True)
    rows = [batches.batch(step) for step in range(3)]
    firsts = sorted(int(row.inputs[0, 0]) for row in rows)
    assert firsts == [0, 100, 200]
    targets = np.concatenate([row.targets.ravel() for row in rows])
    assert sorted(targets[targets != IGNORE].tolist()) == sorted([*range(1, 251), 0])


def test_the_mask_decides_which_targets_count(tmp_path):
    """A conversation of six tokens of which the last two are the assistant's has two targets."""
    with ShardWriter(tmp_path / "s", 100) as writer:
        for _ in range(8):
            writer.add([1, 2, 3, 4, 5, 6], mask=[False, False, False, False, True, True])
    batch = PackedBatches(Shards(tmp_path / "s"), 16, 2, seed=0).batch(0)
    assert sorted(set(batch.targets.ravel().tolist())) == [IGNORE, 5, 6]
    assert batch.inputs[batch.targets != IGNORE].tolist() == [4, 5] * 6  # three conversations fit in a row
    assert ((batch.segments >= 0).sum(1) == 15).all()  # the last token of each predicts nothing


def test_a_corpus_smaller_than_a_row_is_refused_with_its_size(tmp_path):
    """The message names both numbers and the setting."""
    with ShardWriter(tmp_path / "s", 100, 0) as writer:
        writer.add([1, 2, 3])
    with pytest.raises(DataError, match=r"4 tokens, less than one sequence of 16.*sequence_length"):
        PackedBatches(Shards(tmp_path / "s"), 16, 2, seed=0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 30))
def test_best_fit_never_overfills_and_wastes_little(lengths, capacity):
    """No row exceeds its capacity, and no two rows could be poured together but for at most one."""
    rows, count = best_fit(np.array(lengths, dtype=np.int64), capacity)
    filled = np.bincount(rows, weights=lengths, minlength=count) if lengths else np.zeros(0)
    assert len(filled) == count
    assert (filled <= capacity).all()
    # Any fit packing fills all but one row more than half (pieces here are at most the capacity).
    assert (filled * 2 <= capacity).sum() <= 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 12), max_size=30))
def test_best_fit_equals_a_plain_search(lengths):
    """The bit scan finds the row that a search over all rows finds."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r in room if r >= length]
        if fitting:
            room[room.index(min(fitting))] -= length
        else:
            room.append(12 - length)
    rows, count = best_fit(np.array(lengths, dtype=np.int64), 12)
    filled = np.bincount(rows, weights=lengths, minlength=count) if lengths else np.zeros(0)
    assert sorted(12 - filled) == sorted(room)
