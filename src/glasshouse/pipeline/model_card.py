"""The README.md of an exported model: what it is, what it was trained on, how it was measured."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from glasshouse import __version__
from glasshouse.core.record import read_record
from glasshouse.model import read_config
from glasshouse.pipeline.summary import RECIPE, Summary, probe_names, show_value


def card(folder: Path, out: Path, license: str | None) -> str:
    """Markdown, with the Hub's YAML header, about the model `folder`, exported to `out`.

    What is not known is said to be unknown.
    """
    run = folder.parent.parent
    known = (run / RECIPE).is_file()
    config = read_config(out)
    head = {
        "license": license or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["glasshouse", config.model_type],
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {run.name if known else folder.name}",
        (
            f"A decoder of the family `{config.model_type}` with {config.num_parameters():,} parameters, "
            f"{config.num_hidden_layers} layers, {config.hidden_size} wide, a vocabulary of "
            f"{config.vocab_size:,} and a context of {config.context:,} tokens. Exported by Glasshouse "
            f"{__version__}."
        ),
    ]
    if known:
        parts += [_data(run), _recipe(run), _probes(run)]
    else:
        parts.append("It was not trained in a Glasshouse run: its data and training are not known here.")
    return "\n\n".join(parts) + "\n"


def _data(run: Path) -> str:
    lines = []
    statistics = run / "corpus" / "statistics.json"
    if statistics.is_file():
        train = json.loads(statistics.read_text(encoding="utf-8"))["train"]
        lines.append(f"{train['documents']:,} documents, {train['bytes']:,} bytes of text for pre-training.")
    else:
        lines.append("The run has no corpus of its own; see its base model for the pre-training.")
    if (record := read_record(run / "sft")) is not None:
        rows = [f"{record.results.get(kind, 0):,} {kind}" for kind in ("conversations", "documents")]
        files = [f"`{Path(path).name}`" for path in Summary.read(run).recipe.get("sft", {}).get("data", ())]
        lines.append(f"Fine-tuned on {' and '.join(rows)} of {', '.join(files) or 'the recipe'}.")
    return "## Data\n\n" + "\n".join(lines)


def _recipe(run: Path) -> str:
    return f"## Recipe\n\n```yaml\n{(run / RECIPE).read_text(encoding='utf-8').strip()}\n```"


def _probes(run: Path) -> str:
    summary = Summary.read(run)
    if not summary.models:
        return "## Probes\n\nThe run measured none."
    rows = [f"| probe | {' | '.join(summary.models)} |", "|---" * (len(summary.models) + 1) + "|"]
    for probe in probe_names(summary):
        values = [show_value(summary.probes[model].get(probe)) for model in summary.models]
        rows.append(f"| `{probe}` | {' | '.join(values)} |")
    return "## Probes\n\nValue and 95% interval.\n\n" + "\n".join(rows)
