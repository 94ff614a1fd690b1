"""Flags of ``train``."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.protocols import PROTOCOLS
from patchcore.settings import F1_MAX, Settings
from utils.errors import UsageError
from utils.options.engine import LOCAL
from utils.options.fit import FitOptions
from utils.options.flags import Flags, flag


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

    def _check_extend(self) -> None:
        """Check the flags given with ``--extend``."""
        if not self.paths or self.category:
            raise UsageError(
                "expected PATHs of new images with --extend, and no --category: the model has one"
            )
        if self.engine != LOCAL:
            raise UsageError(
                f"expected no --engine {self.engine} with --extend, which runs in this process: "
                "remove --engine"
            )
        given = self.settings().as_json()
        usual = Settings(**PROTOCOLS[DEFAULTS.protocol]).as_json()
        changed = [name for name, value in usual.items() if given[name] != value]
        if changed:
            raise UsageError(
                f"expected no --{changed[0]} with --extend: the settings are those of the model "
                f"(--extend, --{changed[0]})"
            )
        unused = [name for name in NOT_EXTENDED if getattr(self, name) != getattr(DEFAULTS, name)]
        if unused:
            raise UsageError(
                f"expected no --{unused[0]} with --extend, which keeps the model as it is and adds "
                f"all given images (--extend, --{unused[0]})"
            )


# What is decided when a model is trained.
NOT_EXTENDED = (
    *("shots", "ignore_mask", "bit_depth", "threshold", "threshold_pixel"),
    *("nominal_fpr", "nominal_fpr_pixel", "trained_dtype"),
)
# Own images may have a defect at the border, which the crop of the paper does not show.
DEFAULTS = TrainOptions(path_trained=Path("trained"), protocol="whole_image")
