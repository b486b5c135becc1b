"""Steps of SFT, DPO, a reward model and GRPO, here and with `trl`: tokens a second on the same work.

    python benchmarks/alignment.py [--data DIR/preference/hh_harmless.jsonl.gz] [--rounds 3] [--steps 4]

A random Qwen3-shaped model (6 layers, 256 wide, vocabulary 4,096) and the conversations of HH-RLHF, tokenized
once, are written into a folder. Each side is a process of its own, which trains on the same 16 conversations
or pairs in each step, in their order in the file and in bfloat16 over float32 weights; the sides take turns.
A step's time goes from its begin to the next one's, so making the batch, the optimizer and the loop count,
the first two steps apart. No side logs, evaluates or saves meanwhile. Tokens are those of the conversations,
without padding; for GRPO, of 2 prompts with 8 replies of at most `--new` tokens each.

The losses of the first step say that both sides do the same. What differs is each side's own way: here rows
are packed and blocks are optimized by Muon, `trl` pads and uses AdamW. Both run DPO's reference model, a
second random one, in every step. The learning rates are next to nothing, so that replies stay alike.

Rates are told by the clock and by processor time: on a busy machine, with --threads 1, only the latter mean
something.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glasshouse.core.devices import machine

RESULTS = Path(__file__).parent / "results" / "alignment.json"
SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
METHODS = ("sft", "dpo", "reward", "grpo")
BATCH, GROUP, WARMUP = 16, 8, 2
LONGEST = 512
"""Tokens of a conversation; longer ones are left out."""
RATE, BETA = 1e-7, 0.1
CLOCKS = ("seconds", "processor")

Found = dict[str, Any]
"""Of a method: "seconds" and "processor" seconds of each step, its "tokens", and the "loss" of the first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("GLASSHOUSE_TEST_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data, "preference/hh_harmless.jsonl.gz"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--side", choices=("glasshouse", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.side:
        sides = OURS if options.side == "glasshouse" else TRL
        print(json.dumps({method: sides[method](options) for method in options.methods}))
        return
    if options.data is None:
        parser.error("give --data, or set GLASSHOUSE_TEST_DATA")
    sides = ["glasshouse"]
    if importlib.util.find_spec("trl") is None:
        print("notice: trl is not installed, so it is left out", file=sys.stderr)
    else:
        sides.append("trl")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        write_models(options)
        rounds = []
        for index in range(options.rounds):
            order = sides if index % 2 == 0 else sides[::-1]
            rounds.append({side: subprocess_side(side, options) for side in order})
    report(rounds, options)


def write_models(options: argparse.Namespace) -> None:
    """Policy, reference and reward model, and the tokens of as many pairs as the steps need."""
    from glasshouse.alignment.preference_pairs import encode_pair
    from glasshouse.alignment.written import encode_chat
    from glasshouse.files import read_preferences
    from glasshouse.model import ModelConfig, initialise, save
    from glasshouse.model.scalar_head import ScalarTransformer, save_scalar
    from glasshouse.tokenizer import Tokenizer

    pairs = list(read_preferences(options.data))
    texts = (m["content"] for pair in pairs for side in ("prompt", "chosen", "rejected") for m in pair[side])
    tokenizer = Tokenizer.train(texts, SHAPE["vocab_size"])
    for seed, name in enumerate(("policy", "reference", "reward")):
        model = initialise(ModelConfig(model_type="qwen3", **SHAPE), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.02, generator=generator)
        if name == "reward":
            model = ScalarTransformer.on_trunk(model)
            model.score.weight.data.normal_(0, 0.02, generator=generator)
            save_scalar(model, tokenizer, options.folder / name)
        else:
            save(model, tokenizer, options.folder / name)
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        sides, cut = encode_pair(tokenizer, pair, LONGEST)
        if sides is not None and not cut and len(rows) < BATCH * (options.steps + WARMUP):
            whole = encode_chat(tokenizer, [*pair["prompt"], *pair["chosen"]])
            rows.append(
                {
                    "prompt": pair["prompt"],
                    "assistant": whole.assistant_mask,
                    "chosen": {"ids": sides[0].ids, "mask": sides[0].assistant_mask},
                    "rejected": {"ids": sides[1].ids, "mask": sides[1].assistant_mask},
                }
            )
    (options.folder / "rows.json").write_text(json.dumps(rows))


def subprocess_side(side: str, options: argparse.Namespace) -> dict[str, Found]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(options.folder)]
    command += ["--steps", str(options.steps), "--new", str(options.new), "--methods", *options.methods]
    command += ["--threads", str(options.threads)]
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    environment = {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    found = json.loads(output.splitlines()[-1])
    for method, values in found.items():
        rates = [sum(values["tokens"]) / sum(values[clock]) for clock in CLOCKS]
        told = "{:8.0f} tok/s, {:8.0f} a processor second".format(*rates)
        print(f"{side:10} {method:6} {told}, first loss {values['loss']:.5f}", file=sys.stderr)
    return found


def steps_of(options: argparse.Namespace) -> list[list[Mapping[str, Any]]]:
    """The rows of each step."""
    rows = json.loads((options.folder / "rows.json").read_text())
    return [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]


def token_counts(options: argparse.Namespace, sides: tuple[str, ...]) -> list[int]:
    """Tokens of each timed step."""
    return [sum(len(row[s]["ids"]) for row in rows for s in sides) for rows in steps_of(options)[WARMUP:]]


def now() -> tuple[float, float]:
    """Seconds by the clock, and of the processor for all threads of this process."""
    return time.perf_counter(), time.process_time()


def found(marks: list[tuple[float, float]], tokens: list[int], loss: float) -> Found:
    """`marks`: when each step began, and when the last one ended."""
    steps = itertools.pairwise(marks[WARMUP:])
    times = zip(*[[end - begin for begin, end in zip(*step, strict=True)] for step in steps], strict=True)
    return {**dict(zip(CLOCKS, map(list, times), strict=True)), "tokens": tokens, "loss": loss}


# Here


def our_training(objective: Any, model: Any, options: argparse.Namespace, begin: str) -> Found:
    """Train with the loop; a step begins where it calls the objective's method called `begin`."""
    from glasshouse.training import train

    marks: list[tuple[float, float]] = []
    losses: list[float] = []
    begins, loss = getattr(objective, begin), objective.loss

    def marked(*arguments: Any) -> Any:
        marks.append(now())
        return begins(*arguments)

    def noted(*arguments: Any) -> Any:
        part = loss(*arguments)
        if not losses:
            losses.append(float(part.loss_sum.detach()) / part.count)
        return part

    setattr(objective, begin, marked)
    objective.loss = noted
    with tempfile.TemporaryDirectory() as out:
        train(
            model,
            objective,
            objective.config,
            out,
            save_model=lambda trained, folder: marks.append(now()),
        )
    return found(marks, [], losses[0])


def settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "tokens": BATCH * LONGEST * (options.steps + WARMUP),
        "batch_tokens": BATCH * LONGEST,
        "sequence_length": LONGEST,
        "dtype": "bfloat16",
        **dict.fromkeys(("muon_lr", "embed_lr", "head_lr", "scalar_lr"), RATE),
        "log_every": 1_000_000,
        "checkpoint_every_seconds": 1e9,
    }


def our_sft(options: argparse.Namespace) -> Found:
    from glasshouse.alignment.sft import SFTConfig
    from glasshouse.data import PackedBatches, Shards, ShardWriter
    from glasshouse.model import load
    from glasshouse.training import NextToken
    from glasshouse.training.objective import TokenBatch

    class Conversations(NextToken):
        """The packed rows of so many conversations in each step, instead of so many rows."""

        config = SFTConfig.parse(settings(options))

        def __init__(self, folder: Path, rows: list[Mapping[str, Any]]) -> None:
            with ShardWriter(folder, SHAPE["vocab_size"]) as writer:
                for row in rows:
                    writer.add(row["chosen"]["ids"], mask=row["assistant"])
            shards = Shards(folder)
            one_row = PackedBatches(shards, LONGEST, 1, seed=0)
            super().__init__(PackedBatches(shards, LONGEST, round(one_row.steps_per_epoch), seed=0))

    folder = options.folder / "our_sft"
    parts = [Conversations(folder / str(i), rows) for i, rows in enumerate(steps_of(options))]
    objective = parts[0]
    objective.batch = lambda step: TokenBatch.from_arrays(parts[step].batches.batch(0))
    result = our_training(objective, load(options.folder / "policy"), options, "batch")
    return result | {"tokens": token_counts(options, ("chosen",))}


def our_pairs(options: argparse.Namespace, pad: int | None) -> Any:
    """The pairs, 16 in each step, in their order."""
    from safetensors.torch import save_file

    from glasshouse.alignment.pair_batches import Pairs
    from glasshouse.alignment.preference_pairs import JUDGEMENTS, SHARDS
    from glasshouse.data import ShardWriter

    class InOrder(Pairs):
        def _epoch(self, number: int) -> list[np.ndarray]:
            return np.split(np.arange(len(self)), len(self) // BATCH)

    rows = [row for rows in steps_of(options) for row in rows]
    folder = options.folder / "our_pairs"
    with ShardWriter(folder / SHARDS, SHAPE["vocab_size"]) as writer:
        for row in rows:
            for side in ("chosen", "rejected"):
                writer.add(row[side]["ids"], mask=row[side]["mask"])
    judgements = {"preferred": torch.ones(len(rows)), "margin": torch.zeros(len(rows))}
    save_file(judgements, folder / JUDGEMENTS)
    return InOrder(folder, LONGEST, BATCH * LONGEST, seed=0, pad=pad)


def our_dpo(options: argparse.Namespace) -> Found:
    from glasshouse.alignment.dpo import DPO, DPOConfig
    from glasshouse.model import load

    class Both(DPO):
        """Asks the reference in every step, not once before the first."""

        def loss(self, model: Any, batch: Any) -> Any:
            frozen.compute_dtype = model.compute_dtype
            with torch.no_grad():
                self.reference[batch.pairs] = batch.sequence_logprobs(frozen)
            return super().loss(model, batch)

    frozen = load(options.folder / "reference")
    config = DPOConfig.parse({**settings(options), "beta": BETA})
    pairs = our_pairs(options, None)
    objective = Both(pairs, torch.zeros(len(pairs), 2), config)
    result = our_training(objective, load(options.folder / "policy"), options, "batch")
    return result | {"tokens": token_counts(options, ("chosen", "rejected"))}


def our_reward(options: argparse.Namespace) -> Found:
    from glasshouse.alignment.reward_model import PreferenceFit, RewardConfig
    from glasshouse.model.scalar_head import load_scalar
    from glasshouse.tokenizer import Tokenizer

    pad = Tokenizer.load(options.folder / "reward").pad_id
    objective: Any = PreferenceFit(our_pairs(options, pad))
    objective.config = RewardConfig.parse(settings(options))
    result = our_training(objective, load_scalar(options.folder / "reward"), options, "batch")
    return result | {"tokens": token_counts(options, ("chosen", "rejected"))}


def our_grpo(options: argparse.Namespace) -> Found:
    from glasshouse.alignment.experience import Sampler
    from glasshouse.alignment.grpo import GRPO, GRPOConfig
    from glasshouse.alignment.judge import Program
    from glasshouse.alignment.prompts import Prompts
    from glasshouse.model import load
    from glasshouse.tokenizer import Tokenizer

    class Counted(GRPO):
        def batch(self, step: int) -> Any:
            batch = super().batch(step)
            counts.append(batch.tokens)
            return batch

    class InOrder(Prompts):
        def choose(self, number: int, count: int, seed: int) -> list[int]:
            return list(range(number * count, (number + 1) * count))

    counts: list[int] = []
    tokenizer = Tokenizer.load(options.folder / "policy")
    config = GRPOConfig.parse(
        {**settings(options), "group": GROUP, "max_new_tokens": options.new, "kl_coef": 0.0}
    )
    prompts = InOrder.encode(grpo_prompts(options), tokenizer, LONGEST - options.new)
    judge = Program("letters", lambda example, text: letters(text))
    objective = Counted(Sampler(prompts, tokenizer, judge, config), config)
    result = our_training(objective, load(options.folder / "policy"), options, "sample")
    return result | {"tokens": counts[-options.steps :]}


def grpo_prompts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Prompts, in their order, that leave room for the replies."""
    rows = [row for rows in steps_of(options) for row in rows]
    short = [row for row in rows if len(row["chosen"]["ids"]) + options.new <= LONGEST]
    return [{"prompt": row["prompt"]} for row in short[: (options.steps + WARMUP) * BATCH // GROUP]]


def letters(text: str) -> float:
    """A reward that tells replies apart: the share of the letter e."""
    return text.count("e") / max(1, len(text))


# With trl


def trl_training(trainer: Any, tokens: Callable[[], list[int]]) -> Found:
    """Train; a step begins where the trainer tells its callbacks so."""
    from transformers import TrainerCallback

    marks: list[tuple[float, float]] = []
    losses: list[float] = []

    class Marks(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **named: Any) -> None:
            marks.append(now())

        def on_train_end(self, *arguments: Any, **named: Any) -> None:
            marks.append(now())

    compute_loss = trainer.compute_loss

    def noted(*arguments: Any, **named: Any) -> Any:
        loss = compute_loss(*arguments, **named)
        if not losses:
            losses.append(float(loss.detach()))
        return loss

    trainer.compute_loss = noted
    trainer.add_callback(Marks())
    trainer.train()
    return found(marks, tokens(), losses[0])


def trl_settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": str(options.folder / "trl"),
        "per_device_train_batch_size": BATCH,
        "max_steps": options.steps + WARMUP,
        "learning_rate": RATE,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1_000_000,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": True,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }


def trl_parts(options: argparse.Namespace, rows: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    """(the dataset, the policy, the tokenizer)."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dataset = Dataset.from_list([rows(row) for step in steps_of(options) for row in step])
    model = AutoModelForCausalLM.from_pretrained(options.folder / "policy", dtype=torch.float32)
    return dataset, model, AutoTokenizer.from_pretrained(options.folder / "policy")


def trl_sft(options: argparse.Namespace) -> Found:
    from trl import SFTConfig, SFTTrainer

    def row(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"input_ids": row["chosen"]["ids"], "assistant_masks": [int(m) for m in row["assistant"]]}

    dataset, model, tokenizer = trl_parts(options, row)
    arguments = SFTConfig(max_length=LONGEST, packing=False, shuffle_dataset=False, **trl_settings(options))
    trainer = SFTTrainer(model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    return trl_training(trainer, lambda: token_counts(options, ("chosen",)))


def trl_dpo(options: argparse.Namespace) -> Found:
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    class Tokenized(DPOTrainer):
        """Of trl's trainers the one that wants texts; the same tokens for both sides are there already."""

        def _prepare_dataset(self, dataset: Any, *arguments: Any) -> Any:
            return dataset

    def row(row: Mapping[str, Any]) -> dict[str, Any]:
        reply = row["chosen"]["mask"].index(True)
        after = {side: counted(row[side])[reply:] for side in ("chosen", "rejected")}
        ids = {f"{side}_ids": ids for side, ids in after.items()}
        return {"prompt_ids": row["chosen"]["ids"][:reply], **ids}

    def counted(side: Mapping[str, Any]) -> list[int]:
        """Up to the last token of the reply, without the line's end after it."""
        return [i for i, _ in zip(side["ids"], range(last(side["mask"]) + 1), strict=False)]

    def last(mask: list[bool]) -> int:
        return max(i for i, written in enumerate(mask) if written)

    dataset, model, tokenizer = trl_parts(options, row)
    reference = AutoModelForCausalLM.from_pretrained(options.folder / "reference", dtype=torch.float32)
    trainer = Tokenized(
        model,
        ref_model=reference,
        args=DPOConfig(max_length=LONGEST, beta=BETA, **trl_settings(options)),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    return trl_training(trainer, lambda: token_counts(options, ("chosen", "rejected")))


def trl_reward(options: argparse.Namespace) -> Found:
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    dataset, _, tokenizer = trl_parts(
        options, lambda row: {f"{side}_ids": row[side]["ids"] for side in ("chosen", "rejected")}
    )
    model = AutoModelForSequenceClassification.from_pretrained(options.folder / "reward", dtype=torch.float32)
    trainer = RewardTrainer(
        model,
        args=RewardConfig(max_length=LONGEST, **trl_settings(options)),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    return trl_training(trainer, lambda: token_counts(options, ("chosen", "rejected")))


def trl_grpo(options: argparse.Namespace) -> Found:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    counts: list[int] = []

    def reward(prompts: Any, completions: Any, completion_ids: Any, **named: Any) -> list[float]:
        asked = [tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"] for p in prompts]
        counts.append(sum(len(a) + len(b) - 1 for a, b in zip(asked, completion_ids, strict=True)))
        return [letters(reply[0]["content"]) for reply in completions]

    _, model, tokenizer = trl_parts(options, lambda row: {})
    arguments = GRPOConfig(
        num_generations=GROUP,
        max_completion_length=options.new,
        shuffle_dataset=False,
        beta=0.0,
        **trl_settings(options),
    )
    trainer = GRPOTrainer(
        model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(grpo_prompts(options)),
        processing_class=tokenizer,
    )
    return trl_training(trainer, lambda: counts[-options.steps :])


OURS = {"sft": our_sft, "dpo": our_dpo, "reward": our_reward, "grpo": our_grpo}
TRL = {"sft": trl_sft, "dpo": trl_dpo, "reward": trl_reward, "grpo": trl_grpo}


# The result


def report(rounds: list[dict[str, dict[str, Found]]], options: argparse.Namespace) -> None:
    """The medians, the ratios with their spread, and the file of results."""
    result: dict[str, Any] = {
        "benchmark": "alignment",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "versions": {
            name: metadata.version(name) for name in ("torch", "transformers", "trl") if known(name)
        },
        "load": [round(value, 1) for value in os.getloadavg()],
        "batch": BATCH,
        "threads": options.threads,
        "new_tokens": options.new,
        "methods": {},
    }
    for method in options.methods:
        values: dict[str, Any] = {}
        for side in rounds[0]:
            of_rounds = [{**one[side][method], "samples": [BATCH] * options.steps} for one in rounds]
            values[side] = {
                f"{name} a {clock}": spread([sum(of[name]) / sum(of[key]) for of in of_rounds])
                for key, clock in zip(CLOCKS, ("second", "processor second"), strict=True)
                for name in ("tokens", "samples")
            }
            values[side] |= {
                "tokens a step": round(statistics.mean(of_rounds[0]["tokens"])),
                "first loss": of_rounds[0]["loss"],
            }
        if "trl" in values:
            for key, clock in zip(CLOCKS, ("", " by processor time"), strict=True):
                times = [
                    cost(one["trl"][method], key) / cost(one["glasshouse"][method], key) for one in rounds
                ]
                values[f"times faster{clock}"] = spread(times)
        result["methods"][method] = values
        print(method, json.dumps(values), file=sys.stderr)
    if set(options.methods) == set(METHODS) and "trl" in rounds[0]:
        RESULTS.write_text(json.dumps({**result, "rounds": rounds}, indent=2) + "\n")
    print(json.dumps(result))


def cost(of: Found, clock: str) -> float:
    """Seconds a token."""
    return sum(of[clock]) / sum(of["tokens"])


def spread(values: list[float]) -> dict[str, float]:
    measured = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, 2) for name, value in measured.items()}


def known(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def commit() -> str:
    """The checkout's commit, or "unknown" outside of one."""
    asked = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
