"""Flags that `evaluate` and `train` have in common."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.setting_values import Bounds
from patchcore.settings import STORED_DTYPES, TRAIN_QUANTILE
from utils.options.backbone import BackboneOptions
from utils.options.computing import ComputingOptions
from utils.options.data import DataOptions, ShotOptions
from utils.options.engine import EngineOptions
from utils.options.flags import Flags, flag
from utils.options.ignoring import IgnoringOptions
from utils.options.log import LogOptions
from utils.options.method import MethodOptions
from utils.options.reading import DepthOptions
from utils.options.thresholds import ThresholdOptions

# Value of --path_trained with which no model is saved.
NOWHERE = Path("none")


@dataclass(frozen=True)
class SavingOptions(Flags):
    """Where and how trained models are saved."""

    path_trained: Path = flag(
        NOWHERE,
        "trained models",
        "folder for trained models (first seed), one per category, backbone and percentage, for "
        "infer and export; none saves no model",
        metavar="DIR",
    )
    trained_dtype: str = flag(
        "float32",
        "trained models",
        "type of the embeddings in saved models; float16 halves the files and rounds to 3 digits",
        choices=STORED_DTYPES,
    )
    save_index: bool = flag(
        False,
        "trained models",
        "also save index.faiss with each model, for other programs",
    )

    @property
    def saves_models(self) -> bool:
        """Whether trained models are saved."""
        return self.path_trained != NOWHERE


@dataclass(frozen=True)
class MemoryOptions(Flags):
    """Limit of the memory."""

    memory_budget: float = flag(
        0.0,
        "computing",
        "gigabytes for embeddings, selection and coresets; if the embeddings do not fit, images "
        "are embedded twice, with the same results; 0 for most of the free memory",
        metavar="GB",
        bounds=Bounds(0),
    )


# A dataclass, and so --help, lists the fields from the last base to the first.
@dataclass(frozen=True)
class FitOptions(
    LogOptions,
    EngineOptions,
    ComputingOptions,
    MemoryOptions,
    BackboneOptions,
    MethodOptions,
    ThresholdOptions,
    SavingOptions,
    DepthOptions,
    IgnoringOptions,
    ShotOptions,
    DataOptions,
):
    """Options of a fit: its images, its settings, and the models to save."""

    def check_files(self) -> None:
        """Raise UsageError if a file of the flags or a requirement of the engine is missing."""
        super().check_files()
        self.check_ignore_mask()
        self.check_engine(self.device)

    @property
    def needs_held_out_scores(self) -> bool:
        """Whether a threshold of saved models comes from training images."""
        return self.saves_models and TRAIN_QUANTILE in (self.threshold, self.threshold_pixel)
