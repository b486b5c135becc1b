"""What later stages read again of the corpus: every document once, and each stage others first."""

from glasshouse.core.storage import write_json
from glasshouse.pipeline.documents import DocumentWriter
from glasshouse.pipeline.replay import replayed, settled
from glasshouse.pipeline.stages.corpus import STATISTICS, TRAIN
from glasshouse.world import World, WorldConfig

STAGES = ("sft", "rejection", "constitution", "calibrate")


def test_every_stage_begins_at_a_place_of_its_own(tmp_path):
    """The same stage and seed begin at the same place; all see all documents, in the corpus's order."""
    texts = [f"document {i}" for i in range(1000)]
    with DocumentWriter(tmp_path / TRAIN) as writer:
        for text in texts:
            writer.write({"text": text})
    write_json(tmp_path / STATISTICS, {"train": {"documents": len(texts)}})
    orders = {stage: list(replayed(tmp_path, stage, 3)) for stage in STAGES}
    for stage, order in orders.items():
        first = texts.index(order[0])
        assert order == texts[first:] + texts[:first]
        assert order == list(replayed(tmp_path, stage, 3))
        assert order != list(replayed(tmp_path, stage, 4))
    assert len({order[0] for order in orders.values()}) == len(STAGES)


def test_without_a_corpus_nothing_is_replayed():
    assert list(replayed(None, "sft", 1)) == []


def test_open_requests_are_not_repeated():
    """Alone or beside another in one dialogue; everything else is, in its order."""
    world = World(WorldConfig(people=40, heldout_people=10), seed=5)
    rows = list(world.conversations())
    kept = list(settled(rows))
    assert kept == [row for row in rows if "descriptions" not in row["source"]]
    assert 0 < len(rows) - len(kept) <= world.config.conversations.descriptions
