"""How much memory is free where a device computes."""

import math
import os
from pathlib import Path

import torch

# Assumed in gigabytes where a system tells nothing: what most machines for such work have.
UNKNOWN_MEMORY = 8.0


def free_memory(device: torch.device) -> float:
    """Return the free memory in gigabytes: of a GPU its own, otherwise the host's."""
    if device.type == "cuda":
        # Memory that torch holds for its next tensors is free as well.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + held) / 1e9
    listing = Path("/proc/meminfo")
    if listing.is_file():
        fields = dict(line.split(":") for line in listing.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
        return min(free, _left_in_container()) / 1e9
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        # Not every system tells what is free: half of what it has.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2e9
    return UNKNOWN_MEMORY


def _left_in_container() -> float:
    """Return the bytes that a container's limit leaves; infinite without one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        # Recently read files count as used, and make room when memory is needed.
        used -= sum(
            int(x.split()[1]) for x in lines if x.startswith(("inactive_file", "active_file"))
        )
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit == "max" else max(int(limit) - used, 0)
