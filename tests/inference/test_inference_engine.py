"""The engine: whatever joins, leaves or fails beside it, a request gets the text that it would get alone."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from random import Random

import pytest
import torch
from tests.inference.conftest import awake

from glasshouse.core.errors import GlasshouseError, UsageError
from glasshouse.inference import LanguageModel
from glasshouse.inference.constraint import GrammarState
from glasshouse.inference.engine import Completion, Engine, EngineSettings
from glasshouse.inference.native_runner import NativeRunner
from glasshouse.inference.request import Delta, Event, Finish, Grammar, PromptRead, QueueFullError, Request
from glasshouse.inference.sampling import Sampling
from glasshouse.model import ModelConfig, Transformer
from glasshouse.model.lora import LoRAConfig, add_adapter, linear_maps, remove_adapter
from glasshouse.tokenizer import Tokenizer

PROMPT = tuple(range(40, 75))


@pytest.fixture(params=["torch", "native"])
def runner(request: pytest.FixtureRequest, transformer: Transformer) -> str:
    if request.param == "native" and (reason := NativeRunner.supports(transformer)):
        pytest.skip(reason)
    return request.param


@pytest.fixture
def engine(model: LanguageModel, runner: str) -> Iterator[Engine]:
    made = Engine(model, EngineSettings(runner=runner))  # type: ignore[arg-type]
    yield made
    made.close()
    assert made.stats().pages_in_use == 0


def some_requests(count: int, seed: int, **changes: object) -> list[Request]:
    """Prompts with common beginnings, greedy and sampled, short and long."""
    random, base = Random(seed), [Random(9).randrange(300) for _ in range(60)]
    requests = []
    for _ in range(count):
        cut = random.randint(0, 60)
        prompt = (*base[:cut], *(random.randrange(300) for _ in range(random.randint(1, 30))))
        sampling = Sampling(temperature=random.choice([0.0, 0.9]), seed=random.randrange(5))
        options = {"prompt": prompt, "max_new_tokens": random.randint(1, 25), "sampling": sampling}
        requests.append(Request(**{**options, **changes}))  # type: ignore[arg-type]
    return requests


def run_all(engine: Engine, requests: list[Request]) -> list[list[Completion]]:
    """All at once, from one thread."""
    done = [[Completion() for _ in range(request.n)] for request in requests]
    left = threading.Semaphore(0)

    def receiver(mine: list[Completion]):
        def deliver(event: Event) -> None:
            if isinstance(event, Delta):
                made = mine[event.choice]
                made.text += event.text
                made.ids += event.ids
                made.scores += event.scores
                if event.finish:
                    made.finish = event.finish
                    left.release()

        return deliver

    for request, mine in zip(requests, done, strict=True):
        engine.submit(request, receiver(mine))
    for _ in range(sum(request.n for request in requests)):
        assert left.acquire(timeout=60)
    return done


def test_texts_are_those_of_the_plain_loop(engine: Engine, model: LanguageModel) -> None:
    """Greedy and sampled, alone one after the other and all at once: the ids of `generate_batch`."""
    requests = some_requests(24, 1)
    expected = [
        model.generate_batch([r.prompt], r.max_new_tokens, stop_ids=(), **r.sampling.model_dump())[0]
        for r in requests
    ]
    assert [made[0].ids for made in run_all(engine, requests)] == expected
    assert [engine.complete(request)[0].ids for request in requests] == expected
    assert engine.stats().cached_tokens > 0


@pytest.mark.parametrize("squeezed", [False, True], ids=["room for all", "too few pages"])
def test_deterministic_texts_and_scores_are_equal_to_the_bit(
    model: LanguageModel, runner: str, squeezed: bool
) -> None:
    """Batched, chunked, prefix-shared, speculative, given way: nothing changes a bit of what is told."""
    requests = some_requests(12, 2, logprobs=2, max_new_tokens=50)
    settings = {"deterministic": True, "runner": runner}
    expected = []
    for request in requests:
        plain = Engine(model, EngineSettings.parse({**settings, "draft_tokens": 0, "max_rows": 1}))
        expected.append(plain.complete(request)[0])
        plain.close()
    size = plain.runner.page_bytes / plain.runner.page_tokens
    settings |= {"draft_tokens": 4, "step_tokens": 16, "cache_bytes": int(size * 160) if squeezed else None}
    crowded = Engine(model, EngineSettings.parse(settings))
    assert [made[0] for made in run_all(crowded, requests)] == expected
    stats = crowded.stats()
    assert stats.pages_in_use == 0
    assert stats.cached_tokens > 0
    assert (stats.preemptions > 0) == squeezed
    crowded.close()


def test_guesses_come_true_and_save_steps(model: LanguageModel, runner: str) -> None:
    """A text that repeats itself takes fewer steps than tokens, and stays the same: with settings that
    depend on the text so far, and without."""
    biased = Sampling(logit_bias={7: 30.0, 8: 30.0}, frequency_penalty=2.0)
    for sampling in (biased, Sampling()):
        requests = [Request(prompt=(start,), max_new_tokens=110, sampling=sampling) for start in range(6)]
        texts, steps = [], []
        for most in (0, 8):
            engine = Engine(model, EngineSettings.parse({"draft_tokens": most, "runner": runner}))
            texts.append([engine.complete(request)[0].ids for request in requests])
            steps.append(engine.stats().steps)
            engine.close()
        assert texts[0] == texts[1]
        assert steps[1] < steps[0]


def test_choices_share_the_prompt_and_differ(engine: Engine, model: LanguageModel) -> None:
    """n samples of one prompt: the texts of n equal prompts in a batch, the prompt's full pages read once."""
    request = Request(prompt=PROMPT, max_new_tokens=12, sampling=Sampling(temperature=1.0, seed=3), n=4)
    found = [choice.ids for choice in engine.complete(request)]
    assert found == model.generate_batch([PROMPT] * 4, 12, stop_ids=(), temperature=1.0, seed=3)
    assert len({tuple(ids) for ids in found}) == 4
    assert engine.stats().cached_tokens == 3 * 32


