"""Monitor: what every call comes to reaches all watchers, and the call itself is not changed."""

import asyncio
import logging

import pytest

from glasshouse.llm import Completion, Note, Usage
from glasshouse.llm.errors import InvalidOutputError, RateLimitedError
from glasshouse.llm.monitoring.judge import Judge
from glasshouse.llm.monitoring.monitor import Monitor

KEY = "sk-live-0123456789abcdef"


def run(work):
    return asyncio.run(work)


def test_a_call_is_told_with_its_numbers_and_comes_back_unchanged(scripted, ask, seen):
    reply = Completion(
        "It is.",
        "stop",
        Usage(12, 3, 5, 2, 1),
        "m-2026",
        cost=0.25,
        ignored=("seed",),
        first_token_seconds=0.5,
    )
    labels = {"prompt": "summary", "version": "3", "experiment": "tone", "arm": "b"}
    assert run(Monitor(scripted([reply], name="openai:m"), seen).complete(ask(labels=labels))) is reply
    (call,) = seen.calls
    assert (call.asked, call.model, call.usage, call.cost) == ("openai:m", "m-2026", reply.usage, 0.25)
    assert (call.prompt, call.version, call.experiment, call.arm) == ("summary", "3", "tone", "b")
    assert (call.finish, call.error, call.ignored, call.refused) == ("stop", None, ("seed",), False)
    assert call.first_token_seconds == 0.5
    assert call.request is None
    assert call.reply is None


def test_what_nobody_told_is_none(scripted, ask, seen):
    run(Monitor(scripted([Completion("Yes.", "stop")]), seen).complete(ask()))
    (call,) = seen.calls
    assert call.usage is None
    assert call.cost is None
    assert call.model == "scripted"


def test_a_failure_is_raised_as_it_was_and_told_by_kind(scripted, ask, seen):
    error = RateLimitedError("too many", status=429, usage=Usage(7, 0), cost=0.01)
    with pytest.raises(RateLimitedError) as raised:
        run(Monitor(scripted([error]), seen).complete(ask()))
    assert raised.value is error
    (call,) = seen.calls
    assert (call.error, call.status, call.usage, call.cost, call.finish) == (
        "RateLimited",
        429,
        Usage(7, 0),
        0.01,
        None,
    )
    assert call.failed


def test_no_key_from_an_errors_message_reaches_a_watcher_or_a_log(scripted, ask, seen, caplog):
    class Clumsy:
        def record(self, call):
            raise ValueError(f"cannot write with {KEY}")

        def judged(self, call, verdict):
            raise ValueError(KEY)

        def flush(self):
            pass

    monitor = Monitor(scripted([ValueError(f"bad header Authorization: Bearer {KEY}")]), Clumsy(), seen)
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="Bearer"):
        run(monitor.complete(ask()))
    assert KEY not in repr(seen.calls)
    assert KEY not in caplog.text
    assert "Clumsy failed with ValueError" in caplog.text


def test_no_password_from_an_address_reaches_a_watcher(scripted, ask, seen):
    run(Monitor(scripted(name=f"https://me:{KEY}@host:8000/v1#m@2"), seen).complete(ask()))
    assert seen.calls[0].asked == "https://host:8000/v1#m@2"
    assert KEY not in repr(seen.calls)


def test_what_a_foreign_error_carries_is_left_alone(scripted, ask, seen):
    error = ValueError("no")
    error.status, error.usage = {"key": KEY}, KEY
    with pytest.raises(ValueError, match="no"):
        run(Monitor(scripted([error]), seen).complete(ask()))
    assert (seen.calls[0].status, seen.calls[0].usage) == (None, None)


def test_a_watcher_that_fails_breaks_no_call_and_is_told_of_once(scripted, ask, seen, caplog):
    class Broken:
        def record(self, call):
            raise OSError

    monitor = Monitor(scripted(), Broken(), seen)
    for _ in range(3):
        assert run(monitor.complete(ask())).text == "Yes."
    assert len(seen.calls) == 3
    assert caplog.text.count("Broken failed") == 1


def test_notes_of_layers_tell_tries_cache_and_arm(scripted, ask, seen):
    retry = Note("retry", "", {"tries": 4, "validation_failures": 2})
    arm = Note("experiment", "", {"experiment": "tone", "arm": "a"})
    kept = Note("cache", "", {"hit": False})
    hit = Note("cache", "", {"hit": True})
    outcomes = [
        Completion("a", "stop", Usage(5, 1), notes=(retry, arm, kept)),
        Completion("a", "stop", Usage(), cost=0.0, notes=(retry, kept, hit)),
    ]
    monitor = Monitor(scripted(outcomes), seen)
    for _ in range(2):
        run(monitor.complete(ask()))
    asked, cached = seen.calls
    assert (asked.tries, asked.validation_failures, asked.cache_hit) == (4, 2, False)
    assert (asked.experiment, asked.arm) == ("tone", "a")
    assert (cached.tries, cached.validation_failures, cached.cache_hit) == (1, 0, True)
    assert cached.usage == Usage()  # a hit needs no tokens: known, and 0


def test_a_reply_that_never_followed_its_schema_counts(scripted, ask, seen):
    error = InvalidOutputError("no JSON", text="x", problem="no object")
    with pytest.raises(InvalidOutputError):
        run(Monitor(scripted([error]), seen).complete(ask()))
    assert (seen.calls[0].error, seen.calls[0].validation_failures) == ("InvalidOutput", 1)


