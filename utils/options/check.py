"""Flags of ``check``."""

from collections.abc import Collection
from dataclasses import dataclass

from patchcore.setting_values import SEED, Bounds
from utils.errors import UsageError
from utils.options.data import DataOptions
from utils.options.flags import Flags, flag, refuse
from utils.options.log import LogOptions
from utils.options.reading import ReadingOptions


@dataclass(frozen=True)
class SubjectOptions(Flags):
    """What is checked."""

    paths: tuple[str, ...] = flag(
        (),
        "input",
        "folder or file of a dataset, in place of --path_data",
        metavar="PATH",
        max_values=1,
        positional=True,
    )
    model: str = flag(
        "",
        "input",
        "folder of a trained model: list its training images with the largest held-out scores",
        metavar="DIR",
    )
    num_suspects: int = flag(
        20, "input", "number of training images that --model lists", metavar="N", bounds=Bounds(1)
    )
    seed: tuple[int, ...] = flag(
        (0,),
        "input",
        "seed of --holdout",
        metavar="N",
        bounds=SEED,
        max_values=1,
    )


@dataclass(frozen=True)
class CheckOptions(LogOptions, SubjectOptions, ReadingOptions, DataOptions):
    """Options of a check."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.paths and self.model:
            raise UsageError("expected a dataset or a --model to check, found both")

    def check_given(self, given: Collection[str]) -> None:
        """Check that each flag has an effect on what is checked."""
        super().check_given(given)
        if self.model:
            of_data = [name for name in given if name not in OF_MODEL]
            refuse(of_data, "with --model: the model's own training images are listed")
        else:
            refuse({"num_suspects"} & set(given), "without --model")
        if self.paths:
            refuse({"path_data"} & set(given), "with PATH, which takes its place")


# Flags with an effect on --model.
OF_MODEL = ("model", "num_suspects", "quiet", "verbose")
