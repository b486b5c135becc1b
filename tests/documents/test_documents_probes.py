"""The analyzer's probes leave nothing behind that a later training in the same process would pay for."""

import os
import subprocess
import sys

import pytest

MEASURE = """
import gc, os, threading, time
import torch
from glasshouse.documents.probes import read_reports
from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, initialise
from glasshouse.tokenizer import Tokenizer
from glasshouse.world import World, WorldConfig

def native():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

tokenizer = Tokenizer.train([], 265)
shape = dict(vocab_size=tokenizer.vocab_size, hidden_size=128, intermediate_size=384, num_hidden_layers=2)
config = ModelConfig.parse({**shape, "max_position_embeddings": 4096})
model = LanguageModel(initialise(config, 1), tokenizer)
model.logits([[1] * 512])  # PyTorch has its threads
before = native()
read_reports(World(WorldConfig(people=20, heldout_people=5), 7), model, 2)
deadline = time.monotonic() + 20
while native() > before and time.monotonic() < deadline:
    gc.collect()  # the engine's own threads end with it
    time.sleep(0.05)
print(native() - before)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not list threads")
def test_reading_reports_leaves_no_thread_of_openmp():
    """libgomp lets a training's threads sleep at every barrier while threads of another team live."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    line = [sys.executable, "-c", MEASURE]
    left = subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(left) == 0