@pytest.mark.parametrize("reply", [Completion("", "refusal"), Completion("", "stop", refusal="I cannot.")])
def test_a_refusal_is_no_error(scripted, ask, seen, reply):
    run(Monitor(scripted([reply]), seen).complete(ask()))
    assert seen.calls[0].refused
    assert not seen.calls[0].failed


def test_a_stream_is_told_when_it_ends_with_the_time_of_its_first_piece(scripted, ask, seen):
    async def read():
        pieces = []
        async for chunk in Monitor(scripted(["One two three."]), seen).stream(ask()):
            assert seen.calls == []
            pieces.append(chunk.text)
        return "".join(pieces)

    assert run(read()).strip() == "One two three."
    (call,) = seen.calls
    assert call.streamed
    assert 0 < call.first_token_seconds <= call.seconds
    assert call.usage.new_tokens == 3


def test_a_stream_that_breaks_is_told(scripted, ask, seen):
    async def read():
        async for _ in Monitor(scripted([RateLimitedError("no")], begun="It"), seen).stream(ask()):
            pass

    with pytest.raises(RateLimitedError):
        run(read())
    assert seen.calls[0].error == "RateLimited"
    assert seen.calls[0].first_token_seconds is not None


def test_who_leaves_a_stream_early_cancelled_it_and_who_has_the_reply_did_not(scripted, ask, seen):
    async def read(until):
        stream = Monitor(scripted(["One two three."]), seen).stream(ask())
        async for chunk in stream:
            if until(chunk):
                break
        await stream.aclose()

    run(read(lambda chunk: True))
    run(read(lambda chunk: chunk.completion is not None))
    assert [call.error for call in seen.calls] == ["Cancelled", None]
    assert not seen.calls[0].failed
    assert seen.calls[1].finish == "stop"


def test_a_stream_whose_reader_leaves_ends_the_stream_inside(scripted, ask, seen):
    ended = []

    class Streaming(scripted):
        async def stream(self, request):
            try:
                async for chunk in super().stream(request):
                    yield chunk
            finally:
                ended.append(True)

    async def read():
        stream = Monitor(Streaming(["One two."]), seen).stream(ask())
        await anext(stream)
        await stream.aclose()
        assert ended == [True]

    run(read())


def test_a_cancelled_call_is_told(scripted, ask, seen):
    async def ask_and_leave():
        task = asyncio.create_task(Monitor(scripted(seconds=30), seen).complete(ask()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(ask_and_leave())
    assert seen.calls[0].error == "Cancelled"


def test_a_stream_that_is_cancelled_while_it_waits_is_told(scripted, ask, seen):
    async def read_and_leave():
        async def read():
            async for _ in Monitor(scripted(seconds=30), seen).stream(ask()):
                pass

        task = asyncio.create_task(read())
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(read_and_leave())
    assert [call.error for call in seen.calls] == ["Cancelled"]


def test_embeddings_are_calls_too(scripted, seen):
    assert run(Monitor(scripted(), seen).embed(["ab"])) == [[2.0]]
    assert seen.calls[0].operation == "embeddings"


def test_content_is_kept_only_when_told_so(scripted, ask, seen):
    request = ask("My name is Ada.")
    run(Monitor(scripted(), seen, content=True).complete(request))
    assert seen.calls[0].request is request
    assert seen.calls[0].reply == "Yes."


def test_a_judge_reads_replies_after_they_have_gone_out(scripted, ask, seen):
    async def talk():
        held = asyncio.Event()

        async def slow(request, completion):
            await held.wait()
            return completion.text == "Yes."

        monitor = Monitor(scripted(["No.", "Yes."]), seen, judge=Judge(slow, "slow"), judged_share=1.0)
        assert (await monitor.complete(ask())).text == "No."
        async for _ in monitor.stream(ask()):
            pass
        assert seen.verdicts == []
        await asyncio.sleep(0)
        held.set()
        await monitor.close()

    run(talk())
    first, second = seen.calls
    assert {(call.id, verdict.score) for call, verdict in seen.verdicts} == {
        (first.id, 0.0),
        (second.id, 1.0),
    }
    assert seen.flushed == 1


def test_a_share_of_the_replies_is_judged(scripted, ask, seen):
    async def talk():
        monitor = Monitor(scripted(), seen, judge=Judge(lambda *_: 1, "one"), judged_share=0.25)
        for _ in range(400):
            await monitor.complete(ask())
            await asyncio.sleep(0)
        await monitor.close()

    run(talk())
    assert 70 <= len(seen.verdicts) <= 130  # 100, and 3.5 standard deviations


def test_a_judge_that_fails_breaks_nothing(scripted, ask, seen, caplog):
    async def talk():
        monitor = Monitor(scripted(), seen, judge=Judge(lambda *_: 1 / 0, "bad"), judged_share=1.0)
        await monitor.complete(ask())
        await monitor.close()

    run(talk())
    assert "Judge failed with ZeroDivisionError" in caplog.text
    assert len(seen.calls) == 1


def test_close_closes_what_is_inside(scripted, seen):
    inner = scripted()
    run(Monitor(inner, seen).close())
    assert inner.closed
