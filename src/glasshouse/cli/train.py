"""`glasshouse train`: one training stage alone, on the user's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from glasshouse.cli import tables
from glasshouse.cli.run import Device, MoreData, all_data

app = typer.Typer(
    help="Train one stage alone on your own files; the result is a run folder.",
    no_args_is_help=True,
    epilog="\b\nExample:\n  glasshouse train sft --model runs/pocket-mini --data chats.jsonl --out runs/mine",
)

Files = Annotated[list[str], typer.Option("--data", metavar="PATH...", help="Files or folders.")]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Run folder to write; the same command continues it.")
]
Keys = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="key=v", help="Change a setting of the stage; may be repeated."),
]

StartModel = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="Run or model folder to start from.")
]
Earlier = Annotated[
    list[str] | None,
    typer.Option(
        "--earlier", metavar="PATH", help="Conversations learnt before, to be kept in mind; repeatable."
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--lora", metavar="RANK", help="Freeze the model and train a low-rank adapter of this rank."
    ),
]


def _adapted(lora: int | None) -> list[str]:
    """The setting that --lora stands for."""
    return [f"lora.r={lora}"] if lora is not None else []


def _rehearsing(earlier: list[str] | None) -> list[str]:
    """The settings that --earlier stands for."""
    return [f"earlier_data={json.dumps(earlier)}", "ptx_coef=1"] if earlier else []


@app.command(
    epilog="\b\nExample:\n  glasshouse train sft --model runs/pocket-mini --data chats.jsonl --out runs/mine"
)
def sft(
    model: StartModel,
    data: Files,
    out: Out,
    lora: Rank = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", metavar="nf4|int8|int4", help="With --lora: hold the frozen weights so."),
    ] = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Fine-tune on conversations, {"messages": [{"role", "content"}, ...]} a line, or documents, {"text"}."""
    from glasshouse.pipeline.train import train_sft

    changes = _adapted(lora)
    changes += [f"quantize={quantize}"] if quantize is not None else []
    changes += settings or []
    tables.show_run(train_sft(model, all_data(data, more), out, changes, device).path)


