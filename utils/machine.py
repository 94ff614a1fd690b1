"""Facts about the machine and the installation, for records and for choosing memory and threads.

torch is imported only where a device is asked about: the flags need the number of cores, and must
not wait for torch.
"""

import math
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Protocol

# Gigabytes assumed where a system does not report its memory: common for such work.
UNKNOWN_MEMORY = 8.0
PACKAGES = (
    "torch",
    "torchvision",
    "faiss-gpu",
    "faiss-cpu",
    "numpy",
    "opencv-python-headless",
    "scipy",
    "matplotlib",
    "scikit-learn",
)


class Device(Protocol):
    """A torch device."""

    type: str


def start_record(options: object, device: Device) -> dict[str, object]:
    """Return the contents of ``run.json`` at the start of a run.

    Args:
        options: Options of the run, a dataclass.
        device: Device that computes.
    """
    import torch

    return {
        "state": "running",
        "start": now(),
        "end": None,
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "options": asdict(options),
        "device": describe_device(device),
        "cpu": describe_cpu(),
        "threads": torch.get_num_threads(),
        "commit": source_commit(),
        "versions": package_versions(),
    }


def now() -> str:
    """Return the local time with its offset, as records have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that influence results."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_device(device: Device) -> str:
    """Return a CUDA GPU's name, or the type of another device, for example ``CPU``."""
    if device.type != "cuda":
        return device.type.upper()
    import torch

    return torch.cuda.get_device_name(device)


def describe_cpu() -> str:
    """Return the processor's name and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        models = [line for line in listing.read_text().splitlines() if "model name" in line]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, {usable_cores()} cores"


def usable_cores() -> int:
    """Return the number of cores that this process may use, possibly fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(device: Device) -> float:
    """Return the free memory in gigabytes of a device."""
    if device.type == "cuda":
        import torch

        # Memory that torch caches for its next tensors is free as well.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + held) / 1e9
    listing = Path("/proc/meminfo")
    if listing.is_file():
        fields = dict(line.split(":") for line in listing.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
        return min(free, _left_in_container()) / 1e9
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        # Not every system reports its free memory: assume half of the installed one.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2e9
    return UNKNOWN_MEMORY


def _left_in_container() -> float:
    """Return the free bytes within a container's limit; infinity without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        # The page cache counts as used, but is freed on demand.
        used -= sum(
            int(x.split()[1]) for x in lines if x.startswith(("inactive_file", "active_file"))
        )
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit == "max" else max(int(limit) - used, 0)


def source_commit() -> str | None:
    """Return the checkout's commit, with ``+changes`` if files differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
