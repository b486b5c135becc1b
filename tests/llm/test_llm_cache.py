"""A reply is asked for once and remembered as it was; whatever is wrong with the file, calls go on."""

import asyncio
import contextlib
import json
import sqlite3
import stat
import threading
import time

import pytest

from glasshouse.llm import Chunk, Completion, Note, Usage, blocking, cache_store
from glasshouse.llm.cache import Cache
from glasshouse.llm.cache_store import CacheStore
from glasshouse.llm.errors import LLMError, RateLimitedError, ServerFaultError
from glasshouse.llm.interface import TokenLogprob


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cache.db"


def ask_once(llm, request):
    return asyncio.run(llm.complete(request))


def count(file):
    with sqlite3.connect(file) as base:
        return base.execute("select count(*) from entries").fetchone()[0]


async def read(llm, request):
    return [chunk async for chunk in llm.stream(request)]


WHOLE = Completion(
    'Ünï "code" \ud800',
    "tool_calls",
    Usage(10, 5, 3, 2, 1),
    "gpt-4o-2024-08-06",
    id="chatcmpl-1",
    tool_calls=({"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},),
    reasoning="Let me see.",
    logprobs=(TokenLogprob("Ü", -0.25, (("Ü", -0.25), ("U", -1.5))), TokenLogprob("n", float("-inf"))),
    seconds=2.0,
    first_token_seconds=0.5,
    cost=0.0125,
    ignored=("seed",),
    notes=(Note("fit", "left out 2 turns", {"turns": 2}),),
)


def test_the_second_time_nobody_is_asked(scripted, ask, file):
    """Also by a later process; and the reply is the same in everything but what this call cost."""
    inner = scripted([WHOLE])
    llm = Cache(inner, file)
    first, second = ask_once(llm, ask()), ask_once(llm, ask())
    asyncio.run(llm.close())
    third = ask_once(Cache(inner, file), ask())
    assert len(inner.asked) == 1
    same = ("text", "finish", "model", "id", "tool_calls", "refusal", "reasoning", "logprobs", "ignored")
    for hit in (second, third):
        assert [getattr(hit, name) for name in same] == [getattr(WHOLE, name) for name in same]
        assert (hit.usage, hit.cost, hit.first_token_seconds) == (Usage(), 0.0, None)
        assert hit.notes[:-1] == WHOLE.notes
        assert hit.notes[-1].details["hit"]
        assert (hit.notes[-1].details["saved"], hit.notes[-1].details["saved_tokens"]) == (0.0125, 15)
    assert first.notes[-1] == Note("cache", "asked, and kept", {"hit": False, "kept": True})
    assert (first.usage, first.cost, first.seconds) == (WHOLE.usage, WHOLE.cost, WHOLE.seconds)
    assert (llm.hits, llm.misses, llm.saved) == (1, 1, 0.0125)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "Is it not so?"}]},
        {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Is it so?"}]},
        {"max_new_tokens": 9},
        {"temperature": 0.5, "seed": 1},
        {"top_p": 0.5},
        {"seed": 2},
        {"stop": ["x"]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "none"},
        {"output_schema": {"type": "object"}},
        {"output_schema": {"a": 1, "b": 2}},
        {"logprobs": 0},
    ],
)
def test_whatever_could_change_a_reply_is_in_the_key(scripted, ask, file, change):
    inner = scripted()
    llm = Cache(inner, file)
    plain = ask().model_dump(mode="json")
    for request in (plain, plain | change, plain, plain | change):
        ask_once(llm, type(ask()).parse(request))
    assert len(inner.asked) == 2
    other = Cache(inner, llm.store, version="2")
    ask_once(other, ask())
    ask_once(Cache(scripted(name="other"), llm.store), ask())
    assert len(inner.asked) == 3


def test_every_field_of_a_request_but_labels_is_in_the_key(scripted, ask, file):
    """So that a new one is not forgotten."""
    from glasshouse.llm import Request
    from glasshouse.llm.cache import ASKED

    assert set(ASKED) | {"labels"} == set(Request.model_fields)
    inner = scripted()
    llm = Cache(inner, file)
    ask_once(llm, ask(labels={"arm": "a"}))
    ask_once(llm, ask(labels={"arm": "b"}))
    assert len(inner.asked) == 1


