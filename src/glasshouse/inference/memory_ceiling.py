"""How much memory the cache may take where nobody says it."""

from __future__ import annotations

import os

import torch

SHARE = {"cpu": 0.25, "cuda": 0.8}
"""Of what is free: a CPU's memory is everybody's, a GPU's is ours."""


def default_pages(
    page_bytes: int, page_tokens: int, context: int, max_rows: int, device: torch.device
) -> int:
    """Pages for `max_rows` whole contexts, or as many as a share of the free memory holds."""
    whole = -(-context // page_tokens)
    wanted = whole * max_rows
    free = free_bytes(device)
    if free is None:
        return wanted
    return min(wanted, max(int(free * SHARE.get(device.type, 0.25)) // page_bytes, 1))


def free_bytes(device: torch.device) -> int | None:
    """Memory that could be taken now; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None
    return min(free, _container_bytes() or free)


def _container_bytes() -> int | None:
    """What a container's own limit leaves (cgroup v2)."""
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = int(file.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            return max(limit - int(file.read()), 0)
    except (OSError, ValueError):  # no such limit: the file is missing, or says "max"
        return None