def test_events_come_in_order(engine: Engine) -> None:
    """The prompt first, then deltas, the last with a reason; nothing after it."""
    first, *deltas = engine.events(Request(prompt=PROMPT, max_new_tokens=5))
    assert first == PromptRead(0)
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert [delta.finish for delta in deltas if isinstance(delta, Delta)][:-1] == [None] * (len(deltas) - 1)
    again = next(iter(engine.events(Request(prompt=PROMPT, max_new_tokens=5))))
    assert again == PromptRead(32)


def test_every_way_to_stop(engine: Engine, model: LanguageModel) -> None:
    """A stop string, a stop id, the limit, the context's end, and no new token at all."""
    whole = engine.complete(Request(prompt=PROMPT, max_new_tokens=30))[0]
    assert whole.finish == Finish("length")
    assert len(whole.ids) == 30
    stop = whole.text[6:9]
    cut = engine.complete(Request(prompt=PROMPT, max_new_tokens=30, stop=("nowhere", stop)))[0]
    assert cut.finish == Finish("stop", stop)
    assert cut.text == whole.text[: whole.text.index(stop)]
    token = whole.ids[10]
    ended = engine.complete(Request(prompt=PROMPT, max_new_tokens=30, stop_ids=frozenset({token})))[0]
    assert ended.finish == Finish("stop", token)
    assert ended.ids == whole.ids[: whole.ids.index(token)]
    full = engine.complete(Request(prompt=PROMPT))[0]
    assert full.finish == Finish("length")
    assert len(full.ids) == model.context - len(PROMPT)
    none = engine.complete(Request(prompt=PROMPT, max_new_tokens=0, n=2))
    assert [(made.ids, made.finish) for made in none] == [([], Finish("length"))] * 2


