"""Generation here, in `transformers` and in llama.cpp, on the same weights, alone and 8 and 32 at once.

    python benchmarks/engine.py [--rounds 5] [--threads 2] [--tokens 128] [--batches 1 8 32]

A random Llama-shaped model of 111 million parameters (30 layers, 576 wide, vocabulary 8,192, tied) is written
once, as a folder and as GGUF files. Each side is a process of its own; the sides take turns. A side reads
`tokens` random tokens in each of so many sequences (prefill), then adds as many to each (decode), always the
likeliest. llama.cpp runs through `llama-cpp-python`'s low-level calls, which take several sequences in one
batch; without it, or without transformers, the side is left out with a notice.

Reading every weight once for each step is what memory allows alone; the bandwidth for it is measured beside.
Rates are told by the clock and by processor time: on a busy machine, with --threads 1, only the latter mean
something.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from glasshouse.core.devices import machine

SHAPE = {
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
SIDES = {
    "glasshouse bf16": 16.0,
    "glasshouse int8": 8.25,
    "glasshouse int4": 4.25,
    "transformers bf16": 16.0,
    "llama.cpp BF16": 16.0,
    "llama.cpp Q8_0": 8.5,
    "llama.cpp Q4_0": 4.5,
}
"""Bits of a weight inside the blocks."""

PAIRS = (
    ("glasshouse bf16", "transformers bf16"),
    ("glasshouse bf16", "llama.cpp BF16"),
    ("glasshouse int8", "llama.cpp Q8_0"),
    ("glasshouse int4", "llama.cpp Q4_0"),
)

Step = Callable[[list[list[int]]], list[int]]
"""Reads the next tokens of every sequence, returns the likeliest that follow."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.side:
        with torch.inference_mode():
            print(json.dumps(run_side(options)))
        return
    sides = [side for side in SIDES if present(side)]
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), sides)
        rounds = []
        for index in range(options.rounds):
            order = sides[index % len(sides) :] + sides[: index % len(sides)]
            found = {side: subprocess_side(side, folder, options) for side in order}
            rounds.append({"bandwidth": bandwidth(), "sides": found})
    report(rounds, sides, options)


def present(side: str) -> bool:
    package = {"transformers": "transformers", "llama.cpp": "llama_cpp"}.get(side.split()[0])
    if package is None or importlib.util.find_spec(package) is not None:
        return True
    print(f"notice: {package} is not installed, so '{side}' is left out", file=sys.stderr)
    return False


def write_model(folder: Path, sides: list[str]) -> None:
    """The same random weights, rounded to bfloat16 first, in every format."""
    from glasshouse.model import ModelConfig, initialise, save
    from glasshouse.model.gguf_file import save_gguf
    from glasshouse.tokenizer import Tokenizer

    model = initialise(ModelConfig(model_type="llama", **SHAPE), seed=1)
    for index, parameter in enumerate(model.parameters()):
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.02, generator=torch.Generator().manual_seed(index))
    model.bfloat16()
    tokenizer = Tokenizer.train(["Ada Moor was born in Tarnhaven. She keeps an owl."] * 9, vocab_size=300)
    save(model, tokenizer, folder / "hf")
    for side in sides:
        if side.startswith("llama.cpp"):
            save_gguf(model, tokenizer, folder / f"{side.split()[1]}.gguf", side.split()[1])  # type: ignore[arg-type]


def subprocess_side(side: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    sizes = ["--tokens", str(options.tokens), "--threads", str(options.threads)]
    sizes += ["--batches", *map(str, options.batches)]
    command = [sys.executable, __file__, "--side", side, "--model", folder, *sizes]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    for batch, values in found.items():
        print(
            f"{side:18} {batch:>3} at once: prefill {values['prefill']:7.0f} tok/s, "
            f"decode {values['decode']:7.0f} tok/s",
            file=sys.stderr,
        )
    return found


def bandwidth(gib: float = 0.5, repeats: int = 5) -> float:
    """GB/s of reading memory with all threads, in large pages like the weights; the best of several."""
    from glasshouse.inference.native_weights import large_buffer

    numbers = large_buffer(int(gib * 2**30)).view(torch.float32).fill_(1.0)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - start)
    return numbers.numel() * 4 / best / 1e9