def test_a_sampled_reply_is_another_each_time_unless_told_otherwise(scripted, ask, file):
    inner = scripted()
    llm = Cache(inner, file)
    for _ in range(2):
        done = ask_once(llm, ask(temperature=0.7))
        assert not done.notes
    assert len(inner.asked) == 2
    for change in ({"temperature": 0.0}, {}, {"temperature": 0.7, "seed": 1}):
        before = len(inner.asked)
        for _ in range(2):
            ask_once(llm, ask(**change))
        assert len(inner.asked) == before + 1
    always = Cache(inner, llm.store, sampled=True)
    before = len(inner.asked)
    for _ in range(3):
        ask_once(always, ask(temperature=0.7))
    assert len(inner.asked) == before + 1


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (RateLimitedError("slow"), False),
        (ServerFaultError("oops"), False),
        (Completion("I cannot.", "refusal"), False),
        (Completion("", "stop", refusal="I cannot."), False),
        (Completion("half of it", "length"), True),
        (Completion("", "stop"), True),
    ],
)
def test_failures_and_refusals_are_never_kept(scripted, ask, file, outcome, kept):
    inner = scripted([outcome])
    llm = Cache(inner, file)
    for _ in range(2):
        with contextlib.suppress(LLMError):
            ask_once(llm, ask())
    asyncio.run(llm.close())
    assert (len(inner.asked), count(file)) == ((1, 1) if kept else (2, 0))


def test_cut_replies_are_asked_anew_where_that_is_wanted(scripted, ask, file):
    inner = scripted([Completion("half of it", "length")])
    llm = Cache(inner, file, cut=False)
    assert ask_once(llm, ask()).notes[-1].details == {"hit": False, "kept": False}
    ask_once(llm, ask())
    assert len(inner.asked) == 2


def test_a_reply_has_its_time(scripted, ask, file):
    now = [1000.0]
    inner = scripted(["One.", "Two."])
    llm = Cache(inner, file, ttl=60, clock=lambda: now[0])
    ask_once(llm, ask())
    now[0] = 1059.0
    hit = ask_once(llm, ask())
    assert (hit.text, hit.notes[-1].details["age"]) == ("One.", 59.0)
    now[0] = 1060.0
    assert [ask_once(llm, ask()).text for _ in range(2)] == ["Two.", "Two."]
    assert len(inner.asked) == 2
    now[0] = 1119.0
    assert ask_once(llm, ask()).notes[-1].what == "read from the cache, 59 s old"


def test_equal_requests_at_once_are_asked_once(scripted, ask, file):
    inner = scripted([Completion("Yes.", "stop", Usage(10, 5), cost=0.5)], seconds=0.01)
    llm = Cache(inner, file)
    done = blocking.complete_all(llm, [ask(), ask("Another?")] * 50)
    assert len(inner.asked) == 2
    assert {reply.text for reply in done} == {"Yes."}
    assert sum(reply.cost for reply in done) == 1.0
    assert sum(reply.usage.new_tokens for reply in done) == 10
    assert (llm.hits, llm.misses, llm.saved) == (98, 2, 49.0)
    assert not llm._flying


def test_sampled_requests_at_once_are_asked_each(scripted, ask, file):
    inner = scripted(seconds=0.01)
    blocking.complete_all(Cache(inner, file), [ask(temperature=1.0)] * 5)
    assert len(inner.asked) == 5


def test_a_failure_is_everybodys_who_waited_for_it_and_paid_by_one(scripted, ask, file):
    inner = scripted([ServerFaultError("oops", status=500, usage=Usage(7, 0), cost=0.25)], seconds=0.01)
    llm = Cache(inner, file)

    async def main():
        return await asyncio.gather(*(llm.complete(ask()) for _ in range(5)), return_exceptions=True)

    errors = asyncio.run(main())
    assert len(inner.asked) == 1
    assert [(type(error), str(error), error.status) for error in errors] == [
        (ServerFaultError, "oops", 500)
    ] * 5
    assert sum(error.cost for error in errors) == 0.25
    assert not llm._flying


