"""Free memory of a device."""

import math
import os
from pathlib import Path

import torch

# Gigabytes that are assumed if the system does not report its memory.
UNKNOWN_MEMORY = 8.0
# Where Linux reports the memory of a container (control groups, version 2).
CONTAINER = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> float:
    """Return the free memory in gigabytes: a GPU's own, or the host's for a CPU."""
    if device.type == "cuda":
        # Memory that torch holds for its next tensors is also free.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + held) / 1e9
    listing = Path("/proc/meminfo")
    if listing.is_file():
        fields = dict(line.split(":") for line in listing.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
        return min(free, _left_in_container()) / 1e9
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        # The free memory is not reported: assume half of the total.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2e9
    return UNKNOWN_MEMORY


def _left_in_container() -> float:
    """Return the bytes left below a container's limit; infinite without a limit."""
    try:
        limit = (CONTAINER / "memory.max").read_text().strip()
        used = int((CONTAINER / "memory.current").read_text())
        lines = (CONTAINER / "memory.stat").read_text().splitlines()
        # Cached files count as used, but are released when memory is needed.
        used -= sum(
            int(x.split()[1]) for x in lines if x.startswith(("inactive_file", "active_file"))
        )
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit == "max" else max(int(limit) - used, 0)