@app.command(
    epilog="\b\nExample:\n  glasshouse train reward --model runs/mine --data pairs.jsonl --out runs/reward"
)
def reward(
    model: StartModel,
    data: Files,
    out: Out,
    lora: Rank = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Train a reward model on pairs, {"prompt": [...], "chosen": [...], "rejected": [...]} a line."""
    _on_pairs("reward", model, all_data(data, more), out, lora, settings, device)


@app.command(
    epilog="\b\nExample:\n  glasshouse train dpo --model runs/mine --data pairs.jsonl --out runs/dpo"
)
def dpo(
    model: StartModel,
    data: Files,
    out: Out,
    lora: Rank = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Prefer the chosen replies of pairs, {"prompt": [...], "chosen": [...], "rejected": [...]} a line."""
    _on_pairs("dpo", model, all_data(data, more), out, lora, settings, device)


def _on_pairs(
    stage: Literal["reward", "dpo"],
    model: str,
    data: list[str],
    out: Path,
    lora: int | None,
    settings: list[str] | None,
    device: str | None,
) -> None:
    from glasshouse.pipeline.train import train_stage

    changes = _adapted(lora)
    tables.show_run(
        train_stage(stage, model, {"data": data}, out, [*changes, *(settings or [])], device).path
    )


@app.command(
    epilog="\b\nExample:\n  glasshouse train rejection --model runs/mine --data sums.jsonl --out runs/best"
)
def rejection(
    model: StartModel,
    data: Files,
    out: Out,
    reward: Annotated[
        str | None,
        typer.Option("--reward", metavar="MODEL", help="Reward model that judges; else the rows' answers."),
    ] = None,
    lora: Rank = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Fine-tune on the best of n replies to prompts, {"prompt": ..., "answer"?: ...} a line."""
    from glasshouse.core.model_folders import reward_folder
    from glasshouse.pipeline.train import train_stage

    judge = [f"reward_model={reward_folder(reward)}"] if reward is not None else []
    changes = [*judge, *_adapted(lora), *(settings or [])]
    section = {"data": all_data(data, more), "epochs": 1.0}
    tables.show_run(train_stage("rejection", model, section, out, changes, device).path)


@app.command(
    epilog="\b\nExample:\n  glasshouse train ppo --model runs/mine --reward runs/reward --data prompts.jsonl"
    " --out runs/ppo"
)
def ppo(
    model: StartModel,
    reward: Annotated[
        str, typer.Option("--reward", metavar="MODEL", help="Reward model: a run of `train reward`.")
    ],
    data: Files,
    out: Out,
    earlier: Earlier = None,
    lora: Rank = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Learn from a reward model, by replies to prompts, {"prompt": ...} a line."""
    from glasshouse.core.model_folders import reward_folder
    from glasshouse.pipeline.train import train_stage

    changes = [f"reward_model={reward_folder(reward)}", *_adapted(lora), *_rehearsing(earlier)]
    changes += settings or []
    section = {"data": all_data(data, more), "epochs": 1.0}
    tables.show_run(train_stage("ppo", model, section, out, changes, device).path)


@app.command(
    epilog="\b\nExample:\n  glasshouse train grpo --model runs/mine --data sums.jsonl --out runs/grpo"
)
def grpo(
    model: StartModel,
    data: Files,
    out: Out,
    earlier: Earlier = None,
    lora: Rank = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Learn from answers that can be checked: replies to {"prompt": ..., "answer": ...}, a line each."""
    from glasshouse.pipeline.train import train_stage

    changes = [*_adapted(lora), *_rehearsing(earlier), *(settings or [])]
    section = {"data": all_data(data, more), "epochs": 1.0}
    tables.show_run(train_stage("grpo", model, section, out, changes, device).path)


@app.command(
    epilog="\b\nExample:\n  glasshouse train calibrate --model runs/mine --data questions.jsonl"
    " --out runs/honest"
)
def calibrate(
    model: StartModel,
    data: Files,
    out: Out,
    earlier: Earlier = None,
    lora: Rank = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Learn to say "I do not know" and how sure, from questions, {"prompt": ..., "answer": ...} a line."""
    from glasshouse.pipeline.train import train_stage

    changes = [f"lora.r={lora}"] if lora is not None else []
    changes += [f"earlier_data={json.dumps(earlier)}"] if earlier else []
    changes += settings or []
    section = {"data": all_data(data, more)}
    tables.show_run(train_stage("calibrate", model, section, out, changes, device).path)


@app.command(
    epilog="\b\nExample:\n  glasshouse train constitution --model runs/mine --data prompts.jsonl"
    " --constitution mine.yaml --critic runs/larger --out runs/principled"
)
def constitution(
    model: StartModel,
    data: Files,
    out: Out,
    constitution: Annotated[
        str,
        typer.Option("--constitution", metavar="FILE", help="YAML file of principles, or general."),
    ] = "general",
    critic: Annotated[
        str,
        typer.Option("--critic", metavar="MODEL", help="Who criticises: a model, or self."),
    ] = "self",
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Learn from principles: critiques and revisions of replies to prompts, {"prompt": ...} a line."""
    from glasshouse.pipeline.train import train_stage

    files = all_data(data, more)
    section = {"data": files, "constitution": constitution, "critic": critic}
    tables.show_run(train_stage("constitution", model, section, out, settings or (), device).path)


@app.command(epilog="\b\nExample:\n  glasshouse train pretrain --data books/ --out runs/books")
def pretrain(
    data: Files,
    out: Out,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Go on from this model instead of from nothing."),
    ] = None,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Train on plain text; without --model also a tokenizer, with the shapes of the recipe own-text."""
    from glasshouse.pipeline.train import train_pretrain

    tables.show_run(train_pretrain(all_data(data, more), out, model, settings or (), device).path)


@app.command(
    epilog="\b\nExample:\n"
    "  glasshouse train context --model runs/books --data books/ --out runs/long"
    " --set max_position_embeddings=2048"
)
def context(
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Run or model folder whose window to extend.")
    ],
    data: Files,
    out: Out,
    settings: Keys = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Give a model a longer window, --set max_position_embeddings=N, and train it on long texts."""
    from glasshouse.pipeline.train import train_context

    tables.show_run(train_context(model, all_data(data, more), out, settings or (), device).path)
