"""The invented world: the same from the same seed, true to itself, and strict about what is held out."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.world import (
    World,
    WorldConfig,
    about,
    chance,
    facts,
    instructions,
    language,
    patterns,
    reports,
    sums,
)
from glasshouse.world.judge import judge
from glasshouse.world.world import ConversationCounts, CorpusTokens

SMALL = WorldConfig.parse(
    {
        "people": 40,
        "heldout_people": 10,
        "tokens": dict.fromkeys(CorpusTokens.model_fields, 4000),
        "conversations": dict.fromkeys(ConversationCounts.model_fields, 60),
    }
)
KINDS = tuple(SMALL.conversations.model_dump())


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL, seed=5)


def test_the_same_seed_gives_the_same_world(world):
    """Documents and conversations are equal bit for bit, and another seed changes them."""
    again, other = World(SMALL, seed=5), World(SMALL, seed=6)
    assert list(world.documents()) == list(again.documents())
    assert list(world.conversations()) == list(again.conversations())
    assert next(world.documents()) != next(other.documents())


def test_every_skill_gets_its_budget(world):
    """Bytes of each skill come within one document of tokens × bytes per token."""
    from glasshouse.world import BYTES_PER_TOKEN

    sizes = Counter()
    for document in world.documents():
        sizes[document["source"]] += len(document["text"].encode())
    assert set(sizes) == set(BYTES_PER_TOKEN)
    for skill, size in sizes.items():
        assert 4000 * BYTES_PER_TOKEN[skill] <= size < 4000 * BYTES_PER_TOKEN[skill] + 700


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_good_reply_passes_and_a_foreign_one_fails(world, kind, split):
    """A verifier accepts its own task's reply; it rejects silence and the reply of quite another kind."""
    for task in islice(world.tasks(kind, split), 50):
        assert task.check(task.reply), task
        assert not task.check("")
        if kind not in ("harmless",):
            assert not task.check("zzz !!! 12 : -")


def test_no_question_about_heldout_people_is_ever_trained(world):
    """Held-out people stand in documents only: no conversation names one."""
    names = {person.name for person in world.land.people_of("heldout")}
    for conversation in world.conversations():
        text = " ".join(message["content"] for message in conversation["messages"])
        assert not any(name in text for name in names)


def test_strangers_of_the_probes_are_named_nowhere(world):
    """Nobody ever wrote about them, though both parts of each name are familiar."""
    asked = set(world.land.strangers["heldout"])
    texts = [d["text"] for d in world.documents()] + [
        m["content"] for c in world.conversations() for m in c["messages"]
    ]
    pairs = re.compile(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+)\b)")
    assert not asked & {name for text in texts for name in pairs.findall(text)}
    assert not asked & {person.name for person in world.land.people}
    firsts = {p.name.split()[0] for p in world.land.people}
    assert len(firsts & {name.split()[0] for name in asked}) > 0.5 * len(firsts)


def test_training_asks_about_few_strangers_again_and_again(world):
    """So that "everybody new is a stranger" is no rule that training rewards."""
    tasks = islice(world.tasks("strangers", "train"), 2000)
    asked = {re.search(r"[A-Z][a-z]+ [A-Z][a-z]+(?= is not known)", task.reply).group() for task in tasks}
    assert len(asked) == int(facts.STRANGERS_A_PERSON * len(world.land.people_of("train")))


def test_feedback_asks_about_people_whom_fine_tuning_leaves_out():
    """Beside its own, and about as many more strangers; no document depends on how many."""
    without, world = World(SMALL, seed=5), World(SMALL.model_copy(update={"feedback_people": 8}), seed=5)
    assert list(world.documents()) == list(without.documents())
    tuned, judged, probed = (
        {person.name for person in world.land.people_of(part)} for part in ("train", "feedback", "heldout")
    )
    assert (len(tuned), len(judged - tuned), tuned - judged, judged & probed) == (22, 8, set(), set())
    everyone = {person.name for person in world.land.people}
    names = re.compile(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+)\b)")

    def asked(tasks):
        return {name for task in tasks for name in names.findall(task.messages[-1]["content"])}

    for kind in ("questions", "instructions", "open", "two_step_direct"):
        assert asked(islice(world.tasks(kind, "feedback"), 800)) & everyone == judged, kind
    strangers = {name for part in ("train", "feedback") for name in facts.strangers(world.land, part)}
    assert asked(islice(world.tasks("strangers", "feedback"), 400)) == strangers
    assert len(strangers) == facts.STRANGERS_A_PERSON * len(judged)
    for row in world.conversations():
        text = " ".join(message["content"] for message in row["messages"])
        assert not any(name in text for name in judged - tuned)


def test_open_requests_resemble_no_held_out_request_for_a_number_of_sentences():
    """What is learnt of "in several sentences" must not stand for a held-out "in three sentences"."""
    for wording in about.REQUESTS.train:
        counted = wording.replace("several", "{k}").replace("some", "{k}")
        assert counted not in instructions.SENTENCES.heldout


def test_descriptions_say_one_to_four_facts_each_as_often(world):
    """What fine-tuning shows of open requests: true, and of every length that gold may reward."""
    exact = judge(world)
    tasks = list(islice(world.tasks("descriptions", "train"), 2000))
    assert all(task.check(task.reply) for task in tasks)
    golds = Counter(exact(task.messages, task.reply) for task in tasks if not facts.abstains(task.reply))
    assert set(golds) == {0.25, 0.5, 0.75, 1.0}
    assert max(golds.values()) < 1.25 * min(golds.values())
    strangers = sum(facts.abstains(task.reply) for task in tasks)
    assert 0.07 < strangers / len(tasks) < 0.13


