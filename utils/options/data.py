"""Flags that select the data."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.settings import Bounds
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
    shots: tuple[int, ...] = flag(
        (),
        "input",
        "numbers of training images, chosen by --seed, for few-shot results; several in one run "
        "have rows of their own in all tables (default: all training images)",
        metavar="N",
        bounds=Bounds(1),
    )

    @property
    def shot_counts(self) -> tuple[int | None, ...]:
        """The numbers of training images, ascending and without duplicates; None for all."""
        return tuple(sorted(set(self.shots))) or (None,)
