"""Race nanoGPT's published CPU recipe on Tiny Shakespeare.

    python benchmarks/shakespeare.py --nanogpt PATH --data tinyshakespeare.txt

PATH is a checkout of nanoGPT. Both sides run as whole processes from a cold start, in turn, several
times: nanoGPT's own command from its README (4 layers, 128 wide, block 64, batch 12, 2,000 steps), and
`glasshouse run shakespeare`. Every final model is scored in the same way, outside the timed processes:
the whole validation split (the last tenth), every character but the first predicted once, in
non-overlapping windows of the model's own training context, and again of nanoGPT's.

First table: wall-clock to reach nanoGPT's final loss, and our loss when given nanoGPT's time. Second table:
nanoGPT's exact shape, context, batch and number of tokens.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from glasshouse.core.devices import machine
from glasshouse.inference import LanguageModel

NANOGPT_CONTEXT, NANOGPT_STEPS, NANOGPT_ROWS = 64, 2000, 12
NANOGPT_COMMAND = (
    "train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    f"--block_size={NANOGPT_CONTEXT} --batch_size={NANOGPT_ROWS} --n_layer=4 --n_head=4 --n_embd=128 "
    f"--max_iters={NANOGPT_STEPS} --lr_decay_iters={NANOGPT_STEPS} --dropout=0.0"
).split()
SAME_SHAPE = {
    "model.num_hidden_layers": 4,
    "model.hidden_size": 128,
    "model.num_attention_heads": 4,
    "model.num_key_value_heads": 4,
    "model.head_dim": 32,
    # SwiGLU has three matrices where GPT-2 has two: 3 x 320 columns stand against 2 x 512.
    "model.intermediate_size": 320,
    "model.max_position_embeddings": NANOGPT_CONTEXT,
    "pretrain.sequence_length": NANOGPT_CONTEXT,
    "pretrain.batch_tokens": NANOGPT_CONTEXT * NANOGPT_ROWS,
    "pretrain.tokens": NANOGPT_CONTEXT * NANOGPT_ROWS * NANOGPT_STEPS,
}
"""nanoGPT's shape and token budget in our recipe's keys."""

Logits = Callable[[torch.Tensor], torch.Tensor]


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a whole process; its output goes to a log beside it."""
    start = time.perf_counter()
    with open(folder / "log.txt", "w") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
    return time.perf_counter() - start


def run_nanogpt(checkout: Path, data: Path, folder: Path) -> float:
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git"), dirs_exist_ok=True)
    shutil.copy(data, folder / "data/shakespeare_char/input.txt")
    subprocess.run(
        [sys.executable, "data/shakespeare_char/prepare.py"], cwd=folder, check=True, capture_output=True
    )
    return timed([sys.executable, *NANOGPT_COMMAND], folder)


def run_glasshouse(data: Path, folder: Path, settings: dict[str, object]) -> float:
    folder.mkdir(parents=True)
    command = [str(Path(sys.executable).with_name("glasshouse")), "run", "shakespeare"]
    command += ["--data", str(data), "--out", str(folder / "run")]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return timed(command, folder)


