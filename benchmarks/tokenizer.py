"""Speed of training and encoding beside the fastest public libraries, on the same text.

    python benchmarks/tokenizer.py --data books.jsonl.gz

Every round runs each contender once, in turn, in this one process on the same cores; a ratio is taken within
its round, so that a slow minute of the machine hits both sides. Training: ours, `rustbpe`, `tokenizers`, to
the same size with the same split pattern. Encoding with the same merges: ours, `tiktoken`, `rustbpe`,
`tokenizers`, each by its own batch call to lists of ids; once whole documents, once their paragraphs. The ids
are compared first. Writes benchmarks/results/tokenizer.json and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "tokenizer.json"
DEFAULT_DATA = "pretrain/books.jsonl.gz"
OURS = "glasshouse"


def main() -> None:
    options = arguments()
    use_threads(options.threads)
    texts = read(options.data)
    paragraphs = [part for text in texts for part in text.replace("\r\n", "\n").split("\n\n") if part]
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_average_at_start": round(os.getloadavg()[0], 2),  # above the cores in use: others were working
        "versions": {name: metadata.version(name) for name in ("rustbpe", "tiktoken", "tokenizers")},
        "data": {"file": options.data.name, "bytes": size(texts), "documents": len(texts)},
        "vocab_size": options.vocab_size,
        "threads": options.threads,
        "rounds": options.rounds,
    }
    tokenizer, contenders = trainers(texts, options.vocab_size)
    result["training"] = race("training", contenders, size(texts), options.rounds)
    for name, batch in (("documents", texts), ("paragraphs", paragraphs)):
        contenders = encoders(tokenizer, batch, texts, options)
        check_equal(contenders)
        work = f"encoding_{name}"
        result[work] = race(work, contenders, size(batch), options.rounds) | {"texts": len(batch)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary(result)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = os.environ.get("GLASSHOUSE_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(root, DEFAULT_DATA) if root else None)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data is None:
        parser.error("name a text with --data, or set GLASSHOUSE_TEST_DATA")
    return options


def use_threads(count: int) -> None:
    """Hold the process to `count` cores and tell the Rust libraries, before they are imported."""
    os.environ["RAYON_NUM_THREADS"] = str(count)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def machine() -> dict[str, Any]:
    from glasshouse.core.devices import machine

    return machine()


def read(path: Path) -> list[str]:
    from glasshouse.files import read_documents

    return [document["text"] for document in read_documents(path)]


def size(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def trainers(texts: list[str], vocab_size: int) -> tuple[Any, dict[str, Callable[[], Any]]]:
    """A tokenizer of ours, and what each library does to train one."""
    import rustbpe
    import tokenizers
    from tokenizers import models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    from glasshouse.tokenizer import SPECIAL_TOKENS, Tokenizer
    from glasshouse.tokenizer.split_pattern import QWEN2

    def train_rustbpe() -> Any:
        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(iter(texts), vocab_size - len(SPECIAL_TOKENS), pattern=QWEN2)
        return trainer

    def train_tokenizers() -> Any:
        trained = tokenizers.Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(QWEN2), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=alphabet,
            show_progress=False,
        )
        trained.train_from_iterator(texts, trainer)
        return trained

    ours = Tokenizer.train(texts, vocab_size)
    theirs = [bytes(token) for token, _ in train_rustbpe().get_mergeable_ranks()]
    if theirs != list(ours.ranks):
        sys.exit("rustbpe learned other tokens than we did with it")
    return ours, {
        OURS: lambda: Tokenizer.train(texts, vocab_size),
        "rustbpe": train_rustbpe,
        "tokenizers": train_tokenizers,
    }


def encoders(
    ours: Any, batch: list[str], texts: list[str], options: argparse.Namespace
) -> dict[str, Callable[[], list[list[int]]]]:
    """What each library does to encode a batch with the merges of `ours`."""
    import tiktoken
    import tokenizers

    reference = tiktoken.Encoding(
        "reference", pat_str=ours.pattern, mergeable_ranks=ours.ranks, special_tokens=ours.special
    )
    with tempfile.TemporaryDirectory() as folder:
        ours.save(folder)
        file = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    rust = trainers(texts, options.vocab_size)[1]["rustbpe"]()
    return {
        OURS: lambda: ours.encode_batch(batch),
        "tiktoken": lambda: reference.encode_ordinary_batch(batch, num_threads=options.threads),
        "rustbpe": lambda: rust.batch_encode(batch),
        "tokenizers": lambda: [
            encoding.ids for encoding in file.encode_batch_fast(batch, add_special_tokens=False)
        ],
    }


def check_equal(contenders: dict[str, Callable[[], list[list[int]]]]) -> None:
    """The ids of all are the same; rustbpe's begin at 0, for it knows no special tokens."""
    from glasshouse.tokenizer import SPECIAL_TOKENS

    expected = contenders[OURS]()
    for name, encode in contenders.items():
        shift = len(SPECIAL_TOKENS) if name == "rustbpe" else 0
        for ours, theirs in zip(expected, encode(), strict=True):
            if ours != [i + shift for i in theirs]:
                sys.exit(f"{name} gives other ids")


def race(work: str, contenders: dict[str, Callable[[], Any]], bytes_done: int, rounds: int) -> dict[str, Any]:
    """Run every contender once a round, in turn, beginning with another each time."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            start, processor_start = time.perf_counter(), time.process_time()
            outcome = contenders[name]()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - processor_start)
            del outcome
    table: dict[str, Any] = {}
    print(f"\n{work}: {bytes_done / 1e6:.1f} MB, {rounds} rounds", file=sys.stderr)
    for name, times in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(times, seconds[OURS], strict=True)]
        median = statistics.median(times)
        table[name] = {
            "seconds": round(median, 4),
            "processor_seconds": round(statistics.median(processor[name]), 4),
            "mb_per_second": round(bytes_done / 1e6 / median, 2),
            "our_speed_over_theirs": {
                "median": round(statistics.median(ratios), 3),
                "lowest": round(min(ratios), 3),
                "highest": round(max(ratios), 3),
            },
        }
        row = table[name]
        spread = row["our_speed_over_theirs"]
        print(
            f"  {name:<11} {row['mb_per_second']:>7.2f} MB/s   ours is {spread['median']:.2f} times as fast "
            f"({spread['lowest']:.2f} to {spread['highest']:.2f})",
            file=sys.stderr,
        )
    return {"bytes": bytes_done, "contenders": table}


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Median MB/s of each, and our speed over each peer's."""
    line: dict[str, Any] = {"benchmark": "tokenizer", "date": result["date"]}
    for work in ("training", "encoding_documents", "encoding_paragraphs"):
        for name, row in result[work]["contenders"].items():
            line[f"{work}_{name}_mb_per_second"] = row["mb_per_second"]
            if name != OURS:
                line[f"{work}_over_{name}"] = row["our_speed_over_theirs"]["median"]
    return line


if __name__ == "__main__":
    main()
