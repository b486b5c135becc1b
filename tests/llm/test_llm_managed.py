"""Models come into memory when they are asked, stay while they answer, and leave for others."""

import asyncio
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.inference import LanguageModel
from glasshouse.llm import LocalLLM, Request, blocking
from glasshouse.llm import managed as room
from glasshouse.llm.errors import NotAbleError, TimedOutError
from glasshouse.llm.managed import LocalModels, Managed, measure
from glasshouse.model import save
from glasshouse.model.quantize import size_in_bytes
from glasshouse.tokenizer import Tokenizer

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def folders(random_model, tmp_path_factory):
    """Three models of one size with plain bytes, and one that is twice as wide."""
    tokenizer, root = Tokenizer.train([], 265), tmp_path_factory.mktemp("models")
    for name in (*NAMES, "wide"):
        width = 128 if name == "wide" else 64
        shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 128, "hidden_size": width}
        save(random_model(**shape), tokenizer, root / name)
    return root


@pytest.fixture(scope="module")
def size(folders):
    return sum(measure(folders / "a", "cpu")[:2])


@pytest.fixture
def loads(monkeypatch):
    """The names of folders in the order in which they are really opened."""
    opened, load = [], LanguageModel.load

    def counted(folder, **settings):
        opened.append(folder.name)
        return load(folder, **settings)

    monkeypatch.setattr(LanguageModel, "load", counted)
    return opened


@pytest.fixture
def managed(folders):
    """managed(ceiling) -> (the models, one `Managed` for each folder)"""
    made = []

    def make(ceiling, **settings):
        models = LocalModels(ceiling, device="cpu", **settings)
        made.append(models)
        return models, {path.name: Managed(path, models) for path in folders.iterdir()}

    yield make
    for models in made:
        models.close()


def asked(text="Hi", **changes):
    return Request.parse({"messages": [{"role": "user", "content": text}], "max_new_tokens": 8, **changes})


def names(models):
    return [name.rsplit("/", 1)[-1] for name in models.loaded()]


def test_replies_are_those_of_the_model_alone(folders, managed, size):
    _, llms = managed(2 * size)
    for name in NAMES:
        with LocalLLM.load(folders / name, device="cpu") as alone:
            expected = blocking.complete(alone, asked()).text
        assert blocking.complete(llms[name], asked()).text == expected
        pieces = list(blocking.stream(llms[name], asked()))
        assert pieces[-1].completion.text == expected
        assert pieces[-1].completion.model == str(folders / name)


def test_what_is_told_before_a_model_is_loaded_is_true_afterwards(folders, managed, size, loads):
    models, llms = managed(size)
    told = (llms["a"].can, llms["a"].context, llms["a"].name)
    assert (loads, models.loaded()) == ([], {})
    with LocalLLM.load(folders / "a", device="cpu") as llm:
        assert told == (llm.can, llm.context, llm.name)
    assert (
        blocking.wait(llms["a"].count_tokens(asked()))
        == blocking.complete(llms["a"], asked()).usage.prompt_tokens
    )


def test_the_longest_unused_goes(managed, size, loads):
    """Against a list kept by hand."""
    models, llms = managed(2 * size)
    held = []
    for name in "abacbbcaabccab":
        blocking.complete(llms[name], asked())
        held = [*(other for other in held if other != name), name][-2:]
        assert names(models) == held
        assert sum(models.loaded().values()) <= models.ceiling
    expected, held = [], []
    for name in "abacbbcaabccab":
        if name not in held:
            expected.append(name)
        held = [*(other for other in held if other != name), name][-2:]
    assert loads == expected


def test_sizes_are_those_of_the_tensors(folders, managed, size):
    models, llms = managed(2**30)
    blocking.complete(llms["a"], asked())
    weights, cache, context = measure(folders / "a", "cpu")
    with LocalLLM.load(folders / "a", device="cpu") as llm:
        assert weights == 2 * size_in_bytes(llm._engine.model.model)
        assert context == llm.context
    engine = models._seats[str(folders / "a")].llm._engine
    held = engine.stats().pages_total * engine.runner.page_bytes
    assert cache - engine.runner.page_bytes < held <= cache
    assert models.loaded() == {str(folders / "a"): weights + cache}
    half = measure(folders / "a", "cuda")[0]
    assert half == size_in_bytes(LanguageModel.load(folders / "a", device="cpu", dtype="bfloat16").model)


def test_a_model_larger_than_the_ceiling_is_an_error_and_loads_nothing(managed, size, loads):
    models, llms = managed(size)
    with pytest.raises(
        NotAbleError, match=r"needs [\d,]+ bytes .* may take .*wide\)\. Fix: raise the ceiling"
    ):
        blocking.complete(llms["wide"], asked())
    assert (loads, models.loaded()) == ([], {})
    assert blocking.complete(llms["a"], asked()).text