def test_scores_are_the_models(engine: Engine, model: LanguageModel) -> None:
    """Log-probabilities of new and prompt tokens are those of scoring; alternatives hold the same floats."""
    request = Request(prompt=PROMPT, max_new_tokens=8, logprobs=3, prompt_logprobs=2)
    read, *deltas = engine.events(request)
    assert isinstance(read, PromptRead)
    assert read.scores is not None
    assert len(read.scores) == len(PROMPT)
    assert read.scores[0] is None
    ids = [token for delta in deltas if isinstance(delta, Delta) for token in delta.ids]
    scores = [score for delta in deltas if isinstance(delta, Delta) for score in delta.scores]
    assert [score.id for score in scores] == ids
    expected = model.score_batch([PROMPT[:1]], [[*PROMPT[1:], *ids]])[0].tolist()
    told = [score.logprob for score in (*read.scores[1:], *scores) if score]
    assert told == pytest.approx(expected, abs=1e-4)
    assert all(len(score.top) == 3 and score.top[0] == (score.id, score.logprob) for score in scores)
    again = next(iter(engine.events(request)))
    assert isinstance(again, PromptRead)
    assert again.cached == 0
    assert again.scores == read.scores


def test_prompt_scores_survive_chunks(model: LanguageModel) -> None:
    """A prompt that is read in pieces is scored as one read at once."""
    request = Request(prompt=tuple(range(100)), max_new_tokens=0, prompt_logprobs=0)
    scores = []
    for step_tokens in (512, 16):
        engine = Engine(model, EngineSettings(step_tokens=step_tokens))
        read = next(iter(engine.events(request)))
        assert isinstance(read, PromptRead)
        assert read.scores is not None
        scores.append([score.logprob for score in read.scores if score])
        engine.close()
    assert len(scores[0]) == 99
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)


def test_a_grammar_is_followed(engine: Engine, model: LanguageModel) -> None:
    """Also with guesses, penalties and noise beside it."""
    grammar = Grammar("regex", r"(ab){3,5}c")
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature=temperature, frequency_penalty=0.5)
        request = Request(prompt=PROMPT, max_new_tokens=40, grammar=grammar, sampling=sampling, n=2)
        for made in engine.complete(request):
            assert made.text in ("abababc", "ababababc", "abababababc")
            assert made.finish is not None
            assert made.finish.reason == "stop"


def test_an_id_that_stands_for_no_token_is_never_chosen(tokenizer: Tokenizer) -> None:
    """Embeddings are often padded beyond the tokenizer."""
    padded = awake(ModelConfig(vocab_size=tokenizer.vocab_size * 4, hidden_size=32, head_dim=16))
    engine = Engine(LanguageModel(padded, tokenizer))
    for temperature in (0.0, 1.5):
        (made,) = engine.complete(
            Request(prompt=PROMPT, max_new_tokens=60, sampling=Sampling(temperature=temperature))
        )
        assert made.finish == Finish("length")
        assert max(made.ids) < tokenizer.vocab_size
    engine.close()


def test_an_adapter_changes_its_request_alone(transformer: Transformer, tokenizer: Tokenizer) -> None:
    """Requests with and without it run together; pages of the one are not the other's."""
    add_adapter(transformer, LoRAConfig(r=2), name="other")
    for _, linear in linear_maps(transformer):
        torch.nn.init.normal_(linear.adapters["other"].b, std=0.5)  # type: ignore[index]
    try:
        engine = Engine(LanguageModel(transformer, tokenizer), EngineSettings(deterministic=True))
        requests = [Request(prompt=PROMPT, max_new_tokens=9, adapter=a) for a in (None, "other") * 3]
        alone = [engine.complete(request)[0].ids for request in requests[:2]]
        assert alone[0] != alone[1]
        assert [made[0].ids for made in run_all(engine, requests)] == alone * 3
        with pytest.raises(UsageError, match="no adapter called 'missing'"):
            engine.complete(Request(prompt=PROMPT, adapter="missing"))
        engine.close()
    finally:
        remove_adapter(transformer, "other")


