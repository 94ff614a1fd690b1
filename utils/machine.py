"""Description of the machine and the installation, for ``run.json``; number of usable cores.

torch is imported only in functions that need it: the flags need the number of cores first.
"""

import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Protocol

# Raised if the form of run.json changes.
RUN_FORMAT = 1

log = logging.getLogger(__name__)

RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
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
        device: Device of the computation.
    """
    import torch

    return {
        "format": RUN_FORMAT,
        "state": "running",
        "start": now(),
        "end": None,
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "options": asdict(options),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        **_installation(),
    }


@cache
def _installation() -> dict[str, object]:
    """Return the facts for ``run.json`` that do not change while the process runs."""
    return {
        "cpu": describe_cpu(),
        "commit": source_commit(),
        "versions": package_versions(),
    }


def log_start(record: Mapping[str, object]) -> None:
    """Log how a run began, from its `start_record`."""
    log.debug("%s", record["command"])
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    log.debug("%s, %s threads; commit %s", record["cpu"], record["threads"], record["commit"])
    log.debug("%s", packages)


def now() -> str:
    """Return the local time with its offset from UTC, for example 2026-11-25T10:00:00+0100."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that may affect results."""
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
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
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
