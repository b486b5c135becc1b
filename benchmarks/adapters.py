"""LoRA here and with `peft` on `transformers`: time of a step and memory, on the same model and data.

    python benchmarks/adapters.py [--rounds 3] [--steps 6] [--rows 4] [--length 256]

A random Llama-shaped model of 110 million parameters (30 layers, 576 wide, vocabulary 8,192) is written
once. Each side is a process of its own that loads the folder, hangs the same adapter (rank 16 on every linear
map of the blocks) on it, and trains on the same rows of random tokens with AdamW in bfloat16; where the
processor has no bfloat16 products, both use float32. The sides take turns. A step's time is the median over
the steps after the first two; memory is the process's peak above what it held after its imports.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from glasshouse.core.devices import choose_dtype, machine

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
RANK, ALPHA, RATE = 16, 32, 1e-4
SIDES = ("glasshouse", "peft", "glasshouse nf4", "glasshouse full")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        dtype = choose_dtype("cpu")[0]
        rounds = [
            {side: subprocess_side(side, folder, dtype, options) for side in SIDES}
            for _ in range(options.rounds)
        ]
    report(rounds, dtype, options)


def write_model(folder: Path) -> None:
    from glasshouse.model import ModelConfig, initialise, save

    model = initialise(ModelConfig(model_type="llama", **SHAPE), seed=1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.02, generator=torch.Generator().manual_seed(parameter.numel()))
    save(model, None, folder)


def subprocess_side(side: str, folder: str, dtype: str, options: argparse.Namespace) -> dict[str, float]:
    sizes = ["--steps", str(options.steps), "--rows", str(options.rows), "--length", str(options.length)]
    command = [sys.executable, __file__, "--side", side, "--model", folder, "--dtype", dtype, *sizes]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(output.splitlines()[-1])
    print(f"{side:16} {found['seconds']:.3f} s a step, {found['mib']:.0f} MiB, loss {found['loss']:.4f}")
    return found


def run_side(options: argparse.Namespace) -> dict[str, float]:
    """One side, in a process of its own."""
    dtype = getattr(torch, options.dtype)
    import glasshouse.alignment.sft
    import glasshouse.training.loop  # noqa: F401

    if options.side == "peft":
        import peft  # noqa: F401
        from transformers import LlamaForCausalLM  # noqa: F401
    before = forget_peak()
    step = peft_step(options, dtype) if options.side == "peft" else our_step(options, dtype)
    generator = torch.Generator().manual_seed(0)
    times, loss = [], 0.0
    for _ in range(options.steps + 2):
        ids = torch.randint(0, SHAPE["vocab_size"], (options.rows, options.length), generator=generator)
        start = time.perf_counter()
        loss = step(ids)
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times[2:]), "mib": peak_mib() - before, "loss": loss}


def forget_peak() -> float:
    """MiB held now; the peak is counted from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_mib() -> float:
    return _status("VmHWM")


def _status(key: str) -> float:
    """MiB of one line of this process's status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def our_step(options: argparse.Namespace, dtype: torch.dtype) -> Callable[[torch.Tensor], float]:
    from glasshouse.model import load
    from glasshouse.model.lora import LoRAConfig, add_adapter
    from glasshouse.model.quantize import quantize_model
    from glasshouse.training.optimizers import AdamW

    full = options.side.endswith("full")
    model = load(options.model, dtype=torch.float32 if full else dtype)
    if options.side.endswith("nf4"):
        quantize_model(model, "nf4")
        model.recompute = True  # as `sft` with `quantize` does
    if not full:
        add_adapter(model, LoRAConfig(r=RANK, alpha=ALPHA))
    model.compute_dtype = dtype
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = AdamW(trained, dict.fromkeys(trained, RATE), (0.9, 0.999), 1e-8)

    def step(ids: torch.Tensor) -> float:
        targets = torch.cat([ids[:, 1:], torch.full((len(ids), 1), -100)], 1)
        loss = model.loss(ids, targets) / (targets != -100).sum()
        loss.backward()
        optimizer.step(1.0, 0.0)
        for parameter in trained.values():
            parameter.grad = None
        return loss.item()

    return step


def peft_step(options: argparse.Namespace, dtype: torch.dtype) -> Callable[[torch.Tensor], float]:
    import peft
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0
    )

    def step(ids: torch.Tensor) -> float:
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def report(rounds: list[dict[str, dict[str, float]]], dtype: str, options: argparse.Namespace) -> None:
    """The medians, the ratios with their spread, and the file of results."""
    speed = [r["peft"]["seconds"] / r["glasshouse"]["seconds"] for r in rounds]
    memory = [r["glasshouse"]["mib"] / r["peft"]["mib"] for r in rounds]
    quantized = [r["glasshouse nf4"]["mib"] / r["glasshouse full"]["mib"] for r in rounds]
    medians = {
        side: {key: statistics.median(r[side][key] for r in rounds) for key in ("seconds", "mib")}
        for side in SIDES
    }
    print(f"\n{'medians':16} {'s a step':>9} {'MiB':>7}")
    for side, values in medians.items():
        print(f"{side:16} {values['seconds']:9.3f} {values['mib']:7.0f}")
    lines = {
        "LoRA: times as fast as peft": speed,
        "LoRA: memory beside peft's": memory,
        "QLoRA: memory beside full fine-tuning's": quantized,
    }
    for name, values in lines.items():
        print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})")
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "dtype": dtype,
        "rows": options.rows,
        "length": options.length,
        "medians": medians,
        "times_faster": speed,
        "memory_ratio": memory,
        "qlora_to_full_memory": quantized,
        "rounds": rounds,
    }
    path = Path(__file__).parent / "results" / "adapters.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
