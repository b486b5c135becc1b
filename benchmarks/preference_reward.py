"""A reward model on a trunk pre-trained here, beside TF-IDF with logistic regression, on real pairs.

    python benchmarks/preference_reward.py [--data $GLASSHOUSE_TEST_DATA] [--work FOLDER] [--threads 2]

The pairs are HH-RLHF's (harmless), split by their first turn: a third for choosing settings, the rest in
`--folds` parts. Each part is scored by models that saw every pair but its own; accuracies are over all parts,
with 95% intervals, and the two are compared pair by pair (McNemar's exact test).

Ours: a trunk learns to predict books, documentation, web pages, speeches, tweets, reviews and instructions;
for each part it goes on with the conversations of the other pairs, and the reward model is trained on them;
of some seeds the mean reward counts. Theirs: TF-IDF of the replies, of which the difference is fitted, with
its n-grams and C chosen by cross-validation on the same pairs. --tune measures on the first third instead.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glasshouse.alignment.preference_pairs import encode_pair
from glasshouse.alignment.reward_model import RewardConfig, RewardModel, reward_model
from glasshouse.alignment.written import encode_chat
from glasshouse.core.devices import choose_dtype, machine
from glasshouse.core.seeds import numpy_rng
from glasshouse.data import PackedBatches, Shards, ShardWriter
from glasshouse.evaluation.intervals import proportion
from glasshouse.files import read_preferences
from glasshouse.files.rows import read_rows
from glasshouse.model import ModelConfig, initialise, load, save
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import NextToken, TrainingConfig, train

Pair = dict[str, Any]
RESULTS = Path(__file__).parent / "results" / "preference_reward.json"

TEXTS = (
    "pretrain/web_c4_sample.jsonl.gz",
    "pretrain/web_ccnet_sample.jsonl.gz",
    "pretrain/wikipedia_articles.jsonl.gz",
    "pretrain/us_speeches.jsonl.gz",
    "classify/sentence_polarity.jsonl.gz",
    "safety/hate_offensive.jsonl.gz",
)
MIXED = "pretrain/docs_large.jsonl.zst"
MIXED_CHARACTERS, MIXED_ROW = 16_000_000, 20_000
"""Of the large mix so many characters, the first so many of each row."""

SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
VOCABULARY = 4096
TRUNK = TrainingConfig(tokens=6_000_000, batch_tokens=8192, sequence_length=512, seed=1)
GO_ON = TrainingConfig(
    epochs=2,
    batch_tokens=8192,
    sequence_length=512,
    seed=1,
    muon_lr=0.008,
    embed_lr=0.008,
    head_lr=0.0032,
    scalar_lr=0.004,
    momentum_warmup_steps=0,
    decay_fraction=0.7,
)
REWARD = RewardConfig(
    epochs=2,
    batch_tokens=8192,
    sequence_length=256,
    muon_lr=0.001,
    embed_lr=0.001,
    scalar_lr=0.001,
    head_lr=0.004,
    label_smoothing=0.2,
)
"""Chosen on the first third of the pairs: larger steps and more epochs learn the pairs by heart."""

N_GRAMS, PENALTIES = ((1, 1), (1, 2)), (0.03, 0.1, 0.3, 1.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("GLASSHOUSE_TEST_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data))
    parser.add_argument("--work", type=Path, help="keeps what is trained, and continues from it")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data, or set GLASSHOUSE_TEST_DATA")
    torch.set_num_threads(options.threads)
    begun = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        trunk = pretrained(options.data, work / "trunk")
        pairs = list(read_preferences(options.data / "preference/hh_harmless.jsonl.gz"))
        parts = split(pairs, readable(pairs, Tokenizer.load(trunk)), options.folds)
        scores: dict[str, list[np.ndarray]] = {"reward model": [], "tf-idf": []}
        for number in [0] if options.tune else range(1, len(parts)):
            learnt = [pairs[i] for other, part in enumerate(parts) if other != number for i in part]
            held_out = [pairs[i] for i in parts[number]]
            scores["tf-idf"].append(tf_idf(learnt, held_out))
            folder = work / f"part{number}"
            scores["reward model"].append(rewarded(trunk, learnt, held_out, folder, options.seeds))
            report(scores, options, begun)
    if not options.tune:
        RESULTS.write_text(json.dumps(report(scores, options, begun), indent=2) + "\n")


# The pairs


def readable(pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[int]:
    """Those whose last exchange fits into the reward model's rows, which is what both sides are given."""
    fits = [encode_pair(tokenizer, pair, REWARD.sequence_length)[0] is not None for pair in pairs]
    return np.flatnonzero(fits).tolist()


