"""Whether torch.compile pays for itself in this run, and switching it on.

Not on a CPU. Measured on 2 cores (AMD Zen 5, torch 2.13, 2M parameters, 8,192 tokens a step): compiled
blocks saved 30% of a step of PyTorch's own operators for 30 seconds of processor time, but the native
kernels of `model/` save more than half for one second, and a compiler cannot see into them. Elsewhere
compiling is tried where the run is long enough to earn the attempt back, and kept where the measured
step is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from glasshouse.core.progress import say
from glasshouse.model import Transformer

COMPILE_SECONDS = 60.0
"""What an attempt may cost, about: a few graphs for one block, which all blocks share. An assumption."""

HOPED_SAVING = 0.3
"""Share of a step that compiling saved where it helped most; a run too short to earn COMPILE_SECONDS
back at this rate does not try."""


def compile_blocks(model: Transformer) -> None:
    """Compile every block in place: equal blocks share their graphs, so depth costs no compile time.

    Without deterministic algorithms, compiled code on several threads gave other weights in every
    process.
    """
    torch.use_deterministic_algorithms(True)
    for block in model.model.layers:
        block.compile()


def use_eager_blocks(model: Transformer) -> None:
    """Undo `compile_blocks`."""
    for block in model.model.layers:
        block._compiled_call_impl = None  # where nn.Module.compile keeps its result


@contextmanager
def uncompiled(active: bool) -> Iterator[None]:
    """Run the block's model calls without compiled graphs: evaluation has other shapes at each call."""
    if not active:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def choose(
    setting: str, model: Transformer, device: str, steps: int, one_pass: Callable[[], None]
) -> tuple[bool, str]:
    """Decide by measurement; returns (whether the blocks are compiled, the reason to record).

    `one_pass` runs forward and backward on one batch and waits for the result. Afterwards the model is
    compiled where the first value is true.
    """
    if setting == "off":
        return False, "set by the user"
    if device == "cpu":
        if setting == "on":
            say("notice: torch.compile is for other devices; on a CPU the native kernels take its place")
        return False, "on a CPU the native kernels take its place"
    eager = min(_seconds(one_pass), _seconds(one_pass))
    planned = steps * eager
    if setting == "auto" and planned * HOPED_SAVING < COMPILE_SECONDS:
        return False, f"{steps} steps of {eager:.3g} s are too few to earn the compile time back"
    compile_blocks(model)
    try:
        first = _seconds(one_pass)
        compiled = min(_seconds(one_pass), _seconds(one_pass))
    except Exception as error:  # a missing compiler or header ends in one of many classes
        use_eager_blocks(model)
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        say(f"notice: torch.compile does not work here, training goes on without it: {line}")
        return False, f"torch.compile failed: {line}"
    reason = f"{compiled:.3g} s a step against {eager:.3g} s without, after {first:.0f} s of compiling"
    if setting == "auto" and compiled > 0.97 * eager:
        use_eager_blocks(model)
        return False, reason
    return True, reason


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