def nanogpt_logits(folder: Path, text: str) -> tuple[Logits, torch.Tensor, int]:
    """(logits function, ids of the validation split, parameters) of a finished nanoGPT run."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkpoint = torch.load(folder / "out-shakespeare-char/ckpt.pt", weights_only=True)
    model = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    model.eval()
    characters = sorted(set(text))
    ids = torch.tensor([characters.index(c) for c in validation(text)])
    # Given targets, nanoGPT returns the logits of every position.
    return lambda rows: model(rows, rows)[0], ids, sum(p.numel() for p in model.parameters())


def glasshouse_logits(folder: Path, text: str) -> tuple[Logits, torch.Tensor, int]:
    model = LanguageModel.load(folder / "run/pretrain/model", device="cpu")
    ids = torch.tensor(model.tokenizer.encode(validation(text)))
    assert len(ids) == len(validation(text)), "one token a character"
    return model.logits, ids, model.model.num_parameters()


def validation(text: str) -> str:
    return text[int(len(text) * 0.9) :]


@torch.no_grad()
def score(logits: Logits, ids: torch.Tensor, context: int) -> float:
    """Mean nats a character over non-overlapping windows; the last, shorter window counts too."""
    inputs, targets = ids[:-1], ids[1:]
    whole = len(inputs) // context * context
    loss = 0.0
    for rows, wanted in zip(
        inputs[:whole].view(-1, context).split(256), targets[:whole].view(-1, context).split(256), strict=True
    ):
        loss += float(F.cross_entropy(logits(rows).float().flatten(0, 1), wanted.flatten(), reduction="sum"))
    if whole < len(inputs):
        rest = logits(inputs[None, whole:]).float()[0]
        loss += float(F.cross_entropy(rest, targets[whole:], reduction="sum"))
    return loss / len(targets)


def scored(kind: str, folder: Path, text: str, seconds: float) -> dict[str, object]:
    logits, ids, parameters = (nanogpt_logits if kind == "nanoGPT" else glasshouse_logits)(folder, text)
    context = NANOGPT_CONTEXT
    result: dict[str, object] = {"who": kind, "seconds": round(seconds, 2), "parameters": parameters}
    if kind != "nanoGPT":
        metrics = (folder / "run/pretrain/metrics.jsonl").read_text().splitlines()
        last = json.loads(metrics[-1])
        result |= {"tokens": last["tokens"], "training_seconds": last["seconds"]}
        state = json.loads((folder / "run/pretrain/stage.json").read_text())
        context = state["config"]["sequence_length"]
    result["context"] = context
    result["loss"] = round(score(logits, ids, context), 4)
    result["loss_at_nanogpt_context"] = round(score(logits, ids, NANOGPT_CONTEXT), 4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("GLASSHOUSE_TEST_DATA")
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument(
        "--data",
        type=Path,
        default=default and Path(default) / "pretrain/tinyshakespeare.txt",
        help="the text",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/shakespeare.json")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data FILE is needed (or GLASSHOUSE_TEST_DATA)")
    data = arguments.data.resolve()
    text = data.read_text()

    race: list[dict] = []
    same: list[dict] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for repeat in range(arguments.repeats):
            theirs_at, ours_at = root / f"nano{repeat}", root / f"ours{repeat}"
            theirs = scored("nanoGPT", theirs_at, text, run_nanogpt(arguments.nanogpt, data, theirs_at))
            ours = scored("glasshouse", ours_at, text, run_glasshouse(data, ours_at, {}))
            # The rate of the run just made says how many tokens fit into nanoGPT's time.
            start_up = ours["seconds"] - ours["training_seconds"]
            rate = ours["tokens"] / ours["training_seconds"]
            fitting = int((theirs["seconds"] - start_up) * rate)
            long_at, same_at = root / f"long{repeat}", root / f"same{repeat}"
            long_run = run_glasshouse(data, long_at, {"pretrain.tokens": fitting})
            race.append(
                {"theirs": theirs, "ours": ours, "ours_long": scored("glasshouse", long_at, text, long_run)}
            )
            same_run = run_glasshouse(data, same_at, SAME_SHAPE)
            same.append({"theirs": theirs, "ours": scored("glasshouse", same_at, text, same_run)})
            print(json.dumps(race[-1]), json.dumps(same[-1]["ours"]), sep="\n", flush=True)

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "nanogpt_loss": spread([r["theirs"]["loss"] for r in race]),
        "our_loss": spread([r["ours"]["loss"] for r in race]),
        "our_loss_at_nanogpt_context": spread([r["ours"]["loss_at_nanogpt_context"] for r in race]),
        "reached": all(r["ours"]["loss"] <= r["theirs"]["loss"] for r in race),
        "times_faster": spread([round(r["theirs"]["seconds"] / r["ours"]["seconds"], 2) for r in race]),
        "our_loss_in_nanogpt_time": spread([r["ours_long"]["loss"] for r in race]),
        "same_shape_loss": spread([r["ours"]["loss"] for r in same]),
        "same_shape_times_faster": spread(
            [round(r["theirs"]["seconds"] / r["ours"]["seconds"], 2) for r in same]
        ),
        "race": race,
        "same_shape": same,
    }
    print(f"\n{'medians':34}{'nanoGPT':>10}{'glasshouse':>12}")
    for title, ours_is, key, their_key in (
        ("whole process, seconds", "ours", "seconds", "seconds"),
        ("validation loss, own context", "ours", "loss", "loss"),
        ("validation loss, context 64", "ours", "loss_at_nanogpt_context", "loss"),
        ("loss in the time of nanoGPT", "ours_long", "loss", "loss"),
    ):
        theirs = statistics.median(r["theirs"][their_key] for r in race)
        ours = statistics.median(r[ours_is][key] for r in race)
        print(f"{title:34}{theirs:>10.4g}{ours:>12.4g}")
    print(f"\nnanoGPT's shape, context, batch and tokens: {result['same_shape_loss']['median']:.4f}")
    verdict = "reached" if result["reached"] else "NOT reached in every run"
    print(f"nanoGPT's final loss: {verdict}, {result['times_faster']['median']} times as fast\n")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k not in ("race", "same_shape", "machine")}))


if __name__ == "__main__":
    main()