def test_who_waits_for_a_call_that_is_cancelled_asks_instead(scripted, ask, file):
    inner = scripted(seconds=0.02)
    llm = Cache(inner, file)

    async def main():
        tasks = [asyncio.create_task(llm.complete(ask())) for _ in range(4)]
        await asyncio.sleep(0.005)
        tasks[0].cancel()
        tasks[1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return [getattr(reply, "text", type(reply)) for reply in done]

    assert asyncio.run(main()) == [asyncio.CancelledError, asyncio.CancelledError, "Yes.", "Yes."]
    assert len(inner.asked) == 2


def test_a_stream_is_kept_whole_and_replayed_as_one_piece(scripted, ask, file):
    inner = scripted([Completion("Yes it is", "stop", Usage(4, 3), reasoning="Hm.", cost=0.5)])
    llm = Cache(inner, file)
    first = asyncio.run(read(llm, ask()))
    assert (len(first), first[-1].completion.notes[-1].details["hit"]) == (4, False)
    (only,) = asyncio.run(read(llm, ask()))
    assert (only.text, only.reasoning, only.completion.text) == ("Yes it is", "Hm.", "Yes it is")
    assert (only.completion.cost, only.completion.notes[-1].details["saved"]) == (0.0, 0.5)
    assert ask_once(llm, ask()).text == "Yes it is"
    assert len(inner.asked) == 1


def test_half_a_stream_is_not_kept_and_is_closed_at_once(scripted, ask, file):
    closed = []

    class Closing(scripted):
        async def stream(self, request):
            try:
                async for chunk in super().stream(request):
                    yield chunk
            finally:
                closed.append(True)

    inner = Closing(["Yes it is"])
    llm = Cache(inner, file)

    async def half():
        stream = llm.stream(ask())
        assert await anext(stream) == Chunk("Yes ")
        await stream.aclose()
        assert closed

    asyncio.run(half())
    broken = Cache(scripted([ServerFaultError("gone")], begun="Yes "), llm.store)
    with pytest.raises(ServerFaultError):
        asyncio.run(read(broken, ask()))
    asyncio.run(llm.close())
    assert count(file) == 0


def test_vectors_are_kept_by_text(scripted, file):
    class Counting(scripted):
        async def embed(self, texts):
            self.asked.append(list(texts))
            return [[len(text) / 3, -0.1] for text in texts]

    inner = Counting()
    llm = Cache(inner, file)
    assert asyncio.run(llm.embed(["a", "bb", "a"])) == [[1 / 3, -0.1], [2 / 3, -0.1], [1 / 3, -0.1]]
    asyncio.run(llm.close())
    again = Cache(inner, file)
    assert asyncio.run(again.embed(["ccc", "bb", ""])) == [[1.0, -0.1], [2 / 3, -0.1], [0.0, -0.1]]
    assert inner.asked == [["a", "bb"], ["ccc", ""]]
    assert asyncio.run(again.embed([])) == []


def test_the_longest_unused_go_where_there_is_no_room(file):
    """Against a list kept by hand, after each write."""
    now = [0.0]
    store = CacheStore(file, max_bytes=10_000, clock=lambda: now[0])
    used = []
    for step in range(60):
        now[0] += 1
        key, old = bytes([step]) * 32, bytes([step // 2]) * 32
        store.put(key, bytes(968))
        used.append(key)
        now[0] += 1
        if step % 3 == 0 and store.get(old):
            used.remove(old)
            used.append(old)
        while len(used) > 10:  # ten of a thousand bytes; then down to nine
            used = used[-9:]
        _flush(store)
        with sqlite3.connect(file) as base:
            left = {key for (key,) in base.execute("select key from entries")}
        assert left == set(used)
    store.close()


def _flush(store):
    """Wait until the thread has written what waits."""
    for _ in range(1000):
        with store._changed:
            if not store._pending and not store._used:
                return
        time.sleep(0.005)
    raise AssertionError("nothing was written")


def test_a_hit_is_a_use(file, monkeypatch):
    monkeypatch.setattr(cache_store, "BATCH_SECONDS", 0.0)
    now = [0.0]
    store = CacheStore(file, max_bytes=4_000, clock=lambda: now[0])
    for name in (b"a", b"b", b"c"):
        now[0] += 1
        store.put(name, bytes(1000))
        _flush(store)
    now[0] += 1
    assert store.get(b"a")
    _flush(store)
    for name in (b"d", b"e"):
        now[0] += 1
        store.put(name, bytes(1000))
        _flush(store)
    assert store.get(b"a")
    assert store.get(b"b") is None
    store.close()


@pytest.mark.parametrize("garbage", [b"not a database " * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_told_once_and_calls_go_on(scripted, ask, file, garbage, capfd):
    file.write_bytes(garbage)
    inner = scripted()
    llm = Cache(inner, file)
    assert [ask_once(llm, ask()).text for _ in range(3)] == ["Yes."] * 3
    assert len(inner.asked) == 3
    asyncio.run(llm.close())
    told = capfd.readouterr().err
    assert told.count("the cache cannot be used, calls go on without it") == 1
    assert str(file) in told.replace("\n", "")


def test_a_file_that_is_damaged_while_in_use_is_the_same(scripted, ask, file, capfd):
    llm = Cache(scripted(), file)
    ask_once(llm, ask())
    _flush(llm.store)
    with sqlite3.connect(file) as base:
        base.execute("drop table entries")
    assert [ask_once(llm, ask()).text for _ in range(3)] == ["Yes."] * 3
    assert capfd.readouterr().err.count("calls go on without it") == 1


def test_a_folder_that_may_not_be_written_is_the_same(scripted, ask, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    llm = Cache(scripted(), tmp_path / "file" / "cache.db")
    assert ask_once(llm, ask()).text == "Yes."
    assert capfd.readouterr().err.count("calls go on without it") == 1


def test_half_a_value_is_a_miss(scripted, ask, file):
    inner = scripted()
    llm = Cache(inner, file)
    ask_once(llm, ask())
    asyncio.run(llm.close())
    with sqlite3.connect(file) as base:
        base.execute("update entries set value = substr(value, 1, 20)")
    again = Cache(inner, file)
    ask_once(again, ask())
    ask_once(again, ask())
    assert len(inner.asked) == 2


def test_a_locked_file_delays_nobody(monkeypatch, scripted, ask, file, capfd):
    """Another process writes for a long time: reading goes on, what cannot be written is dropped and told."""
    monkeypatch.setattr(cache_store, "LOCKED_SECONDS", 0.05)
    inner = scripted()
    first = Cache(inner, file)
    ask_once(first, ask("kept"))
    asyncio.run(first.close())
    other = sqlite3.connect(file, isolation_level=None)
    llm = Cache(inner, file)
    other.execute("begin exclusive")
    assert ask_once(llm, ask("kept")).notes[-1].details["hit"]
    ask_once(llm, ask("new"))
    _flush(llm.store)
    other.execute("rollback")
    ask_once(llm, ask("new"))
    ask_once(llm, ask("new"))
    assert len(inner.asked) == 3
    asyncio.run(llm.close())
    assert count(file) == 2
    assert capfd.readouterr().err.count("locked by another process") == 1


def test_two_caches_share_a_file(scripted, ask, file):
    inner = scripted()
    one, two = Cache(inner, file), Cache(inner, file)
    ask_once(one, ask())
    _flush(one.store)
    ask_once(two, ask())
    assert len(inner.asked) == 1
    asyncio.run(one.close())
    assert ask_once(two, ask()).notes[-1].details["hit"]


def test_a_model_that_was_trained_anew_is_another_under_the_same_name(scripted, ask, file, tmp_path):
    weights = tmp_path / "run" / "model.safetensors"
    weights.parent.mkdir()
    inner = scripted(name=str(tmp_path / "run"))
    for content in (b"old", b"newer"):
        weights.write_bytes(content)
        llm = Cache(inner, file)
        for _ in range(2):
            ask_once(llm, ask())
        asyncio.run(llm.close())
    assert len(inner.asked) == 2


def test_only_the_owner_reads_the_file_and_no_prompt_or_key_is_in_it(scripted, ask, file):
    reply = Completion("The reply.", "stop", model="x")
    llm = Cache(scripted([reply], name="http://user:sk-secret@127.0.0.1/v1#x"), file)
    ask_once(llm, ask("The prompt."))
    asyncio.run(llm.close())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = b"".join(part.read_bytes() for part in file.parent.iterdir())
    assert b"The reply." in content
    assert b"The prompt." not in content
    assert b"sk-secret" not in content


def test_what_is_not_written_yet_is_written_when_the_program_ends(tmp_path):
    import subprocess
    import sys

    program = f"""
from glasshouse.llm.cache_store import CacheStore
CacheStore({str(tmp_path / "cache.db")!r}).put(b"key", b"value")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert count(tmp_path / "cache.db") == 1


def test_closing_leaves_no_thread(scripted, ask, file):
    before = set(threading.enumerate())
    llm = Cache(scripted(), file)
    ask_once(llm, ask())
    asyncio.run(llm.close())
    assert not {thread for thread in set(threading.enumerate()) - before if thread.name == "llm cache"}
    assert ask_once(llm, ask()).text == "Yes."


def test_a_request_that_is_no_json_is_asked(scripted, ask, file):
    inner = scripted()
    request = ask()
    request.messages[0]["picture"] = object()
    with pytest.raises(TypeError):
        json.dumps(request.messages)
    for _ in range(2):
        ask_once(Cache(inner, file), request)
    assert len(inner.asked) == 2
