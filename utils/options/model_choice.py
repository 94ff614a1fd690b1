"""Flags that select a trained model."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.setting_values import Bounds
from utils.options.backbone import check_weights_file
from utils.options.flags import Flags, flag


@dataclass(frozen=True)
class ModelChoice(Flags):
    """Choice of a trained model."""

    path_trained: Path = flag(
        Path("trained"),
        "model",
        "folder of trained models, or of one trained model",
        metavar="DIR",
    )
    category: str = flag(
        "", "model", "category of the model (default: the only one)", metavar="NAME"
    )
    percentage_coreset: float = flag(
        0.0,
        "model",
        "coreset percentage of the model, in (0, 1] (default: the only one)",
        metavar="P",
        bounds=Bounds(0, 1),
    )
    backbone: str = flag(
        "",
        "model",
        "backbone of the model (default: the only one); required for module:factory, because code "
        "named in a model file is never imported",
        metavar="NAME",
    )
    weights: str = flag(
        "",
        "model",
        "weights of the backbone, if their location has changed since training",
        metavar="default|random|FILE",
    )

    def check_files(self) -> None:
        """Raise UsageError if the weights file is missing."""
        if self.weights:
            check_weights_file(self.weights)
