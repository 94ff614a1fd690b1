"""Flags of ``train``."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.settings import F1_MAX
from utils.errors import UsageError
from utils.options.fit import FitOptions
from utils.options.flags import Flags, flag


@dataclass(frozen=True)
class ImagesOptions(Flags):
    """Images to learn that are not in a dataset's layout."""

    paths: tuple[str, ...] = flag(
        (),
        "input",
        "normal images: files, folders (searched recursively), patterns, or - for paths on "
        "standard input; of a category of a dataset, its normal training images; without PATHs, "
        "the categories in --path_data are learned",
        metavar="PATH",
        positional=True,
    )
    category: str = flag("", "input", "name of the model for the images at PATHs", metavar="NAME")
    keep_copies: bool = flag(
        False,
        "input",
        "also learn images with the same pixels as another one; by default each is learned once, "
        "except in published datasets",
    )


@dataclass(frozen=True)
class TrainOptions(FitOptions, ImagesOptions):
    """Options of a training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.paths) != bool(self.category):
            raise UsageError("expected PATHs and their --category together, or neither")
        if Path(self.category).name != self.category or self.category.startswith("."):
            raise UsageError(f"expected a plain name as --category, found {self.category!r}")
        if F1_MAX in (self.threshold, self.threshold_pixel):
            raise UsageError(
                f"expected --threshold train_quantile or a number: {F1_MAX} needs the labelled "
                "test images of evaluate"
            )
        if len(set(self.seed)) > 1 or not self.saves_models:
            raise UsageError("expected one --seed, and a --path_trained to save the models in")
        if len(self.shot_counts) > 1:
            raise UsageError(
                f"expected one number of training images, found --shots "
                f"{' '.join(map(str, self.shots))}; evaluate compares several"
            )


# Own images may have a defect at the border, which the crop of the paper does not show.
DEFAULTS = TrainOptions(path_trained=Path("trained"), protocol="whole_image")
