"""The flags of ``infer``."""

import math
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UsageError
from utils.flags import flag
from utils.machine import usable_cores
from utils.model_choice import ModelChoice
from utils.options import DEVICES
from utils.thresholds import METHODS, read_threshold

PICTURES = ("none", "anomalies", "all")
LAYOUTS = ("panels", "overlay")
AS_TRAINED = "trained"
THRESHOLDS = (AS_TRAINED, *METHODS)


@dataclass(frozen=True)
class InferOptions(ModelChoice):
    """What is to be judged, by which model, and what is wanted of it."""

    paths: tuple[str, ...] = flag(
        (),
        "input",
        "image files, folders (searched through), patterns such as 'parts/**/*.png', videos (mp4, "
        "avi, mov, mkv), a camera's number, or - for paths on standard input, one a line",
        metavar="PATH",
        positional=True,
    )
    watch: str = flag(
        "",
        "input",
        "go on with the files that come into this folder, until interrupted",
        metavar="FOLDER",
    )
    every: int = flag(1, "input", "of videos and cameras, judge each n-th frame", metavar="N")
    threshold: str = flag(
        AS_TRAINED,
        "verdict",
        "from which score on an image is an anomaly: as trained, train_quantile, f1_max, or a "
        "number",
        metavar="METHOD|NUMBER",
    )
    threshold_pixel: str = flag(
        AS_TRAINED,
        "verdict",
        "the same for pixels of the anomaly map, which masks and regions are made by",
        metavar="METHOD|NUMBER",
    )
    nominal_fpr: float = flag(
        0.01,
        "verdict",
        "share of normal images that may be called anomalous: another one than this means "
        "--threshold train_quantile",
        metavar="R",
    )
    nominal_fpr_pixel: float = flag(
        0.001,
        "verdict",
        "the same for normal pixels and --threshold_pixel",
        metavar="R",
    )
    regions: int = flag(
        5, "verdict", "how many of the largest anomalous regions are written", metavar="N"
    )
    path_result: Path = flag(
        Path("result_infer"),
        "output",
        "folder for predictions.csv, predictions.jsonl and what else is asked for; an earlier "
        "run's move to its subfolder 'earlier'",
        metavar="DIR",
    )
    json: bool = flag(
        False, "output", "print the lines of predictions.jsonl instead of lines for people"
    )
    pictures: str = flag("none", "output", "of which pictures to draw", choices=PICTURES)
    layout: str = flag(
        "panels",
        "output",
        "how: the panels of an evaluation, with what it was compared with, or the anomaly map on "
        "the whole picture",
        choices=LAYOUTS,
    )
    explain_top: int = flag(
        0,
        "output",
        "for how many of a picture's most anomalous patches the JSON lines tell their nearest "
        "training patches; with --pictures also in explanations/*.png",
        metavar="N",
    )
    save_masks: bool = flag(
        False, "output", "write masks/*.png of the pictures' size: 255 where anomalous, else 0"
    )
    save_maps: bool = flag(
        False, "output", "write maps/*.npy: float32 (H, W) of the model's crop (map_box says where)"
    )
    annotate: bool = flag(
        False, "output", "write annotated/*.mp4 of each video: its judged frames with the map on"
    )
    score_max: float = flag(
        0.0,
        "output",
        "upper end of the pictures' colours (default: twice the pixel threshold)",
        metavar="S",
    )
    batch_size: int = flag(
        8,
        "computing",
        "images at a time; 1 for the least delay, the evaluation's for the same last digits",
        metavar="N",
    )
    num_workers: int = flag(
        -1, "computing", "threads that read images; 0 for none, -1 for one per core", metavar="N"
    )
    device: str = flag(
        "auto",
        "computing",
        "where to compute; auto takes the GPU where there is one",
        choices=DEVICES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {
            **{"every": 1, "regions": 0, "explain_top": 0},
            **{"batch_size": 1, "num_workers": -1},
        }.items():
            if getattr(self, name) < least:
                raise UsageError(
                    f"expected --{name} of at least {least}, found {getattr(self, name)}"
                )
        for name in ("nominal_fpr", "nominal_fpr_pixel"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"expected --{name} in (0, 1], found {getattr(self, name):g}")
        if not (self.score_max >= 0 and math.isfinite(self.score_max)):
            raise UsageError(f"expected --score_max above 0, found {self.score_max}")
        for name in ("threshold", "threshold_pixel"):
            read_threshold(getattr(self, name), name, THRESHOLDS)

    def check_input(self) -> None:
        """Raise UsageError unless there is one kind of thing to judge."""
        if bool(self.paths) == bool(self.watch):
            raise UsageError(
                "expected what to judge: PATHs, or --watch FOLDER, and not both; python main.py "
                "infer --help tells more"
            )

    @property
    def threads(self) -> int:
        """How many threads read."""
        return usable_cores() if self.num_workers < 0 else self.num_workers