def test_a_model_that_is_not_there_is_an_error_at_once(managed, size, tmp_path):
    models, _ = managed(size)
    with pytest.raises(UsageError, match="no such model folder"):
        Managed(tmp_path / "nothing", models)


def test_many_requests_wait_for_one_load(managed, size, loads):
    _, llms = managed(size)
    done = blocking.complete_all(llms["a"], [asked(f"Say {n}") for n in range(20)])
    assert len(done) == 20
    assert loads == ["a"]


def test_a_model_that_answers_stays(managed, size, loads):
    """Another one waits until its stream has ended."""
    models, llms = managed(size)

    async def main():
        stream = llms["a"].stream(asked(max_new_tokens=60))
        await anext(stream)
        other = asyncio.create_task(llms["b"].complete(asked()))
        await asyncio.sleep(0.05)
        assert (names(models), other.done()) == (["a"], False)
        pieces = [chunk async for chunk in stream]
        assert pieces[-1].completion.usage.new_tokens == 60
        assert (await other).text
        assert names(models) == ["b"]

    asyncio.run(main())


def test_who_stops_reading_lets_the_model_go(managed, size):
    models, llms = managed(size)

    async def main():
        stream = llms["a"].stream(asked(max_new_tokens=60))
        await anext(stream)
        await stream.aclose()
        await llms["b"].complete(asked())
        assert names(models) == ["b"]

    asyncio.run(main())


def test_no_room_in_time_is_an_error(managed, size):
    _, llms = managed(size, wait=0.05)

    async def main():
        stream = llms["a"].stream(asked(max_new_tokens=60))
        await anext(stream)
        with pytest.raises(TimedOutError, match=r"no room for [\d,]+ bytes within 0\.05 s"):
            await llms["b"].complete(asked())
        assert [chunk async for chunk in stream][-1].completion is not None
        assert (await llms["b"].complete(asked())).text

    asyncio.run(main())


def test_who_waits_is_not_overtaken_for_ever(managed, size):
    """Requests to a loaded model keep coming; the other model has its turn all the same."""
    _, llms = managed(size)

    async def main():
        served = 0

        async def keep_busy():
            nonlocal served
            while not other.done():
                await llms["a"].complete(asked())
                served += 1

        await llms["a"].complete(asked())
        other = asyncio.create_task(llms["b"].complete(asked()))
        await asyncio.wait_for(asyncio.gather(*(keep_busy() for _ in range(4))), 60)
        assert (await other).text

    asyncio.run(main())


def test_a_request_that_is_cancelled_while_its_model_loads_holds_nothing(managed, size):
    models, llms = managed(size)

    async def main():
        waiting = asyncio.create_task(llms["a"].complete(asked()))
        await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (await llms["b"].complete(asked())).text
        assert names(models) == ["b"]

    asyncio.run(main())


def test_a_load_that_fails_leaves_the_rest_as_it_was(managed, size, monkeypatch):
    models, llms = managed(2 * size)
    blocking.complete(llms["a"], asked())

    def broken(path, device):
        raise MemoryError("not enough")

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "load", broken)
        with pytest.raises(MemoryError):
            blocking.complete(llms["b"], asked())
    assert names(models) == ["a"]
    assert blocking.complete(llms["b"], asked()).text
    assert names(models) == ["a", "b"]


def test_an_unloaded_model_leaves_memory(managed, size, folders):
    models, llms = managed(size)
    blocking.complete(llms["a"], asked())
    model = weakref.ref(models._seats[str(folders / "a")].llm._engine.model.model)
    blocking.complete(llms["b"], asked())
    gc.collect()
    assert model() is None


def test_event_loops_of_several_threads_share_the_models(managed, size):
    models, llms = managed(2 * size)
    expected = {name: blocking.complete(llms[name], asked()).text for name in NAMES}

    def work(number):
        name = NAMES[number % 3]
        return asyncio.run(llms[name].complete(asked())).text == expected[name]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(18)))
    assert all(seat.users == 0 for seat in models._seats.values())


def test_without_a_ceiling_it_is_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda device: 1000 if device == torch.device("cpu") else None)
    models = LocalModels(device="cpu")
    assert models.ceiling == 500
    models.close()


def test_closing_ends_everything(managed, size):
    models, llms = managed(size)
    blocking.complete(llms["a"], asked())
    models.close()
    assert models.loaded() == {}
    with pytest.raises(NotAbleError, match="closed"):
        blocking.complete(llms["a"], asked())


def test_closing_refuses_who_still_waits(managed, size):
    models, llms = managed(size)

    async def main():
        stream = llms["a"].stream(asked(max_new_tokens=60))
        await anext(stream)
        waiting = [asyncio.create_task(llms["b"].complete(asked())) for _ in range(3)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(models.close)
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in done] == [NotAbleError] * 3
        await stream.aclose()

    asyncio.run(main())
