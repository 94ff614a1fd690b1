"""Flags of ``evaluate`` and ``demo``."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.setting_values import SHARE, Bounds
from utils.options.data import DataOptions
from utils.options.fit import FitOptions
from utils.options.flags import Flags, flag
from utils.options.result_folder import check_result_folder

PICTURES = ("all", "defective", "worst", "none")
CROP, ORIGINAL = "crop", "original"
MAP_SIZES = (CROP, ORIGINAL)


@dataclass(frozen=True)
class OutputOptions(Flags):
    """Tables, figures and other results."""

    path_result: Path = flag(
        Path("result"),
        "output",
        "folder for tables and figures; a run resumes from the results of an earlier run with the "
        "same settings and data, and moves other results to the subfolder 'earlier'",
        metavar="DIR",
    )
    fresh: bool = flag(
        False,
        "output",
        "move the results of an earlier run to the subfolder 'earlier' and start from the "
        "beginning",
    )
    pictures: str = flag(
        "all",
        "output",
        "test images with localization and explanation figures (first seed, every percentage); "
        "worst draws those farthest on the wrong side of the threshold first; the measured time "
        "never includes drawing",
        choices=PICTURES,
    )
    pictures_limit: int = flag(
        0,
        "output",
        "largest number of test images per category with figures; 0 for no limit, or for 10 with "
        "--pictures worst",
        metavar="N",
        bounds=Bounds(0),
    )
    explain_top: int = flag(
        3,
        "output",
        "number of most anomalous patches per image that are explained by their nearest training "
        "patches; 0 for none",
        metavar="N",
        bounds=Bounds(0),
    )
    score_max: float = flag(
        0.0,
        "output",
        "score at the upper end of the colour scale, which then starts at 0, to compare figures "
        "of several runs or percentages; 0 for the range of the category's maps at each "
        "percentage",
        metavar="S",
        bounds=Bounds(0),
    )
    aupro_limit: float = flag(
        0.3,
        "output",
        "false-positive rate up to which AUPRO is integrated; 0.3 as in the MVTec AD benchmark",
        metavar="R",
        bounds=SHARE,
    )
    spro_limit: float = flag(
        0.05,
        "output",
        "false-positive rate up to which AU-sPRO is integrated, for data with saturation "
        "thresholds; 0.05 as in the MVTec LOCO AD benchmark",
        metavar="R",
        bounds=SHARE,
    )
    map_size: str = flag(
        CROP,
        "output",
        "size of masks and maps for the metrics of pixels and for save_maps: that of the crop (as "
        "in the paper), or that of each image as it was given (original, as in AnomalyDINO), to "
        "which the map is enlarged; pixels outside the crop do not count",
        choices=MAP_SIZES,
    )
    save_maps: bool = flag(
        False, "output", "save scores, anomaly maps and masks as .npz, to evaluate them elsewhere"
    )
    profile: bool = flag(False, "output", "print the time of each stage for each category")


@dataclass(frozen=True)
class EvaluateOptions(FitOptions, OutputOptions, DataOptions):
    """Options of an evaluation; ``run.json`` records them."""

    def check_files(self) -> None:
        """Raise UsageError as `FitOptions.check_files`, or if results are to be among the data."""
        super().check_files()
        check_result_folder(self.path_result, [self.path_data])

    @property
    def needs_patch_images(self) -> bool:
        """Whether images of the coreset patches are saved or drawn."""
        return self.saves_models or self.pictures != "none"
