"""Flags of ``infer``."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from patchcore.setting_values import SHARE, Bounds
from patchcore.settings import IMAGE_RATE, PIXEL_RATE
from utils.errors import UsageError, named_flag
from utils.options.computing import ComputingOptions
from utils.options.flags import Flags, flag, refuse
from utils.options.ignoring import IgnoringOptions
from utils.options.log import LogOptions
from utils.options.model_choice import ModelChoice
from utils.options.reading import SKIP, STOP, ReadingOptions
from utils.options.result_folder import check_result_folder
from utils.options.thresholds import AS_TRAINED, METHODS, ThresholdOptions

PICTURES = ("none", "anomalies", "all")
LAYOUTS = ("panels", "overlay")
THRESHOLDS = (AS_TRAINED, *METHODS)


@dataclass(frozen=True)
class InputOptions(Flags):
    """Images to judge."""

    paths: tuple[str, ...] = flag(
        (),
        "input",
        "image files, videos, folders (searched recursively), patterns such as 'parts/**/*.png', "
        "the number of a camera, or - for paths on standard input, one per line",
        metavar="PATH",
        positional=True,
    )
    watch: str = flag(
        "",
        "input",
        "judge the files that arrive in this folder, until interrupted",
        metavar="FOLDER",
    )
    frame_stride: int = flag(
        1,
        "input",
        "judge every n-th frame of videos and cameras",
        metavar="N",
        bounds=Bounds(1),
    )

    on_error: str = flag(
        SKIP,
        "input",
        "what to do with an image that cannot be judged: skip it and continue, or stop; "
        "the exit status is 2 in both cases",
        choices=(SKIP, STOP),
    )

    def check_input(self) -> None:
        """Raise UsageError unless there are PATHs or an existing folder to watch."""
        if bool(self.paths) == bool(self.watch):
            raise UsageError(
                "expected images to judge: either PATHs or --watch FOLDER; python main.py infer "
                "--help explains both"
            )
        with named_flag("--watch"):
            if self.watch and not Path(self.watch).is_dir():
                raise UsageError(f"expected a folder to watch, found none: {self.watch} (--watch)")


@dataclass(frozen=True)
class VerdictOptions(ThresholdOptions):
    """Thresholds and regions."""

    THRESHOLD_METHODS: ClassVar[tuple[str, ...]] = THRESHOLDS

    threshold: str = flag(
        AS_TRAINED,
        "thresholds",
        "image threshold: trained (saved with the model), train_quantile, f1_max, or a number",
        metavar="METHOD|NUMBER",
    )
    threshold_pixel: str = flag(
        AS_TRAINED,
        "thresholds",
        "pixel threshold for masks and regions, likewise",
        metavar="METHOD|NUMBER",
    )
    nominal_fpr: float | None = flag(
        None,
        "thresholds",
        "set the image threshold by train_quantile for this nominal false-positive rate, in (0, 1]"
        f" (default: the model's threshold; {IMAGE_RATE:g} with --threshold train_quantile)",
        metavar="R",
        bounds=SHARE,
    )
    nominal_fpr_pixel: float | None = flag(
        None,
        "thresholds",
        "set the pixel threshold likewise, for this rate of pixels (default: the model's "
        f"threshold; {PIXEL_RATE:g} with --threshold_pixel train_quantile)",
        metavar="R",
        bounds=SHARE,
    )
    regions: int = flag(
        5,
        "thresholds",
        "largest number of anomalous regions to report per image",
        metavar="N",
        bounds=Bounds(0),
    )


@dataclass(frozen=True)
class OutputOptions(Flags):
    """Predictions, figures and other results."""

    path_result: Path = flag(
        Path("result_infer"),
        "output",
        "folder for predictions.csv, predictions.jsonl and other results; a run resumes from the "
        "results of an earlier run with the same PATHs, model and settings, and moves other "
        "results to the subfolder 'earlier'",
        metavar="DIR",
    )
    fresh: bool = flag(
        False,
        "output",
        "move the results of an earlier run to the subfolder 'earlier' and judge all images",
    )
    page_limit: int = flag(
        500,
        "output",
        "number of most anomalous images that index.html shows, each with a thumbnail; 0 for no "
        "page",
        metavar="N",
        bounds=Bounds(0),
    )
    json: bool = flag(
        False, "output", "print the lines of predictions.jsonl instead of readable lines"
    )
    pictures: str = flag("none", "output", "images with a figure", choices=PICTURES)
    layout: str = flag(
        "panels",
        "output",
        "form of the figures: panels as in an evaluation, or the anomaly map as an overlay of the "
        "whole image",
        choices=LAYOUTS,
    )
    explain_top: int = flag(
        0,
        "output",
        "number of most anomalous patches per image with their nearest training patches, in the "
        "JSON lines and, with --pictures, in explanations/*.png",
        metavar="N",
        bounds=Bounds(0),
    )
    save_masks: bool = flag(
        False, "output", "save masks/*.png of the image's size: 255 if anomalous, else 0"
    )
    save_maps: bool = flag(
        False, "output", "save maps/*.npy: float32 (H, W) of the model's crop (see map_box)"
    )
    annotate: bool = flag(
        False, "output", "save annotated/*.mp4 of each video: judged frames with the anomaly map"
    )
    score_max: float = flag(
        0.0,
        "output",
        "score at the upper end of the colour scale (default: twice the pixel threshold)",
        metavar="S",
        bounds=Bounds(0),
    )

    def check_given(self, given: Collection[str]) -> None:
        """Check that no form of figures is given if there are none."""
        super().check_given(given)
        if self.pictures == "none":
            refuse({"layout"} & set(given), "without --pictures: it is the form of the figures")


@dataclass(frozen=True)
class InferOptions(
    LogOptions,
    ComputingOptions,
    OutputOptions,
    VerdictOptions,
    ModelChoice,
    ReadingOptions,
    IgnoringOptions,
    InputOptions,
):
    """Options of an inference."""

    def check_input(self) -> None:
        """Raise UsageError if there are no images, or if they are in the folder of the results."""
        super().check_input()
        check_result_folder(self.path_result, (*self.paths, *filter(None, [self.watch])))
