"""The flags by which a trained model is found."""

from dataclasses import dataclass
from pathlib import Path

from utils.errors import UsageError
from utils.flags import flag


@dataclass(frozen=True)
class ModelChoice:
    """Which trained model is meant."""

    path_trained: Path = flag(
        Path("trained"),
        "model",
        "folder of the trained models, or of one of them",
        metavar="DIR",
    )
    category: str = flag(
        "", "model", "which category's model (default: the only one)", metavar="NAME"
    )
    percentage_coreset: float = flag(
        0.0, "model", "which percentage's, in (0, 1] (default: the only one)", metavar="P"
    )
    backbone: str = flag(
        "",
        "model",
        "which backbone's (default: the only one); a network of your own must be named here, since "
        "no code is imported because a file says so",
        metavar="NAME",
    )
    weights: str = flag(
        "",
        "model",
        "the backbone's weights, where they are not where they were for training",
        metavar="default|random|FILE",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.percentage_coreset <= 1:
            raise UsageError(
                f"expected --percentage_coreset in (0, 1], found {self.percentage_coreset:g}"
            )
