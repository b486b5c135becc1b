"""What it costs that nothing beside a text can change it: texts written alone and in a crowd, float32.

    python benchmarks/determinism.py [--requests 8] [--prompt 64] [--new 32] [--rounds 3]

A random Llama-shaped model of 111 million parameters (30 layers, 576 wide, vocabulary 8,192) with two
adapters. Requests, greedy and sampled, with and without an adapter, with common beginnings, are answered
one after the other by an engine that shares nothing and guesses nothing ("alone"); then all at once, with
prompts in chunks of 48 tokens, shared pages and guesses ("crowd"). Texts and log-probabilities of the two
are compared to the bit. Runners: native; torch; torch with `deterministic`, where every token goes through
the model by itself.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from glasshouse.core.devices import machine
from glasshouse.inference import LanguageModel, Sampling
from glasshouse.inference.engine import Completion, Engine, EngineSettings
from glasshouse.inference.native_runner import NativeRunner
from glasshouse.inference.request import Delta, Request
from glasshouse.model import ModelConfig, initialise
from glasshouse.model.lora import LoRAConfig, add_adapter
from glasshouse.tokenizer import Tokenizer

SHAPE = {
    "model_type": "llama",
    "vocab_size": 8192,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
MODES = {
    "native": {"runner": "native"},
    "torch": {"runner": "torch"},
    "torch, deterministic": {"runner": "torch", "deterministic": True},
}
ALONE = {"max_rows": 1, "draft_tokens": 0}
CROWD = {"step_tokens": 48, "draft_tokens": 4}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=32, help="tokens of each reply")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = make_model()
    modes = dict(MODES)
    if reason := NativeRunner.supports(model.model):
        print(f"native: left out, {reason}")
        del modes["native"]
    requests = make_requests(options)
    rounds = [
        {name: compare(model, requests, settings) for name, settings in modes.items()}
        for _ in range(options.rounds)
    ]
    report(rounds, options)


def make_model() -> LanguageModel:
    transformer = initialise(ModelConfig.parse(SHAPE), seed=1)
    for name in ("one", "two"):
        add_adapter(transformer, LoRAConfig.parse({"r": 8}), name=name)
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.02, generator=torch.Generator().manual_seed(parameter.numel()))
    return LanguageModel(transformer, Tokenizer.train(["any text will do"] * 3, vocab_size=300))


def make_requests(options: argparse.Namespace) -> list[Request]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, SHAPE["vocab_size"], (options.requests + 1, options.prompt), generator=generator)
    beginning = ids[-1, : options.prompt * 3 // 4].tolist()
    return [
        Request(
            prompt=tuple(beginning + ids[row, len(beginning) :].tolist()),
            max_new_tokens=options.new,
            sampling=Sampling.parse({"temperature": 0.8 * (row % 2), "seed": row}),
            adapter=(None, None, "one", "two")[row % 4],
            logprobs=0,
        )
        for row in range(options.requests)
    ]


def compare(model: LanguageModel, requests: list[Request], settings: dict[str, Any]) -> dict[str, float]:
    """Seconds of both ways, the share of equal texts, and how far their log-probabilities lie apart."""
    alone, alone_seconds = run(model, [[request] for request in requests], settings | ALONE)
    crowd, crowd_seconds = run(model, [requests], settings | CROWD)
    pairs = list(zip(alone, crowd, strict=True))
    same = [(a, b) for a, b in pairs if a.ids == b.ids]
    apart = [abs(x.logprob - y.logprob) for a, b in same for x, y in zip(a.scores, b.scores, strict=True)]
    return {
        "alone_seconds": alone_seconds,
        "crowd_seconds": crowd_seconds,
        "equal_texts": len(same) / len(pairs),
        "logprobs_apart": max(apart, default=float("nan")),
    }


def run(
    model: LanguageModel, groups: list[list[Request]], settings: dict[str, Any]
) -> tuple[list[Completion], float]:
    """The replies in order and the seconds that all took; the requests of a group come at once, each group
    to an engine of its own."""
    done: list[Completion] = []
    seconds = 0.0
    for group in groups:
        engine = Engine(model, EngineSettings.parse(settings))
        start = time.perf_counter()
        mine = [Completion() for _ in group]
        for request, completion in zip(group, mine, strict=True):

            def deliver(event: Any, completion: Completion = completion) -> None:
                if isinstance(event, Delta):
                    completion.ids += event.ids
                    completion.scores += event.scores
                    completion.finish = event.finish

            engine.submit(request, deliver)
        while any(completion.finish is None for completion in mine):
            time.sleep(0.001)
        seconds += time.perf_counter() - start
        engine.close()
        done += mine
    return done, seconds


def report(rounds: list[dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    tokens = options.requests * options.new
    print(f"{'new tokens a second':22} {'alone':>8} {'crowd':>8} {'equal texts':>12} {'logprobs apart':>15}")
    medians = {}
    for name in rounds[0]:
        found = [r[name] for r in rounds]
        medians[name] = row = {key: statistics.median(r[key] for r in found) for key in found[0]}
        row["equal_texts"] = min(r["equal_texts"] for r in found)
        row["logprobs_apart"] = max(r["logprobs_apart"] for r in found)
        speeds = [tokens / row[key] for key in ("alone_seconds", "crowd_seconds")]
        print(
            f"{name:22} {speeds[0]:8.1f} {speeds[1]:8.1f} {row['equal_texts']:12.0%} "
            f"{row['logprobs_apart']:15.1e}"
        )
    ratios = [r["torch, deterministic"]["crowd_seconds"] / r["torch"]["crowd_seconds"] for r in rounds]
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"deterministic on torch takes {middle:.1f} times as long in a crowd ({low:.1f} - {high:.1f})")
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "requests": options.requests,
        "prompt": options.prompt,
        "new": options.new,
        "medians": medians,
        "torch_times_slower": ratios,
        "rounds": rounds,
    }
    path = Path(__file__).parent / "results" / "determinism.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
