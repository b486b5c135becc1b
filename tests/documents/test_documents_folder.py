"""A folder of documents into one file: what finished is kept, what failed is told, nothing is paid twice."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from glasshouse.core.errors import ConfigError, DataError, StorageError, UsageError
from glasshouse.documents.folders.find import find_documents
from glasshouse.documents.folders.folder import Job, Outcome, analyze_documents
from glasshouse.documents.folders.results_file import ResultsFile, read_results
from glasshouse.documents.result import ChunkResult, Result
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document
from glasshouse.llm.errors import BadRequestError, InvalidOutputError, NotAllowedError, UnreachableError
from glasshouse.llm.interface import Completion, Request, Usage


class TwoCalls:
    """An analyzer of two calls, one after the other, for each document."""

    def __init__(self, llm):
        self.llm = llm

    async def run(self, document: Document, task, *, schema=None, instructions=None) -> Result:
        for part in ("first", "second"):
            text = f"{part}: {document.text}"
            request = Request.parse({"messages": [{"role": "user", "content": text}], "temperature": 0})
            try:
                completion = await self.llm.complete(request)
            except InvalidOutputError as error:
                completion = Completion(error.text, "stop")
        readable = completion.text != "garbage"
        chunk = ChunkResult(
            index=0, start=0, end=len(document.text), success=readable, raw=(completion.text,)
        )
        return Result(
            document=document.name,
            task=task,
            domain="general",
            model=self.llm.name,
            prompt="extraction@1",
            success=readable,
            error=None if readable else "no reply can be read",
            value={"said": completion.text},
            chunks=1,
            chunk_results=(chunk,),
            parsing_failed=not readable,
            sha256=sha256(document.text.encode("utf-8", "surrogatepass")).hexdigest(),
        )


def read(path: Path) -> Document:
    text = path.read_text(encoding="utf-8")
    if "broken" in text:
        raise DataError("this file is broken", where=path.name, fix="mend it")
    builder = Builder()
    builder.add(text)
    return builder.document(path.name, "text")


@pytest.fixture
def reports(tmp_path) -> Path:
    folder = tmp_path / "reports"
    (folder / "deep").mkdir(parents=True)
    for number in range(6):
        (folder / ("deep" if number % 2 else "") / f"{number}.txt").write_text(f"Report {number}.")
    return folder


@pytest.fixture
def analyze(reports, tmp_path):
    """analyze(llm, ...) -> (Outcome, results by name)"""

    def call(llm, *, job=None, **settings) -> tuple[Outcome, dict[str, Result]]:
        found = find_documents([reports], (".txt",))
        job = job or Job("extraction", "general")
        out = tmp_path / "results.jsonl"
        outcome = analyze_documents(found, out, llm, TwoCalls, job, read, **settings)
        results = list(read_results(out))
        assert len({result.document for result in results}) == len(results), "a document stands twice"
        return outcome, {result.document: result for result in results}

    return call


def prompts(llm) -> list[str]:
    return [request.messages[0]["content"] for request in llm.asked]


def test_each_document_gives_one_line_under_its_place_in_the_folder(analyze, scripted, reports):
    outcome, results = analyze(scripted())
    names = {"0.txt", "2.txt", "4.txt", "deep/1.txt", "deep/3.txt", "deep/5.txt"}
    assert set(results) == names
    assert (outcome.documents, outcome.analyzed, outcome.failed) == (6, 6, 0)
    for name, result in results.items():
        assert result.file_sha256 == sha256((reports / name).read_bytes()).hexdigest()


def test_documents_are_asked_about_at_the_same_time_but_no_more_than_allowed(analyze, scripted):
    llm = scripted(seconds=0.01)
    analyze(llm, at_once=3)
    assert llm.most_at_once == 3


def test_the_same_again_asks_nothing(analyze, scripted):
    analyze(scripted())
    again = scripted()
    outcome, results = analyze(again)
    assert again.asked == []
    assert outcome.analyzed == 0
    assert len(results) == 6


def test_a_document_half_done_pays_only_for_what_is_missing(analyze, scripted):
    """The server goes away at the fourth call; the next run makes exactly the calls that have no reply."""
    first = scripted(["Yes."] * 3 + [UnreachableError("gone"), UnreachableError("gone")])
    outcome, before = analyze(first, at_once=1)
    assert isinstance(outcome.stopped, UnreachableError)
    assert len(before) == 1, "a document whose calls did not all succeed is not done"
    second = scripted()
    outcome, results = analyze(second, at_once=1)
    assert len(results) == 6
    assert outcome.stopped is None
    assert len(prompts(first)[:3] + prompts(second)) == 12
    assert set(prompts(first)[:3]).isdisjoint(prompts(second))


def test_a_changed_file_is_analyzed_anew_and_its_old_result_goes(analyze, scripted, reports):
    analyze(scripted())
    (reports / "2.txt").write_text("Report 2, corrected.")
    llm = scripted(["No."])
    _, results = analyze(llm)
    assert prompts(llm) == ["first: Report 2, corrected.", "second: Report 2, corrected."]
    assert len(results) == 6
    assert results["2.txt"].value == {"said": "No."}


def test_a_new_file_is_added(analyze, scripted, reports):
    analyze(scripted())
    (reports / "6.txt").write_text("Report 6.")
    llm = scripted()
    _, results = analyze(llm)
    assert len(llm.asked) == 2
    assert len(results) == 7


def test_a_broken_document_is_a_result_and_tried_again_only_on_request(analyze, scripted, reports):
    (reports / "2.txt").write_text("broken")
    outcome, results = analyze(scripted())
    assert outcome.failed == 1
    assert not results["2.txt"].success
    assert "this file is broken" in (results["2.txt"].error or "")
    outcome, _ = analyze(scripted())
    assert outcome.analyzed == 0
    outcome, results = analyze(scripted(), retry_failed=True)
    assert (outcome.analyzed, outcome.failed) == (1, 1)
    (reports / "2.txt").write_text("Mended.")  # a file that changed is done anew without being asked to
    outcome, results = analyze(scripted())
    assert (outcome.analyzed, outcome.failed) == (1, 0)
    assert results["2.txt"].success


def test_replies_that_could_not_be_read_are_asked_for_anew_on_retry(analyze, scripted):
    """The cache would give the same reply again; that of the others is still used."""

    def reply(request: Request) -> str:
        return "garbage" if request.messages[0]["content"] == "second: Report 2." else "Yes."

    outcome, _ = analyze(scripted([reply]))
    assert outcome.failed == 1
    llm = scripted()
    outcome, results = analyze(llm, retry_failed=True)
    assert prompts(llm) == ["first: Report 2.", "second: Report 2."]
    assert outcome.failed == 0
    assert results["2.txt"].value == {"said": "Yes."}


def test_a_fault_of_the_server_at_one_document_is_that_documents_failure(analyze, scripted):
    def reply(request: Request) -> str | Exception:
        fails = "Report 3" in request.messages[0]["content"]
        return BadRequestError("it is not liked") if fails else "Yes."

    outcome, results = analyze(scripted([reply]))
    assert outcome.stopped is None
    assert [name for name, result in results.items() if not result.success] == ["deep/3.txt"]
    assert "it is not liked" in (results["deep/3.txt"].error or "")


def test_a_refused_key_stops_the_run_and_writes_no_failures(analyze, scripted):
    outcome, results = analyze(scripted([NotAllowedError("no such key")]))
    assert isinstance(outcome.stopped, NotAllowedError)
    assert results == {}


def test_a_budget_stops_before_the_call_and_holds_over_all_runs(analyze, scripted):
    """Words are tokens here. Each run finishes what fits and spends no more, however often it is started."""
    spent = 0
    for _ in range(3):
        llm = scripted([lambda request: Completion("Yes.", "stop", Usage(10, 256))])
        outcome, results = analyze(llm, tokens=2000, at_once=1)
        spent += 266 * len(llm.asked)
        assert spent <= 2000
        assert outcome.stopped is not None
        assert "2000" in str(outcome.stopped)
    before = len(results)
    assert 0 < before < 6
    outcome, results = analyze(scripted(), tokens=100_000)
    assert outcome.stopped is None
    assert len(results) == 6


@pytest.mark.parametrize(
    ("job", "named"),
    [
        (Job("summary", "general"), ["task", "extraction", "summary"]),
        (Job("extraction", "legal"), ["domain", "legal"]),
        (Job("extraction", "general", instructions="Find all."), ["instructions", "Find all."]),
        (Job("extraction", "general", settings={"votes": 3}), ["votes", "null", "3"]),
    ],
)
def test_other_settings_are_an_error_that_names_them(analyze, scripted, job, named):
    analyze(scripted())
    llm = scripted()
    with pytest.raises(ConfigError) as raised:
        analyze(llm, job=job)
    for part in (*named, "--fresh"):
        assert part in str(raised.value)
    assert llm.asked == []
    outcome, results = analyze(llm, job=job, fresh=True)
    assert outcome.analyzed == len(results) == 6


def test_another_model_is_another_setting(analyze, scripted):
    analyze(scripted(name="one"))
    with pytest.raises(ConfigError, match=r'model was "one" and is "two"'):
        analyze(scripted(name="two"))


@pytest.mark.parametrize("cut", [1, 20, 400])
def test_a_torn_last_line_is_cut_and_its_document_done_again(analyze, scripted, tmp_path, cut):
    _, whole = analyze(scripted(), at_once=1)
    out = tmp_path / "results.jsonl"
    out.write_bytes(out.read_bytes()[:-cut])
    llm = scripted()
    _, results = analyze(llm)
    assert results.keys() == whole.keys()
    assert llm.asked == [], "its replies are in the cache"


def test_a_damaged_line_in_the_middle_is_told_and_not_dropped(analyze, scripted, tmp_path):
    analyze(scripted())
    out = tmp_path / "results.jsonl"
    lines = out.read_text().splitlines(keepends=True)
    lines[2] = lines[2][:30] + "\n"
    out.write_text("".join(lines))
    with pytest.raises(DataError, match="line 3"):
        analyze(scripted())
    assert out.read_text() == "".join(lines)


def test_results_without_their_settings_are_left_alone(analyze, scripted, tmp_path):
    analyze(scripted())
    (tmp_path / "results.jsonl.work" / "settings.json").unlink()
    with pytest.raises(UsageError, match="settings"):
        analyze(scripted())


def test_two_runs_cannot_write_the_same_file(tmp_path):
    out = tmp_path / "results.jsonl"
    with ResultsFile.opened(out, {}), pytest.raises(StorageError, match=str(os.getpid())):  # noqa: SIM117
        with ResultsFile.opened(out, {}):
            pass
    with ResultsFile.opened(out, {}):
        pass


def test_a_line_is_json_whatever_a_model_wrote(analyze, scripted, tmp_path):
    analyze(scripted(["half a pair \ud83d, a line\u2028separator, \x00 and NaN"]))
    out = tmp_path / "results.jsonl"
    rows = [json.loads(line) for line in out.read_bytes().split(b"\n")[:-1]]
    assert len(rows) == 6
    assert rows[0]["value"]["said"].startswith("half a pair ?, a line\u2028separator")


def test_a_full_disk_leaves_whole_lines(analyze, scripted, tmp_path, monkeypatch):
    """Half of the third line is written when the disk is full."""
    import errno

    written, real = [], os.write

    def write(descriptor: int, data: bytes) -> int:
        if data.startswith(b'{"document"'):
            written.append(data)
            if len(written) == 3:
                return real(descriptor, data[:50])
        elif len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(StorageError, match="free some space"):
            analyze(scripted(), at_once=1)
    out = tmp_path / "results.jsonl"
    assert out.read_bytes().count(b"\n") == 2
    assert out.read_bytes().endswith(b"\n")
    _, results = analyze(scripted())
    assert len(results) == 6


def test_what_no_folder_of_documents_should_hold_is_passed_over(tmp_path):
    """A pipe would never end, and a link may lead to what strangers should not see."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "a.txt").write_text("A")
    (folder / ".hidden.txt").write_text("H")
    (folder / "picture.gif").write_text("G")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "nowhere.txt").symlink_to(tmp_path / "absent.txt")
    (folder / "twice.txt").symlink_to(folder / "a.txt")
    os.mkfifo(folder / "pipe.txt")
    assert [found.name for found in find_documents([folder], (".txt",))] == ["a.txt"]


def test_two_folders_with_the_same_file_names_are_told_apart(tmp_path):
    for name in ("x/2023", "x/2024", "y/2024"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text(name)
    names = [f.name for f in find_documents([tmp_path / "x/2023", tmp_path / "x/2024"], (".txt",))]
    assert names == ["2023/a.txt", "2024/a.txt"]
    found = find_documents([tmp_path / "x/2024", tmp_path / "y/2024"], (".txt",))
    assert len({f.name for f in found}) == 2