def run_side(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One side, in a process of its own: tokens a second over all sequences, for each batch."""
    kind, precision = options.side.split()
    start = {"glasshouse": start_ours, "transformers": start_transformers, "llama.cpp": start_llama}[kind]
    found = {}
    for batch, restart in start(precision, options):
        timed(restart(), batch, 16, options.tokens // 4)  # buffers are made, pages touched
        seconds = timed(restart(), batch, options.tokens, options.tokens)
        found[str(batch)] = {
            name: batch * (options.tokens - ("decode" in name)) / value for name, value in seconds.items()
        }
    return found


def timed(step: Step, batch: int, prompt: int, new: int) -> dict[str, float]:
    """Seconds of reading the prompts up to the first new token, and of the others."""
    ids = torch.randint(3, 300, (batch, prompt), generator=torch.Generator().manual_seed(batch)).tolist()
    clocks = {"": time.perf_counter, " by processor time": time.process_time}
    marks = [[clock() for clock in clocks.values()]]
    tokens = step(ids)
    marks.append([clock() for clock in clocks.values()])
    for _ in range(new - 1):
        tokens = step([[token] for token in tokens])
    marks.append([clock() for clock in clocks.values()])
    return {
        phase + name: marks[index + 1][clock] - marks[index][clock]
        for index, phase in enumerate(("prefill", "decode"))
        for clock, name in enumerate(clocks)
    }


Started = Iterator[tuple[int, Callable[[], Step]]]


def start_ours(precision: str, options: argparse.Namespace) -> Started:
    from glasshouse.inference.native_runner import NativeRunner
    from glasshouse.inference.runner import Piece
    from glasshouse.model import load
    from glasshouse.model.quantize import quantize_model

    model = load(options.model / "hf", dtype=torch.bfloat16)
    if precision != "bf16":
        quantize_model(model, precision)  # type: ignore[arg-type]
    runner = NativeRunner(model, threads=options.threads)
    torch.set_num_threads(1)  # of the argmax: PyTorch's would wait awake beside the runner's own
    each = -(-2 * options.tokens // runner.page_tokens)
    runner.allocate(each * max(options.batches))

    def restart() -> Step:
        read = 0

        def step(ids: list[list[int]]) -> list[int]:
            nonlocal read
            pieces = [
                Piece(row, read, range(each * i, each * i + each), wanted=1) for i, row in enumerate(ids)
            ]
            read += len(ids[0])
            return runner.logits(runner.hidden(pieces)).argmax(-1).tolist()

        return step

    for batch in options.batches:
        yield batch, restart


def start_transformers(precision: str, options: argparse.Namespace) -> Started:
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(options.model / "hf", dtype=torch.bfloat16)

    def restart() -> Step:
        cache = DynamicCache(config=model.config)

        def step(ids: list[list[int]]) -> list[int]:
            output = model(torch.tensor(ids), past_key_values=cache, use_cache=True, logits_to_keep=1)
            return output.logits[:, -1].argmax(-1).tolist()

        return step

    for batch in options.batches:
        yield batch, restart


def start_llama(precision: str, options: argparse.Namespace) -> Started:
    import ctypes

    import llama_cpp
    import numpy as np

    llama_cpp.llama_backend_init()
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    path = str(options.model / f"{precision}.gguf").encode()
    model = llama_cpp.llama_model_load_from_file(path, llama_cpp.llama_model_default_params())
    for batch in options.batches:
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = (2 * options.tokens + 32) * batch
        settings.n_batch = max(512, options.tokens * batch)
        settings.n_ubatch = 512
        settings.n_seq_max = batch
        settings.n_threads = settings.n_threads_batch = options.threads
        context = llama_cpp.llama_init_from_model(model, settings)
        room = llama_cpp.llama_batch_init(settings.n_batch, 0, 1)

        def restart(context: Any = context, room: Any = room) -> Step:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            read = 0

            def step(ids: list[list[int]]) -> list[int]:
                nonlocal read
                at, last = 0, []
                for sequence, row in enumerate(ids):
                    for offset, token in enumerate(row):
                        room.token[at], room.pos[at] = token, read + offset
                        room.n_seq_id[at], room.seq_id[at][0] = 1, sequence
                        room.logits[at] = offset == len(row) - 1
                        at += 1
                    last.append(at - 1)
                room.n_tokens = at
                read += len(ids[0])
                if llama_cpp.llama_decode(context, room):
                    raise RuntimeError("llama_decode failed")
                shape = (SHAPE["vocab_size"],)
                rows = [llama_cpp.llama_get_logits_ith(context, place) for place in last]
                return [int(np.ctypeslib.as_array(row, shape=shape).argmax()) for row in rows]

            return step

        yield batch, restart
        llama_cpp.llama_batch_free(room)
        llama_cpp.llama_free(context)


def weight_bytes(side: str) -> float:
    """What a step reads: all matrices of the blocks, and the head in bfloat16 (llama.cpp: as the rest)."""
    from glasshouse.model import ModelConfig

    config = ModelConfig(model_type="llama", **SHAPE)
    head = config.vocab_size * config.hidden_size
    bits = SIDES[side]
    return config.num_parameters(embedding=False) * bits / 8 + head * (
        2 if side.startswith("glasshouse") else bits / 8
    )


def report(rounds: list[dict[str, Any]], sides: list[str], options: argparse.Namespace) -> None:
    """Medians, ratios of the same round with their spread, the share of the memory's limit, and the file."""
    phases = [(str(batch), phase) for batch in options.batches for phase in ("prefill", "decode")]
    read = statistics.median(one["bandwidth"] for one in rounds)
    medians = {
        side: {
            f"{phase} {batch}": round(
                statistics.median(one["sides"][side][batch][phase] for one in rounds), 1
            )
            for batch, phase in phases
        }
        for side in sides
    }
    print(f"\nmedians of {len(rounds)} rounds, tokens a second over all sequences; memory {read:.0f} GB/s")
    print(f"{'':18}" + "".join(f"{phase + ' ' + batch:>13}" for batch, phase in phases) + "  of limit alone")
    shares = {}
    for side, values in medians.items():
        shares[side] = round(values.get("decode 1", float("nan")) * weight_bytes(side) / (read * 1e9), 3)
        numbers = "".join(f"{value:13.0f}" for value in values.values())
        print(f"{side:18}{numbers}{shares[side]:16.0%}")
    ratios = {
        f"{ours} / {theirs}": {
            f"{phase} {batch}{clock}": spread(
                [
                    one["sides"][ours][batch][phase + clock] / one["sides"][theirs][batch][phase + clock]
                    for one in rounds
                ]
            )
            for clock in ("", " by processor time")
            for batch, phase in phases
        }
        for ours, theirs in PAIRS
        if theirs in sides
    }
    for pair, found in ratios.items():
        print(pair)
        for phase, ratio in found.items():
            print(f"  {phase:30} {ratio['median']:6.2f} ({ratio['low']:.2f} - {ratio['high']:.2f})")
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "threads": options.threads,
        "load": [round(value, 1) for value in os.getloadavg()],  # of other programs too
        "tokens": options.tokens,
        "read_gb_per_second": round(read, 1),
        "tokens_per_second": medians,
        "share_of_memory_limit_alone": shares,
        "ratios": ratios,
        "rounds": rounds,
    }
    path = Path(__file__).parent / "results" / "engine.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"benchmark": "engine", "tokens_per_second": medians, "ratios": ratios}))


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


if __name__ == "__main__":
    main()
