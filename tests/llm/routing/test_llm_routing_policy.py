"""The router's guarantee: over many labelled samples, what is promised holds as often as promised."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from glasshouse.core.errors import ConfigError, DataError, UsageError
from glasshouse.llm.routing_policy import Policy, calibrate, prove
from glasshouse.llm.routing_rules import Rule
from glasshouse.llm.routing_samples import Sample, read_samples

TIMES = 200


@pytest.fixture(scope="module")
def population(routing):
    return routing.simulated(1, 6000)


@pytest.fixture(scope="module")
def plain(routing):
    """The same without a classifier: a cascade alone."""
    return routing.simulated(2, 6000, classifier=False)


@pytest.mark.parametrize(
    ("which", "epsilon", "delta"),
    [("plain", 0.12, 0.2), pytest.param("population", 0.15, 0.1, marks=pytest.mark.accept)],
)
def test_the_bound_is_broken_no_more_often_than_stated_and_the_heuristic_saves_less(
    routing, which, epsilon, delta, request
):
    population = request.getfixturevalue(which)
    found = routing.resample(population, TIMES, 500, epsilon, delta, seed=3)
    limit = binom.ppf(0.99, TIMES, delta) / TIMES
    assert found["broken"] <= limit
    assert found["broken_without"] > limit, "a careless threshold must fail this test"
    assert found["proved"] > 0.5
    heuristic = routing.best_heuristic(population.heuristics(), found["error"])
    assert found["saved"] > heuristic["saved"] + 0.05


@pytest.mark.accept
@pytest.mark.parametrize("delta", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("seed", [11, 12])
def test_the_guarantee_on_other_populations_bounds_and_sizes(routing, seed, epsilon, delta):
    population = routing.simulated(seed, 6000, classifier=seed == 11)
    for samples in (150, 1000):
        found = routing.resample(population, TIMES, samples, epsilon, delta, seed=seed)
        assert found["broken"] <= binom.ppf(0.999, TIMES, delta) / TIMES


def test_a_rule_walks_the_tiers_as_told():
    """Against a loop written for one request at a time."""
    rng = np.random.default_rng(0)
    sure, likely = rng.random((200, 2)), rng.random((200, 2))
    sure[::7, 0] = np.nan
    for accept in ((0.5, 0.3), (np.inf, 0.2), (0.9, np.inf), (-np.inf, -np.inf)):
        for begin in (0.0, 0.4):
            rule = Rule(accept, begin)
            answers, asked = rule.walk(sure, likely, 200)
            for i in range(200):
                wanted = []
                for tier in range(2):
                    if accept[tier] == np.inf or likely[i, tier] < begin:
                        continue
                    wanted.append(tier)
                    if sure[i, tier] >= accept[tier]:
                        break
                else:
                    tier = 2
                    wanted.append(2)
                assert (answers[i], np.flatnonzero(asked[i]).tolist()) == (tier, wanted)


def samples_of(population, n, seed=0, **changes):
    table = population.labelled(np.random.default_rng(seed), n)
    return [
        Sample.parse(
            {
                "text": f"request {i}",
                "right": table.right[i].tolist(),
                "sure": table.sure[i].tolist(),
                "cost": table.cost[i].tolist(),
                **changes,
            }
        )
        for i in range(n)
    ]


def test_the_evidence_is_what_the_policy_does_on_the_rows_kept_for_it(plain):
    samples = samples_of(plain, 600)
    policy = calibrate(samples, 0.15, 0.1, confidence="given", tiers=("s", "m", "l"), seed=5)
    e = policy.evidence
    assert e is not None
    assert (e.proved, e.designed_on, e.n, e.unit) == (True, 200, 400, "US dollars")
    kept = [samples[i] for i in routing_order(600, 5)[200:]]
    accepted = errors = spent = 0
    for sample in kept:
        for tier in range(3):
            spent += sample.cost[tier]
            if tier == 2 or sample.sure[tier] >= policy.accept[tier]:
                break
        accepted += tier < 2
        errors += tier < 2 and not sample.right[tier]
    assert (e.accepted, e.errors) == (accepted, errors)
    assert e.p_value == pytest.approx(binom.cdf(errors, accepted, 0.15))
    assert e.saved == pytest.approx(1 - spent / (20 * 400))
    assert e.bound is not None
    assert e.bound <= 0.15
    assert sum(e.answered) == pytest.approx(1)
    assert e.error_rate > 0
    assert "at most 0.15 of the accepted answers are wrong, with probability 0.9" in policy.guarantee


def routing_order(n, seed):
    from glasshouse.core.seeds import numpy_rng

    return numpy_rng(seed, "routing").permutation(n).tolist()


def test_a_policy_is_a_file_one_can_read(plain, tmp_path):
    policy = calibrate(samples_of(plain, 600), 0.15, confidence="given")
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    told = json.loads((tmp_path / "policy.json").read_text())
    assert {"n", "errors", "bound", "date", "p_value", "epsilon", "delta"} <= set(told["evidence"])
    (tmp_path / "policy.json").write_text(json.dumps({**told, "acept": [1]}))
    with pytest.raises(ConfigError, match="did you mean 'accept'"):
        Policy.load(tmp_path / "policy.json")
    (tmp_path / "policy.json").write_text("[]")
    with pytest.raises(ConfigError, match="not a policy"):
        Policy.load(tmp_path / "policy.json")


def test_what_cannot_be_proved_is_refused_and_everything_goes_to_the_last_tier(plain):
    few = calibrate(samples_of(plain, 30), 0.1, confidence="given")
    bad = calibrate(samples_of(plain, 600), 0.002, 0.05, confidence="given")
    for policy, why in ((few, "too few: the very least is 33"), (bad, "too few: the very least is 2246")):
        assert policy.accept == ("never", "never")
        assert policy.evidence is not None
        assert (policy.evidence.proved, policy.evidence.accepted, policy.evidence.saved) == (False, 0, 0.0)
        assert policy.evidence.bound is None
        assert "everything goes to the last tier" in policy.guarantee
        assert why in policy.guarantee
    wrong = samples_of(plain, 600, right=[False, False, True])
    policy = calibrate(wrong, 0.1, confidence="given")
    assert policy.accept == ("never", "never")
    assert "accepted answers were wrong" in policy.guarantee


def test_a_confidence_that_tells_nothing_or_the_opposite_breaks_no_promise(routing):
    rng = np.random.default_rng(4)
    right = np.stack([rng.random(900) < 0.7, np.ones(900, bool)], 1)
    for sure in (rng.random((900, 1)), 1 - right[:, :1] + 0.01 * rng.random((900, 1))):
        rule, evidence = prove(
            routing.Table(right, np.tile([1.0, 9.0], (900, 1)), sure, None), 0.1, 0.1, seed=0
        )
        assert not evidence.proved
        assert rule.accept == (np.inf,)


def test_samples_are_rows_of_a_file_and_must_fit_together(plain, tmp_path):
    rows = [sample.model_dump(mode="json") for sample in samples_of(plain, 40)]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_samples(path) == samples_of(plain, 40)
    path.write_text(json.dumps({**rows[0], "righ": []}))
    with pytest.raises(ConfigError, match="righ"):
        read_samples(path)
    samples = samples_of(plain, 40)
    with pytest.raises(DataError, match="29 labelled requests"):
        calibrate(samples[:29], 0.1, confidence="given")
    with pytest.raises(DataError, match="sample 40"):
        calibrate([*samples[:39], Sample(text="x", right=(True, True), sure=(0.5,))], 0.1, confidence="c")
    with pytest.raises(DataError, match="a cost is unknown"):
        calibrate(samples_of(plain, 40, cost=[1, None, 20]), 0.1, confidence="given")
    with pytest.raises(DataError, match="costs nothing"):
        calibrate(samples_of(plain, 40, cost=[0, 0, 0]), 0.1, confidence="given")
    with pytest.raises(UsageError, match="2 costs for 3 tiers"):
        calibrate(samples, 0.1, confidence="given", costs=(1, 2))
    with pytest.raises(UsageError, match="neither confidences nor a classifier"):
        calibrate(samples_of(plain, 40, sure=[]), 0.1)
    with pytest.raises(UsageError, match="just if a confidence is named"):
        calibrate(samples, 0.1)
    with pytest.raises(UsageError, match="probabilities"):
        calibrate(samples, 0, confidence="given")
    with pytest.raises(UsageError, match="2 tiers are named"):
        calibrate(samples, 0.1, confidence="given", tiers=("a", "b"))


def test_a_cost_may_be_given_where_samples_do_not_tell(plain):
    told = calibrate(samples_of(plain, 600), 0.15, confidence="given").evidence
    given = calibrate(samples_of(plain, 600, cost=[]), 0.15, confidence="given", costs=(1, 4, 20)).evidence
    assert told is not None
    assert given is not None
    assert (given.unit, given.saved) == ("given", pytest.approx(told.saved))
