"""Flags for the machine that computes."""

import re
from dataclasses import dataclass

from patchcore.setting_values import Bounds
from utils.errors import UsageError
from utils.machine import usable_cores
from utils.options.flags import Flags, flag

# Form of a torch device. Whether the device exists is checked when torch is imported.
DEVICE = re.compile(r"[a-z]+(:\d+)?")


@dataclass(frozen=True)
class ComputingOptions(Flags):
    """Device, batches and threads."""

    batch_size: int = flag(
        8,
        "computing",
        "images per batch; larger batches gain nothing on a CPU, a GPU may need 32 or more; "
        "a different batch size may change the last digits of scores",
        metavar="N",
        bounds=Bounds(1),
    )
    num_workers: int = flag(
        -1,
        "computing",
        "threads that read images, and processes (8 at most) that draw the figures of evaluate; 0 "
        "for none, -1 for one per core",
        metavar="N",
        bounds=Bounds(-1),
    )
    device: str = flag(
        "auto",
        "computing",
        "torch device, for example cpu, cuda or cuda:1; auto is the GPU if there is one, else the "
        "CPU",
        metavar="DEVICE",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not DEVICE.fullmatch(self.device):
            raise UsageError(
                "expected a torch device such as cpu, cuda or cuda:1, or auto, found "
                f"{self.device!r} (--device)"
            )

    @property
    def threads(self) -> int:
        """Number of threads that read images."""
        return usable_cores() if self.num_workers < 0 else self.num_workers
