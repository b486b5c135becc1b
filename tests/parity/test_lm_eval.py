"""lm-eval's scores of one model: over HTTP, in this process, and by its own transformers backend.

A canary guards the whole path: the model knows facts by heart, so a server that ignored `echo` or shifted
its log-probabilities by one would fall to chance here, without any error.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.parity
lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval[api]")

COLOURS = ("red", "green", "blue", "white")
NAMES = tuple(
    f"{first}{last}" for first in ("Ar", "Bo", "Ce", "Du", "El") for last in ("na", "mir", "tov", "lis")
)
TEMPLATE = "The house of {name} is {colour}."


@pytest.fixture(scope="module")
def facts() -> list[dict[str, str]]:
    rng = random.Random(0)
    return [{"name": name, "colour": rng.choice(COLOURS)} for name in NAMES]


@pytest.fixture(scope="module")
def folder(facts, tmp_path_factory) -> Path:
    """A model that knows every fact by heart, trained in seconds."""
    from glasshouse.model import ModelConfig, initialise, save
    from glasshouse.tokenizer import Tokenizer

    texts = [TEMPLATE.format(**fact) for fact in facts]
    tokenizer = Tokenizer.train(texts * 4, 320)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
    )
    model = initialise(config, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.eos_id] * (longest - len(row)) for row in rows])
    for _ in range(200):
        loss = model.loss(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("lm_eval") / "model"
    save(model, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def tasks(facts, tmp_path_factory) -> Path:
    """Three local tasks, one for each kind of request that lm-eval knows."""
    work = tmp_path_factory.mktemp("tasks")
    rows = work / "facts.jsonl"
    rows.write_text("".join(json.dumps(fact | {"text": TEMPLATE.format(**fact)}) + "\n" for fact in facts))
    head = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(rows)},
        "test_split": "train",
        "num_fewshot": 0,
    }
    kinds = {
        "house_choice": {
            "output_type": "multiple_choice",
            "doc_to_text": "The house of {{name}} is",
            "doc_to_choice": list(COLOURS),
            "doc_to_target": "{{colour}}",
            "metric_list": [{"metric": "acc"}],
        },
        "house_text": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        },
        "house_generate": {
            "output_type": "generate_until",
            "doc_to_text": "The house of {{name}} is",
            "doc_to_target": "{{colour}}",
            "generation_kwargs": {"until": ["."], "max_gen_toks": 8, "do_sample": False, "temperature": 0.0},
            "metric_list": [{"metric": "exact_match"}],
            "filter_list": [
                {"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
            ],
        },
    }
    for name, kind in kinds.items():
        (work / f"{name}.yaml").write_text(json.dumps(head | {"task": name} | kind))  # JSON is YAML
    return work


@pytest.fixture(scope="module")
def address(folder):
    """`glasshouse serve` in a process of its own."""
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    line = [sys.executable, "-c", code, "serve", str(folder), "--port", "0"]
    log = folder.parent / "log"
    with log.open("w") as out:
        process = subprocess.Popen(line, stdout=out, stderr=out)
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield found[0]
    process.terminate()
    process.wait(30)


def evaluate(model, tasks: Path, **arguments) -> dict[str, dict]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    names = ["house_choice", "house_text", "house_generate"]
    return lm_eval.simple_evaluate(
        model=model, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0, **arguments
    )


@pytest.fixture(scope="module")
def in_process(folder, tasks):
    from glasshouse.evaluation.lm_eval_model import LMEvalModel
    from glasshouse.inference import LanguageModel

    return evaluate(LMEvalModel(LanguageModel.load(folder, device="cpu")), tasks)


@pytest.fixture(scope="module", params=["remote", "huggingface"])
def over_http(request, address, folder, tasks):
    """With the server's tokenizer endpoints, and with the folder's tokenizer in transformers."""
    os.environ.setdefault("OPENAI_API_KEY", "none")
    own = {"tokenizer": str(folder)} if request.param == "huggingface" else {}
    with urllib.request.urlopen(f"{address}/v1/models") as reply:
        name = json.load(reply)["data"][0]["id"]
    arguments = {
        "model": name,
        "base_url": f"{address}/v1/completions",
        "tokenizer_backend": request.param,
        "max_length": 64,
        "num_concurrent": 4,
        **own,
    }
    return evaluate("local-completions", tasks, model_args=arguments)


@pytest.fixture(scope="module")
def by_transformers(folder, tasks):
    arguments = {"pretrained": str(folder), "dtype": "float32", "device": "cpu"}
    return evaluate("hf", tasks, model_args=arguments)


def log_likelihoods(result: dict) -> dict[tuple[str, int, int], float]:
    """Every log-likelihood of every sample, by task, row and choice."""
    found = {}
    for task in ("house_choice", "house_text"):
        for sample in result["samples"][task]:
            for place, response in enumerate(sample["resps"]):
                value = response[0] if isinstance(response, list) else response
                value = value[0] if isinstance(value, list | tuple) else value
                found[task, sample["doc_id"], place] = float(value)
    return found


def texts(result: dict) -> list[str]:
    rows = sorted(result["samples"]["house_generate"], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0] for sample in rows]


def same(ours: dict, theirs: dict) -> None:
    ours_, theirs_ = log_likelihoods(ours), log_likelihoods(theirs)
    assert ours_.keys() == theirs_.keys()
    assert len(ours_) == len(NAMES) * (len(COLOURS) + 1)
    for key, value in ours_.items():
        assert value == pytest.approx(theirs_[key], abs=1e-4), key
    assert texts(ours) == texts(theirs)


def test_scores_in_this_process_are_those_of_transformers(in_process, by_transformers):
    same(in_process, by_transformers)


def test_scores_over_http_are_those_in_this_process(over_http, in_process):
    same(over_http, in_process)


def test_a_model_that_knows_everything_scores_far_above_chance_over_http(over_http):
    results = over_http["results"]
    assert results["house_choice"]["acc,none"] > 0.9  # chance: 0.25
    assert results["house_generate"]["exact_match,none"] > 0.9
    assert results["house_text"]["bits_per_byte,none"] < 1.0