def test_embeddings_are_means_of_hidden_states(engine: Engine, model: LanguageModel) -> None:
    """Read in chunks among other requests, from several threads at once."""
    prompts = [list(range(start, start + 90)) for start in range(6)]
    found: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(engine.embed(prompts))) for _ in range(3)]
    for thread in threads:
        thread.start()
    run_all(engine, some_requests(6, 3))
    for thread in threads:
        thread.join()
    with torch.inference_mode():
        expected = torch.stack([model.model.hidden(torch.tensor([p]))[0].mean(0) for p in prompts])
    assert all(torch.allclose(means, expected, atol=1e-4) for means in found)
    assert len(found) == 3


def test_the_deadline(engine: Engine) -> None:
    """A request whose time is over ends with what it has."""
    made = engine.complete(Request(prompt=PROMPT, timeout=0.0))[0]
    assert made.finish == Finish("timeout")
    assert engine.stats().pages_in_use == 0


def test_leaving_early_frees_the_pages(engine: Engine) -> None:
    """A reader that goes away cancels its request."""
    next(iter(engine.events(Request(prompt=PROMPT, n=3))))
    for _ in range(1000):
        if not engine.stats().pages_in_use and not engine.stats().running:
            return
        time.sleep(0.01)
    pytest.fail("the pages are still held")


def test_a_receiver_that_fails_harms_nobody_else(engine: Engine) -> None:
    """What its callback raises stays with it."""

    def broken(event: Event) -> None:
        raise RuntimeError("gone")

    engine.submit(Request(prompt=PROMPT), broken)
    assert len(engine.complete(Request(prompt=PROMPT, max_new_tokens=20))[0].ids) == 20


def test_an_error_in_a_step_ends_its_requests_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests of that step end with "error", the next ones are served."""
    with monkeypatch.context() as patched:
        patched.setattr(engine.runner, "hidden", lambda _: 1 / 0)
        ends: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ticket = engine.submit(Request(prompt=PROMPT), ends.put)
        assert ends.get() == Delta(0, "", (), (), Finish("error"))
        assert isinstance(ticket.error, ZeroDivisionError)
        for ask in (lambda: engine.complete(Request(prompt=PROMPT)), lambda: engine.embed([[1, 2]])):
            with pytest.raises(ZeroDivisionError):
                ask()
    assert engine.complete(Request(prompt=PROMPT, max_new_tokens=3))[0].finish == Finish("length")
    assert engine.stats().pages_in_use == 0


def test_what_goes_wrong_with_one_text_is_no_matter_of_the_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grammar that fails in the middle ends its own request; the one beside it in each step goes on."""
    broken = Request(prompt=PROMPT, max_new_tokens=40, grammar=Grammar("regex", "[a-z]{30}"))
    monkeypatch.setattr(GrammarState, "accept", lambda *_: 1 / 0)
    failed, whole = run_all(engine, [broken, Request(prompt=PROMPT[::-1], max_new_tokens=40)])
    assert failed[0].finish == Finish("error")
    assert whole[0].finish == Finish("length")


def test_a_full_queue_says_when_to_come_back(model: LanguageModel) -> None:
    """Requests beyond the limit are refused at once, with a time."""
    engine = Engine(model, EngineSettings(queue_limit=2, max_rows=1))

    def submit_many() -> None:
        for _ in range(50):
            engine.submit(Request(prompt=PROMPT), lambda event: None)

    with pytest.raises(QueueFullError) as caught:
        submit_many()
    assert caught.value.retry_after >= 1
    assert 2 <= engine.stats().waiting <= 3
    engine.close()
    assert engine.stats().waiting == engine.stats().running == 0


