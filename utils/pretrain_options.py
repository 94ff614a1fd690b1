"""The flags of ``pretrain``."""

from dataclasses import dataclass
from pathlib import Path

from utils.errors import UsageError
from utils.flags import flag
from utils.machine import usable_cores
from utils.options import DEVICES
from utils.pretraining.loop import RANDOM, Recipe
from utils.pretraining.schedule import SHARE_OF_FALL, SHARE_OF_FALL_GOING_ON, Budget

PRECISIONS = ("float32", "bfloat16")
# Of trained weights: steps in which their rate rises, while their new heads learn faster.
WARM_UP_GOING_ON = 1000
HASTE_GOING_ON = 3.0

_RECIPE = Recipe()


@dataclass(frozen=True)
class PretrainOptions:
    """How the backbone that ships with the code is to be trained."""

    budget: str = flag(
        "20m",
        "training",
        "how much to train in all, earlier sittings included: a number of pictures (300000) or a "
        "time (90s, 20m, 8h); while the learning rate falls pictures are larger, and take longer",
        metavar="N|TIME",
    )
    seed: int = flag(_RECIPE.seed, "training", "of classes, scenes and weights", metavar="N")
    weights: str = flag(
        RANDOM,
        "training",
        "what to begin with: random, default (those that ship with the code) or the file of an "
        "earlier training, to go on with another recipe; its heads begin anew",
        metavar="NAME|FILE",
    )
    num_classes: int = flag(
        _RECIPE.num_classes, "training", "classes of textures to tell apart", metavar="N"
    )
    batch_size: int = flag(
        _RECIPE.batch_size,
        "training",
        "pictures at a time, a multiple of 4, which are of one product: of the same budget, small "
        "batches make more steps; a GPU needs more to be busy",
        metavar="N",
    )
    learning_rate: float = flag(
        _RECIPE.learning_rate,
        "training",
        "the highest; it rises in the first steps and falls in the last half, or with --weights "
        "from almost the beginning",
        metavar="R",
    )
    path_result: Path = flag(
        Path("result_pretraining"),
        "output",
        "folder for checkpoints, weights, model card and pictures, 0.6 GB of textures among them",
        metavar="DIR",
    )
    categories: tuple[str, ...] = flag(
        (),
        "output",
        "procedural categories that the model card measures on (default: all)",
        metavar="NAME",
    )
    photographs: tuple[Path, ...] = flag(
        (),
        "output",
        "folders of photographs of good products, to measure on as well: some of each are held "
        "out, and blemished by formulas",
        metavar="DIR",
    )
    precision: str = flag(
        "float32",
        "computing",
        "in which the network computes; bfloat16 is faster where the device has it",
        choices=PRECISIONS,
    )
    num_workers: int = flag(
        -1,
        "computing",
        "processes that make the pictures; 0 for none, -1 for one per core",
        metavar="N",
    )
    device: str = flag(
        "auto",
        "computing",
        "where to compute; auto takes the GPU where there is one",
        choices=DEVICES,
    )

    def __post_init__(self) -> None:
        for name, least in (
            ("num_classes", 2),
            ("batch_size", _RECIPE.pictures_per_product),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(
                    f"expected --{name} of at least {least}, found {getattr(self, name)}"
                )
        if self.batch_size % _RECIPE.pictures_per_product:
            raise UsageError(
                f"expected --batch_size as a multiple of {_RECIPE.pictures_per_product}, found "
                f"{self.batch_size}"
            )
        if self.num_workers < -1:
            raise UsageError(f"expected --num_workers of at least -1, found {self.num_workers}")
        if not 0 < self.learning_rate < 1:
            raise UsageError(
                f"expected --learning_rate between 0 and 1, found {self.learning_rate:g}"
            )
        Budget.parse(self.budget)

    @property
    def whole_budget(self) -> Budget:
        """How much to train, and in which share of it the learning rate falls."""
        fall = SHARE_OF_FALL if self.weights == RANDOM else SHARE_OF_FALL_GOING_ON
        return Budget.parse(self.budget, fall=fall)

    def recipe(self, start: str) -> Recipe:
        """Return what the training's result depends on beside its budget.

        Args:
            start: As the recipe has it.
        """
        return Recipe(
            seed=self.seed,
            start=start,
            num_classes=self.num_classes,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warm_up=_RECIPE.warm_up if start == RANDOM else WARM_UP_GOING_ON,
            haste=_RECIPE.haste if start == RANDOM else HASTE_GOING_ON,
        )

    @property
    def workers(self) -> int:
        """How many processes make the pictures."""
        return usable_cores() if self.num_workers < 0 else self.num_workers
