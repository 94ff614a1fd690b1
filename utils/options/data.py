"""Flags that select the data."""

from dataclasses import dataclass
from pathlib import Path

from utils.options.flags import Flags, flag


@dataclass(frozen=True)
class DataOptions(Flags):
    """Dataset and categories."""

    path_data: Path = flag(
        Path("mvtec_anomaly_detection"),
        "input",
        "folder with one folder per category in the layout of MVTec AD",
        metavar="DIR",
    )
    categories: tuple[str, ...] = flag(
        (),
        "input",
        "categories to process, in this order (default: all, sorted)",
        metavar="NAME",
    )
