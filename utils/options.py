"""The flags of a run: each with its default, the reason for it, and the group it is shown in.

`Options` is the one list: the command line is made from it, every part of the program reads it,
and `run.json` records it.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from utils.errors import UsageError
from utils.flags import CommandParser, flag, parse_flags
from utils.machine import usable_cores
from utils.thresholds import TRAIN_QUANTILE, read_threshold

DEVICES = ("auto", "cpu", "cuda")
PICTURES = ("all", "defective", "worst", "none")
IMAGE_SCORES = ("max_patch", "max_map", "reweighted")
INTERPOLATIONS = ("bilinear", "area")
FLIPS = ("horizontal", "vertical")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
TRAINED_DTYPES = ("float32", "float16")
# The value of --path_trained that keeps no model.
NOWHERE = Path("none")
# What --protocol sets; what it does not name keeps the default, which is the paper's.
PROTOCOLS = {
    "paper": {},
    "patchcore_ex": {"interpolation": "area", "k": 5, "image_score": "max_map"},
    "anomalib_like": {
        "size_resize": (256,),
        "size_crop": (256,),
        "embed_dim": 1536,
        "image_score": "reweighted",
        "num_reweight": 9,
    },
}


@dataclass(frozen=True)
class Member:
    """One network of a run: an ensemble has several.

    Attributes:
        backbone: As ``--backbone`` gives it.
        weights: As ``--weights`` gives it.
        layers: The modules whose maps are used; none for the backbone's default.
    """

    backbone: str
    weights: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """What a run is asked to do."""

    path_data: Path = flag(
        Path("mvtec_anomaly_detection"),
        "input",
        "folder with one folder per category in MVTec AD's layout",
        metavar="DIR",
    )
    categories: tuple[str, ...] = flag(
        (),
        "input",
        "the categories to evaluate, in this order (default: all, sorted)",
        metavar="NAME",
    )
    path_result: Path = flag(
        Path("result"),
        "output",
        "folder for tables and pictures; an earlier run's move to its subfolder 'earlier'",
        metavar="DIR",
    )
    pictures: str = flag(
        "all",
        "output",
        "test images to draw localization and explanation pictures of (first seed, every "
        "percentage; 'worst': the most wrongly judged); the measured time never includes them",
        choices=PICTURES,
    )
    pictures_limit: int = flag(
        0,
        "output",
        "draw these pictures of so many images of a category at most; 0 for all, 10 with "
        "'--pictures worst'",
        metavar="N",
    )
    explain_top: int = flag(
        3,
        "output",
        "explain so many of an image's most anomalous patches by the training patches nearest to "
        "them; 0 for none",
        metavar="N",
    )
    score_max: float = flag(
        0.0,
        "output",
        "highest score of the pictures' colours, which then begin at 0, to compare pictures of "
        "several runs or percentages; 0 for the range of each category's maps at each percentage",
        metavar="S",
    )
    path_trained: Path = flag(
        Path("trained"),
        "output",
        "folder for the trained models (first seed), one for each category, backbone and "
        "percentage, which infer and export read; 'none' keeps none",
        metavar="DIR",
    )
    trained_dtype: str = flag(
        "float32",
        "output",
        "in which trained models keep their embeddings; float16 halves the files and rounds to 3 "
        "digits",
        choices=TRAINED_DTYPES,
    )
    save_index: bool = flag(
        False, "output", "write index.faiss beside each trained model, for other programs"
    )
    threshold: str = flag(
        "train_quantile",
        "output",
        "from which score on trained models call an image anomalous: train_quantile keeps "
        "--nominal_fpr on normal images, known from training images alone; f1_max has the largest "
        "F1 on the labelled test images; or a number",
        metavar="METHOD|NUMBER",
    )
    threshold_pixel: str = flag(
        "train_quantile",
        "output",
        "the same for the pixels of the anomaly map, by --nominal_fpr_pixel",
        metavar="METHOD|NUMBER",
    )
    nominal_fpr: float = flag(
        0.01,
        "output",
        "share of new normal images that may be called anomalous, in (0, 1]; with n training "
        "images scored (all of up to 100, 100 to 198 of more) not less than 1 / (n + 1)",
        metavar="R",
    )
    nominal_fpr_pixel: float = flag(
        0.001,
        "output",
        "share of the pixels of normal images that may be marked, in (0, 1]",
        metavar="R",
    )
    save_maps: bool = flag(
        False, "output", "write scores, anomaly maps and masks as .npz, to measure them elsewhere"
    )
    profile: bool = flag(False, "output", "print how long each stage took, category by category")
    summary: bool = flag(False, "output", "print a summary of the cut backbone, layer by layer")
    protocol: str = flag(
        "paper",
        "method",
        "whose settings to start from, flags given beside it have their way: the paper's reference "
        "code; PatchCore-ex's (area resizing, k = 5, maximum of the smoothed map); or as near as "
        "this method comes to anomalib's (256x256 without crop, 1536 dimensions, reweighted)",
        choices=tuple(PROTOCOLS),
    )
    percentage_coreset: tuple[float, ...] = flag(
        (0.1,),
        "method",
        "share of the training patches to keep, in (0, 1]: 0.1 is the paper's middle case; several "
        "share one reading, embedding and selection",
        metavar="P",
    )
    k: int = flag(
        1,
        "method",
        "a patch is scored by its mean distance to this many nearest coreset patches; 1 as in the "
        "paper",
        metavar="N",
    )
    seed: tuple[int, ...] = flag(
        (0,),
        "method",
        "seed of the selection; several share one embedding, and tables show their mean and "
        "standard deviation; random weights take the first",
        metavar="N",
    )
    image_score: str = flag(
        "max_patch",
        "method",
        "what scores an image: its largest patch score (the reference code), the largest value of "
        "its smoothed map, or the paper's equation 7",
        choices=IMAGE_SCORES,
    )
    num_reweight: int = flag(
        9, "method", "size b of the neighbourhood in equation 7; 9 as in anomalib", metavar="N"
    )
    patch_size: int = flag(
        3, "method", "side of a patch's neighbourhood in positions of a layer's map", metavar="N"
    )
    embed_dim: int = flag(1024, "method", "length of a patch embedding", metavar="N")
    layer_weights: tuple[float, ...] = flag(
        (),
        "method",
        "a factor for each layer's part of the embedding (default: 1 each)",
        metavar="W",
    )
    sigma: float = flag(
        4.0, "method", "Gaussian smoothing of the anomaly map, in pixels; 0 for none", metavar="S"
    )
    aupro_limit: float = flag(
        0.3,
        "method",
        "false positive rate up to which AUPRO is measured; 0.3 is MVTec AD's own",
        metavar="R",
    )
    backbone: tuple[str, ...] = flag(
        ("wide_resnet50_2",),
        "backbone",
        "name of a torchvision classification model, formulanet (small, its weights ship with the "
        "code), or module:factory for a network of your own (a callable without arguments in an "
        "importable module); the default is the paper's; several are evaluated one by one and as "
        "an ensemble",
        metavar="NAME",
    )
    weights: tuple[str, ...] = flag(
        ("default",),
        "backbone",
        "'default' (torchvision's, downloaded by torchvision where not cached; formulanet's and a "
        "factory's network's are their own), a state-dict file (.pth or .safetensors), or 'random' "
        "(seeded, to see that the program runs); one for all backbones or one each",
        metavar="default|random|FILE",
    )
    layers: tuple[tuple[str, ...], ...] = flag(
        (),
        "backbone",
        "modules of the backbone whose maps are used, from large maps to small ones (default: "
        "layer2 layer3, the paper's for ResNets; layer1 layer2 layer3 of formulanet); given again "
        "for each further backbone, or once for all",
        metavar="NAME",
    )
    size_resize: tuple[int, ...] = flag(
        (256,),
        "preprocessing",
        "size in pixels to which images are resized: one number, or height and width; the paper's",
        metavar="N",
        most=2,
    )
    size_crop: tuple[int, ...] = flag(
        (224,),
        "preprocessing",
        "size in pixels of the part kept from the middle: one number, or height and width; the "
        "paper's; that of --size_resize for no crop",
        metavar="N",
        most=2,
    )
    interpolation: str = flag(
        "bilinear",
        "preprocessing",
        "how images are resized: bilinear is antialiased, as in the reference code",
        choices=INTERPOLATIONS,
    )
    flip: tuple[str, ...] = flag(
        (),
        "preprocessing",
        "learn training images flipped too: horizontal, vertical or both (default: neither)",
        choices=FLIPS,
    )
    precision: str = flag(
        "float32",
        "computing",
        "in which the backbone computes; the others are faster where the device has them, and "
        "change results a little; tf32 is float32 with products that a GPU rounds to 10 bits",
        choices=PRECISIONS,
    )
    batch_size: int = flag(
        8,
        "computing",
        "images at a time; more gain nothing on a CPU, a GPU may take 32 or more",
        metavar="N",
    )
    num_workers: int = flag(
        -1,
        "computing",
        "threads that read images ahead, and processes (8 at most) that draw pictures meanwhile; 0 "
        "for none, -1 for one per core",
        metavar="N",
    )
    memory_budget: float = flag(
        0.0,
        "computing",
        "gigabytes for embeddings, selection and coresets; where they do not fit, embeddings are "
        "kept in float16, then a part of the images at a time; 0 for most of what is free",
        metavar="GB",
    )
    device: str = flag(
        "auto",
        "computing",
        "where to compute; auto takes the GPU where there is one",
        choices=DEVICES,
    )

    def __post_init__(self) -> None:
        least = {"k": 1, "num_reweight": 2, "patch_size": 1, "embed_dim": 1, "sigma": 0}
        least |= {"memory_budget": 0, "pictures_limit": 0, "explain_top": 0, "score_max": 0}
        for name, bound in {**least, "batch_size": 1, "num_workers": -1}.items():
            value = getattr(self, name)
            if not value >= bound:
                raise UsageError(f"expected --{name} of at least {bound}, found {value}")
        for name in ("sigma", "score_max"):
            if math.isinf(getattr(self, name)):
                raise UsageError(f"expected a finite --{name}, found {getattr(self, name)}")
        if not self.percentage_coreset or not all(0 < p <= 1 for p in self.percentage_coreset):
            found = " ".join(f"{p:g}" for p in self.percentage_coreset) or "none"
            raise UsageError(
                "expected --percentage_coreset in (0, 1], for example 0.1 for 10 %, found " + found
            )
        if not self.seed or not all(0 <= seed < 2**32 for seed in self.seed):
            raise UsageError(f"expected --seed from 0 to {2**32 - 1}, found {list(self.seed)}")
        if not 0 < self.aupro_limit <= 1:
            raise UsageError(f"expected --aupro_limit in (0, 1], found {self.aupro_limit:g}")
        for name in ("nominal_fpr", "nominal_fpr_pixel"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"expected --{name} in (0, 1], found {getattr(self, name):g}")
        for name in ("threshold", "threshold_pixel"):
            read_threshold(getattr(self, name), name)
        self.members()

    @property
    def saves_models(self) -> bool:
        """Whether trained models are kept."""
        return self.path_trained != NOWHERE

    @property
    def needs_held_out_scores(self) -> bool:
        """Whether a threshold of trained models is to come from training images."""
        methods = self.threshold, self.threshold_pixel
        return self.saves_models and TRAIN_QUANTILE in methods

    def size(self, name: str) -> tuple[int, int]:
        """Return ``size_resize`` or ``size_crop`` as (height, width)."""
        values = getattr(self, name)
        return values[0], values[-1]

    @property
    def threads(self) -> int:
        """How many threads read and draw."""
        return usable_cores() if self.num_workers < 0 else self.num_workers

    def members(self) -> list[Member]:
        """Return the networks, each with its weights and layers.

        Raises:
            UsageError: weights or layers are neither one for all nor one for each.
        """
        count = len(self.backbone)
        for name in ("weights", "layers"):
            given = len(getattr(self, name))
            if given not in (1, count) and (name, given) != ("layers", 0):
                what = "--layers groups" if name == "layers" else "--weights"
                raise UsageError(
                    f"expected {what} once, or once for each of {count} backbones, found {given}"
                )
        weights, layers = (
            values * count if len(values) == 1 else values
            for values in (self.weights, self.layers or ((),))
        )
        return [Member(*member) for member in zip(self.backbone, weights, layers, strict=True)]


AnyOptions = TypeVar("AnyOptions", bound=Options)


def parse_options(
    arguments: list[str],
    *,
    command: str,
    description: str,
    defaults: AnyOptions,
    epilog: str = "",
    without: Sequence[str] = (),
) -> AnyOptions:
    """Read the flags of a command.

    Args:
        arguments: What follows the command's name.
        command: Its name, for ``--help``.
        description: What it does, for ``--help``.
        defaults: The values of flags that are not given.
        epilog: What ``--help`` ends with.
        without: Options that the command has no use for, and so no flags.

    Raises:
        UsageError: a flag is unknown or its value cannot be used.
    """
    defaults = dataclasses.replace(defaults, **PROTOCOLS[_protocol(arguments, defaults)])
    return parse_flags(
        arguments,
        defaults,
        command=command,
        description=description,
        epilog=epilog,
        without=without,
    )


def _protocol(arguments: list[str], defaults: Options) -> str:
    """Read ``--protocol`` before all other flags, since it changes their defaults."""
    parser = CommandParser("", add_help=False)
    parser.add_argument("--protocol", default=defaults.protocol)
    name = parser.parse_known_args(arguments)[0].protocol
    return name if name in PROTOCOLS else defaults.protocol
