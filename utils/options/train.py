"""Flags of ``train``."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

from patchcore.settings import F1_MAX, is_own_network
from utils.errors import UsageError
from utils.options.data import DataOptions
from utils.options.fit import FitOptions
from utils.options.flags import Flags, flag, refuse


@dataclass(frozen=True)
class ImagesOptions(Flags):
    """Images to learn without the layout of a dataset."""

    paths: tuple[str, ...] = flag(
        (),
        "input",
        "normal images: files, folders (searched recursively), patterns, or - for paths on "
        "standard input; for a category folder of a dataset, its normal training images are used; "
        "without PATHs, the categories in --path_data are learned",
        metavar="PATH",
        positional=True,
    )
    category: str = flag("", "input", "name of the model for the images at PATHs", metavar="NAME")
    keep_copies: bool = flag(
        False,
        "input",
        "also learn duplicate images, those with the same pixels; by default each is learned once, "
        "except in published datasets",
    )
    extend: str = flag(
        "",
        "input",
        "folder of one trained model, with its model.json, to which the images at PATHs are added; "
        "only patches that the model does not cover yet are added; the settings are those of the "
        "model",
        metavar="DIR",
    )


@dataclass(frozen=True)
class TrainOptions(FitOptions, ImagesOptions):
    """Options of a training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extend:
            self._check_extend()
        elif bool(self.paths) != bool(self.category):
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

    def check_given(self, given: Collection[str]) -> None:
        """Check that each flag has an effect on what is trained."""
        if self.extend:
            used = {*EXTENDS, *(["backbone"] if any(map(is_own_network, self.backbone)) else [])}
            refuse(
                [name for name in given if name not in used],
                "with --extend: the images at PATHs are added to the model with its own settings, "
                "and the model stays in its folder",
            )
        elif self.paths:
            data = [entry.name for entry in fields(DataOptions) if entry.name in given]
            refuse(data, "with PATHs: they describe a dataset, which is learned without PATHs")
        refuse({"holdout"} & set(given), "with train, which learns the held-out images too")
        super().check_given(given)

    def _check_extend(self) -> None:
        """Check the values of the flags that ``--extend`` needs."""
        if not self.paths or self.category:
            raise UsageError(
                "expected PATHs of new images with --extend, and no --category: the model has one"
            )


# Flags with an effect on --extend; the others were decided when the model was trained.
EXTENDS = (
    *("extend", "paths", "keep_copies", "max_megapixels", "on_error"),
    *("weights", "batch_size", "num_workers", "device", "save_index", "quiet", "verbose"),
)
# Own images may have a defect at the border, which the crop of the paper does not show.
DEFAULTS = TrainOptions(path_trained=Path("trained"), protocol="whole_image")