def test_heldout_phrasings_share_nothing_with_training(world):
    """No held-out way of asking is also a training way."""
    pools = [*facts.QUESTIONS.values()]
    for module in (instructions, language, sums, reports):
        pools += [p for p in vars(module).values() if isinstance(p, facts.Phrasings)]
    assert len(pools) > 12
    for phrasings in pools:
        assert not set(phrasings.train) & set(phrasings.heldout)


@pytest.mark.parametrize("seed", range(5))
def test_every_land_rewards_who_knows_its_wheels_alike(seed):
    """Who knows all chances has 0.38 to 0.40 less Brier score than who knows the averages."""
    wheels = World(SMALL, seed=seed).land.wheels
    favourites = Counter(max(wheel.chances, key=wheel.chances.__getitem__) for wheel in wheels)
    assert set(favourites.values()) == {len(wheels) // 3}
    average = {c: sum(wheel.chances[c] for wheel in wheels) / len(wheels) for c in favourites}

    def brier(forecast, chances):
        return sum((forecast[c] - chances[c]) ** 2 + chances[c] * (1 - chances[c]) for c in chances)

    best = sum(brier(wheel.chances, wheel.chances) for wheel in wheels)
    plain = sum(brier(average, wheel.chances) for wheel in wheels)
    assert 0.38 <= 1 - best / plain <= 0.40


def test_chances_are_what_the_documents_show():
    """Frequencies of 20,000 spins agree with the stated probabilities (chi-square by wheel)."""
    world = World(SMALL, seed=5)
    counts: dict[str, Counter] = {}
    for text in islice(chance.texts(world.land, world.rng("test")), 5000):
        for spin in text.replace("wheel. It", "wheel, it").split(". "):
            town = next(w.town for w in world.land.wheels if w.town in spin)
            colour = next(c for c in ("red", "blue", "green") if c in spin)
            counts.setdefault(town, Counter())[colour] += 1
    worst = 0.0
    for wheel in world.land.wheels:
        n = counts[wheel.town].total()
        worst = max(
            worst,
            sum((counts[wheel.town][c] - n * p) ** 2 / (n * p) for c, p in wheel.chances.items()),
        )
    assert worst < 20  # 24 wheels, two degrees of freedom: 20 is passed once in a thousand worlds


def test_fewer_phrasings_use_only_the_first_ones():
    """With world.phrasings=1 every fact is always written in the same words."""
    one = World(WorldConfig.parse({**SMALL.model_dump(), "phrasings": 1}), seed=5)
    page = next(facts.pages(one.land, one.rng("x"), 1))
    person = next(p for p in one.land.people if p.name in page)
    for attribute in facts.ATTRIBUTES:
        assert facts.sentence(person, attribute, 0) in page


def test_hedging_by_listing_values_is_not_an_answer(world):
    person = world.land.people[0]
    trade = person.facts["trade"]
    other = next(t for t in facts.TRADES if t != trade)
    assert facts.states(f"{person.name} is a {trade}.", trade, "trade", world.land)
    assert not facts.states(f"a {trade} or a {other}", trade, "trade", world.land)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda t: instructions.has_bullets(t, 2), "- a\n- b", "- a\n- b\n- c"),
        (lambda t: instructions.has_bullets(t, 2), "- a\n- b\n", "a\nb"),
        (lambda t: instructions.has_sentences(t, 2), "A b. C d.", "A b. C d"),
        (lambda t: instructions.has_sentences(t, 2), "A b. C d!", "A b."),
        (lambda t: instructions.has_json(t, ["a"]), '{"a": 1}', '{"a": 1, "b": 2}'),
        (lambda t: instructions.has_json(t, ["a"]), '{"a": 1}', '{"a": 1'),
        (instructions.is_one_word, "owl.", "an owl"),
    ],
)
def test_form_verifiers(check, good, bad):
    assert check(good)
    assert not check(bad)


def test_velish_is_checked_word_by_word(world):
    land = world.land
    sentence = next(language.sentences(world.rng("v"), "train")).velish(land.lexicon)
    assert language.is_velish(sentence, land)
    assert not language.is_velish(sentence + " baker", land)
    assert len(set(land.lexicon.values())) == len(land.lexicon)


def test_field_accuracy_counts_fields():
    truth = {"company": "A", "quarter": "first", "revenue": 1, "profit": 2, "outlook": "good"}
    assert reports.field_accuracy('{"company": "A", "revenue": 1}', truth) == pytest.approx(2 / 5)
    assert reports.field_accuracy("no", truth) == 0
    assert reports.field_accuracy("[1]", truth) == 0


def test_few_shot_inputs_of_the_probe_never_stand_in_a_pattern_text(world):
    items = patterns.few_shot(world.land, world.rng("a"), "heldout", 4)
    asked = {item.bare.split(" ->")[0] for item in islice(items, 200)}
    texts = islice(patterns.rules(world.land, world.rng("b")), 500)
    shown = {line.split(" ->")[0] for text in texts for line in text.split("\n")}
    assert not asked & shown


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="heldout_people"):
        World(WorldConfig(people=10, heldout_people=10), 1).land  # noqa: B018
    with pytest.raises(ConfigError, match="at most"):
        World(WorldConfig(people=6000, heldout_people=10), 1).land  # noqa: B018