def split(pairs: Sequence[Pair], kept: Sequence[int], folds: int) -> list[list[int]]:
    """A third, then `folds` parts of the rest, of the pairs `kept`; those of one first turn stay together."""
    turns = sorted({first_turn(pair) for pair in pairs})
    place = dict(zip(turns, np.random.default_rng(11).permutation(len(turns)).tolist(), strict=True))
    parts: list[list[int]] = [[] for _ in range(folds + 1)]
    for i in kept:
        number = place[first_turn(pairs[i])]
        parts[0 if number % 3 == 0 else 1 + number // 3 % folds].append(i)
    return parts


def first_turn(pair: Pair) -> str:
    return pair["prompt"][0]["content"]


# Ours


def pretrained(data: Path, out: Path) -> Path:
    """The folder of the trunk, which never reads a pair."""
    if not (out / "model" / "config.json").exists():
        documents, chats = list(texts(data)), list(instructions(data))
        words = itertools.chain(documents, (m["content"] for chat in chats for m in chat))
        tokenizer = Tokenizer.train(words, VOCABULARY)
        with ShardWriter(out / "shards", tokenizer.vocab_size) as writer:
            for begin in range(0, len(documents), 512):
                for ids in tokenizer.encode_batch(documents[begin : begin + 512]):
                    add(writer, [tokenizer.bos_id, *ids, tokenizer.eos_id])
            for chat in chats:
                add(writer, encode_chat(tokenizer, chat).ids)
        config = ModelConfig(model_type="qwen3", vocab_size=tokenizer.vocab_size, **SHAPE)
        language_model(initialise(config, 1), tokenizer, TRUNK, out)
    return out / "model"


def add(writer: ShardWriter, ids: Sequence[int]) -> None:
    """Every token but the first is learnt."""
    writer.add(ids, mask=[False] + [True] * (len(ids) - 1))


def language_model(model: Any, tokenizer: Tokenizer, config: TrainingConfig, out: Path) -> None:
    rows = PackedBatches(Shards(out / "shards"), config.sequence_length, config.rows_per_batch, config.seed)
    train(
        model,
        NextToken(rows),
        config,
        out,
        title=out.name,
        save_model=lambda trained, folder: save(trained, tokenizer, folder),
    )


def texts(data: Path) -> Iterator[str]:
    for name in TEXTS:
        for _, row in read_rows(data / name):
            yield row["text"]
    read = 0
    for _, row in read_rows(data / MIXED):
        text = row["text"][:MIXED_ROW]
        read += len(text)
        yield text
        if read > MIXED_CHARACTERS:
            return


def instructions(data: Path) -> Iterator[list[dict[str, str]]]:
    """Conversations of fine-tuning data, and what models answered to questions that look unsafe."""
    for _, row in read_rows(data / "sft/instructions.jsonl.gz"):
        yield exchange(row["instruction"], row["input"], row["output"])
    for _, row in read_rows(data / "sft/self_instruct_seed.jsonl.gz"):
        for case in row["instances"]:
            yield exchange(row["instruction"], case["input"], case["output"])
    for _, row in read_rows(data / "safety/xstest_completions.jsonl.gz"):
        if row["completion"].strip():
            yield exchange(row["prompt"], "", row["completion"])


def exchange(question: str, given: str, answer: str) -> list[dict[str, str]]:
    asked = f"{question}\n{given}" if given else question
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def rewarded(trunk: Path, learnt: list[Pair], held_out: list[Pair], out: Path, seeds: int) -> np.ndarray:
    """How much higher the chosen reply's reward is, (held-out pairs,)."""
    if not (out / "model" / "config.json").exists():
        tokenizer, model = Tokenizer.load(trunk), load(trunk)
        with ShardWriter(out / "shards", tokenizer.vocab_size) as writer:
            for pair in learnt:
                for messages in (pair["prompt"] + pair["chosen"], pair["prompt"][-1:] + pair["rejected"]):
                    add(writer, encode_chat(tokenizer, messages).ids)
        language_model(model, tokenizer, GO_ON, out)
    total = np.zeros(len(held_out))
    for seed in range(seeds):
        config = REWARD.model_copy(update={"seed": seed})
        reward_model(out / "model", learnt, out / f"reward{seed}", config)
        judge = RewardModel.load(out / f"reward{seed}" / "model")
        judge.model.compute_dtype = getattr(torch, choose_dtype("cpu")[0])
        sides = [encode_pair(judge.tokenizer, pair, REWARD.sequence_length)[0] for pair in held_out]
        rewards = [judge.score_ids([pair[side].ids for pair in sides if pair is not None]) for side in (0, 1)]
        total += (rewards[0] - rewards[1]).numpy() / seeds
    return total


# Theirs


def tf_idf(learnt: list[Pair], held_out: list[Pair]) -> np.ndarray:
    """The same of logistic regression; its settings are those of the best cross-validated accuracy."""
    fold = np.array(split_evenly(learnt, 5))
    hits = {}
    for n_grams, penalty in itertools.product(N_GRAMS, PENALTIES):
        correct = [
            logistic(
                [pair for pair, f in zip(learnt, fold, strict=True) if f != out],
                [pair for pair, f in zip(learnt, fold, strict=True) if f == out],
                n_grams,
                penalty,
            )
            > 0
            for out in range(5)
        ]
        hits[n_grams, penalty] = float(np.concatenate(correct).mean())
    best = max(hits, key=lambda setting: hits[setting])
    print(f"tf-idf: n-grams {best[0]}, C {best[1]}, cross-validated {hits[best]:.3f}", file=sys.stderr)
    return logistic(learnt, held_out, *best)


def split_evenly(pairs: list[Pair], folds: int) -> list[int]:
    turns = sorted({first_turn(pair) for pair in pairs})
    place = dict(zip(turns, numpy_rng(1, "folds").permutation(len(turns)).tolist(), strict=True))
    return [place[first_turn(pair)] % folds for pair in pairs]


def logistic(
    learnt: list[Pair], held_out: list[Pair], n_grams: tuple[int, int], penalty: float
) -> np.ndarray:
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def said(pair: Pair, side: str) -> str:
        return " ".join(message["content"] for message in pair[side])

    words = TfidfVectorizer(ngram_range=n_grams, min_df=2, sublinear_tf=True)
    words.fit([said(pair, side) for pair in learnt for side in ("chosen", "rejected")])

    def difference(pairs: list[Pair]) -> Any:
        chosen, rejected = (
            words.transform([said(pair, s) for pair in pairs]) for s in ("chosen", "rejected")
        )
        return chosen - rejected

    rows = difference(learnt)
    labels = np.repeat([1, 0], len(learnt))
    model = LogisticRegression(C=penalty, fit_intercept=False, max_iter=1000)
    return model.fit(vstack([rows, -rows]), labels).decision_function(difference(held_out))


# The result


def report(scores: dict[str, list[np.ndarray]], options: argparse.Namespace, begun: float) -> dict[str, Any]:
    hits = {name: np.concatenate(found) > 0 for name, found in scores.items()}
    ours, theirs = hits.values()
    only = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    result = {
        "benchmark": "preference_reward",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "threads": options.threads,
        "folds": options.folds,
        "seeds": options.seeds,
        "minutes": round((time.time() - begun) / 60, 1),
        "accuracy": {name: proportion(found.tolist()).as_dict() for name, found in hits.items()},
        "accuracy_of_parts": {name: [float((s > 0).mean()) for s in found] for name, found in scores.items()},
        "only_ours_right": only[0],
        "only_theirs_right": only[1],
        "p_value": two_sided(*only),
    }
    print(json.dumps(result), flush=True)
    return result


def two_sided(a: int, b: int) -> float:
    """McNemar's exact test: how probable so uneven a split of the differing pairs is, if both are as good."""
    tail = sum(math.comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b)
    return min(1.0, 2 * tail)


def commit() -> str:
    """The checkout's commit, or "unknown" outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
