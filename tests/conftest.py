"""One thread a test: tiny models gain nothing from more, and lose much when cores are busy."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it