def test_bad_requests_are_refused_at_once(engine: Engine) -> None:
    """In the caller's thread, before anything runs."""
    for request, word in [
        (Request(prompt=()), "empty"),
        (Request(prompt=(1,) * 200), "200 tokens"),
        (Request(prompt=(1,), n=0), "choices"),
        (Request(prompt=(1,), sampling=Sampling(logit_bias={999: 1.0})), "999"),
        (Request(prompt=(1,), grammar=Grammar("regex", "(")), "regex"),
    ]:
        with pytest.raises(UsageError, match=word):
            engine.submit(request, lambda event: None)


def test_a_closed_engine_takes_nothing(model: LanguageModel) -> None:
    """Closing lets what runs finish if it is given the time, and cancels it otherwise."""
    for drain, reason in ((60.0, "length"), (0.0, "cancelled")):
        engine = Engine(model)
        ends: list[Finish] = []
        engine.submit(
            Request(prompt=PROMPT, n=4),
            lambda event, ends=ends: (
                ends.append(event.finish) if isinstance(event, Delta) and event.finish else None
            ),
        )
        engine.close(drain)
        assert [finish.reason for finish in ends] == [reason] * 4
        with pytest.raises(GlasshouseError, match="closed"):
            engine.submit(Request(prompt=PROMPT), lambda event: None)
        engine.close()


@pytest.mark.parametrize("seed", range(4))
def test_after_any_storm_no_page_is_held(model: LanguageModel, runner: str, seed: int) -> None:
    """Cancellations, deadlines, choices, stops, grammars, failing readers, embeddings, too few pages."""
    random = Random(seed)
    settings = {"cache_bytes": 110_000, "max_rows": 6, "step_tokens": 32, "runner": runner}
    engine = Engine(model, EngineSettings.parse(settings))
    total = engine.stats().pages_total
    assert 0 < total * engine.runner.page_bytes <= 110_000
    ends: dict[int, int] = {}
    wanted = 0

    def receiver(number: int):
        def deliver(event: Event) -> None:
            if isinstance(event, Delta) and event.finish:
                ends[number] = ends.get(number, 0) + 1
            elif number % 7 == 3:
                raise RuntimeError("gone")

        return deliver

    tickets = []
    for number, request in enumerate(some_requests(60, seed, logprobs=1)):
        changes = {
            "n": random.choice([1, 1, 2, 3]),
            "timeout": random.choice([None, None, 0.0, 0.02]),
            "stop": random.choice([(), ("a", "e")]),
            "grammar": random.choice([None, None, Grammar("regex", "[a-z ]{2,9}")]),
            "prompt_logprobs": random.choice([None, None, 1]),
        }
        request = Request(**{**request.__dict__, **changes})
        wanted += request.n
        tickets.append(engine.submit(request, receiver(number)))
        if random.random() < 0.3:
            random.choice(tickets).cancel()
        if random.random() < 0.1:
            engine.embed([request.prompt])
        assert engine.stats().pages_in_use <= total
    engine.close(60)
    assert sum(ends.values()) == wanted
    assert engine.stats().pages_in_use == 0


def test_events_for_asyncio(engine: Engine) -> None:
    """The same events, awaited; who leaves early cancels the request."""
    request = Request(prompt=PROMPT, max_new_tokens=20)

    async def read(limit: int) -> list[Event]:
        events: list[Event] = []
        stream = engine.stream(request)
        async for event in stream:
            events.append(event)
            if len(events) == limit:
                break
        await stream.aclose()
        return events

    async def both() -> tuple[list[Event], list[Event]]:
        return await asyncio.gather(read(1), read(1000))

    early, whole = asyncio.run(both())
    assert len(early) == 1
    text = "".join(event.text for event in whole if isinstance(event, Delta))
    assert text == engine.complete(request)[0].text
    engine.close(60)
    assert engine.stats().pages_in_use == 0
