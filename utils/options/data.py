"""Flags that select the data."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.setting_values import Bounds
from utils.options.flags import Flags, flag


@dataclass(frozen=True)
class DataOptions(Flags):
    """Dataset and categories."""

    path_data: Path = flag(
        Path("mvtec_anomaly_detection"),
        "input",
        "folder of a dataset as it comes out of its archive, or of your own images; or a file "
        "that lists images (CSV, COCO); docs/datasets.md describes the layouts",
        metavar="PATH",
    )
    dataset: str = flag(
        "auto",
        "input",
        "layout of the data, or name of a published dataset; auto recognises it",
        metavar="NAME",
    )
    categories: tuple[str, ...] = flag(
        (),
        "input",
        "categories to process, in this order (default: all, sorted)",
        metavar="NAME",
    )
    holdout: float = flag(
        0.2,
        "input",
        "share of the good images that evaluate holds out for testing if the data have no "
        "split, chosen by the first --seed; train learns them too",
        metavar="R",
        bounds=Bounds(0, 0.9, open_low=True),
    )
    normal_dir: str = flag(
        "",
        "input",
        "folder of good images in each category of your own dataset (default: a usual name, such "
        "as good); with this or one of the next two flags, the layout is that of your own folders",
        metavar="DIR",
    )
    abnormal_dir: tuple[str, ...] = flag(
        (),
        "input",
        "folders of defective images in each category, one per defect type (default: all other "
        "folders)",
        metavar="DIR",
    )
    mask_dir: str = flag(
        "",
        "input",
        "folder of masks in each category (default: ground_truth, masks or mask)",
        metavar="DIR",
    )

    @property
    def data_root(self) -> Path:
        """Folder that contains the data: ``path_data``, or the folder of this file."""
        return self.path_data.parent if self.path_data.is_file() else self.path_data


@dataclass(frozen=True)
class ShotOptions(Flags):
    """Few-shot results."""

    shots: tuple[int, ...] = flag(
        (),
        "input",
        "numbers of training images, chosen by --seed, for few-shot results; several in one run "
        "have their own rows in all tables (default: all training images)",
        metavar="N",
        bounds=Bounds(1),
    )

    @property
    def shot_counts(self) -> tuple[int | None, ...]:
        """The numbers of training images, ascending and without duplicates; None for all."""
        return tuple(sorted(set(self.shots))) or (None,)
