"""Settings of the method, each declared once: name, default, choices, bounds and meaning.

This module imports neither torch nor NumPy. The signature of `PatchCore`, the command line and
``model.json`` are made from `Settings`, so a new setting is declared here and used where it acts.
"""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass

from patchcore.errors import PatchCoreError
from patchcore.setting_values import SEED, SHARE, Bounds, as_text, check_choices, convert, setting

EUCLIDEAN, COSINE = "euclidean", "cosine"
DISTANCES = (EUCLIDEAN, COSINE)
POOLED, PLAIN = "pooled", "plain"
NEIGHBOURHOODS = (POOLED, PLAIN)
NO_MASK, PCA = "none", "pca"
FOREGROUNDS = (NO_MASK, PCA)
JOINED, PER_LAYER = "joined", "per_layer"
BANKS = (JOINED, PER_LAYER)
IMAGE_SCORES = ("max_patch", "max_map", "reweighted", "top_share", "top_share_map")
STRETCH, SHORTER_EDGE = "stretch", "shorter_edge"
RESIZES = (STRETCH, SHORTER_EDGE)
# Stands for the interpolation that the backbone was trained with.
BACKBONE = "backbone"
INTERPOLATIONS = (BACKBONE, "bilinear", "bicubic", "area")
HORIZONTAL, VERTICAL, ROTATIONS, BRIGHTNESS = "horizontal", "vertical", "rotations", "brightness"
AUGMENTATIONS = (HORIZONTAL, VERTICAL, ROTATIONS, BRIGHTNESS)
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")

# Words that may stand in place of a weights file.
DEFAULT, RANDOM = "default", "random"
# Prefix of a backbone that is a network of timm.
TIMM_PREFIX = "timm:"
# How a threshold was set: from held-out training images, from labelled test images, or as a number.
TRAIN_QUANTILE, F1_MAX, GIVEN = "train_quantile", "f1_max", "given"
# Nominal false-positive rates of TRAIN_QUANTILE thresholds for images and for pixels.
IMAGE_RATE, PIXEL_RATE = 0.01, 0.001
# Types in which a saved model can store its embeddings.
STORED_DTYPES = ("float32", "float16")
EXPORT_FORMATS = ("onnx", "torch")


def is_own_network(backbone: str) -> bool:
    """Return whether a backbone's name is that of a user's own network, ``module:factory``."""
    return ":" in backbone and not backbone.startswith(TIMM_PREFIX)


@dataclass(frozen=True)
class Settings:
    """Settings of PatchCore, checked and normalised.

    Tuples may be given as any iterable, a tuple of one value as that value, and a size as one
    number for a square. ``size_crop`` None is stored as ``size_resize``: there is no crop.
    Percentages are sorted, each kept once.

    Raises:
        PatchCoreError: A value has the wrong type, is not one of the choices or is out of bounds.
            The message ends with the setting's name.
    """

    percentage_coreset: tuple[float, ...] = setting(
        (0.1,),
        "method",
        "share of the training patches kept in the coreset, in (0, 1]; 0.1 is the middle setting "
        "of the paper; several values share one embedding and one selection; 1 keeps all patches "
        "without a selection, for few images (as in AnomalyDINO)",
        metavar="P",
        bounds=dataclasses.replace(SHARE, example="0.1 for 10 %"),
    )
    k: int = setting(
        1,
        "method",
        "number of nearest coreset patches; their mean distance is the patch score; 1 as in the "
        "paper",
        metavar="N",
        bounds=Bounds(1),
    )
    distance: str = setting(
        EUCLIDEAN,
        "method",
        "distance of two patches: euclidean as in the paper, or cosine (1 - cos, from 0 to 2) as "
        "in AnomalyDINO and RAD; with cosine the coreset is selected among normalised embeddings",
        choices=DISTANCES,
    )
    seed: int = setting(
        0,
        "method",
        "random seed of the coreset selection and of random weights",
        metavar="N",
        bounds=SEED,
    )
    image_score: str = setting(
        "max_patch",
        "method",
        "anomaly score of an image: the largest patch score (max_patch, as in the reference "
        "code), the largest value of the smoothed anomaly map (max_map), equation 7 of the paper "
        "(reweighted), or the mean of the largest patch scores (top_share, as in AnomalyDINO) or "
        "map values (top_share_map, as in RAD)",
        choices=IMAGE_SCORES,
    )
    top_share: float = setting(
        0.01,
        "method",
        "share of the patch scores or map values, at least one, that image_score top_share and "
        "top_share_map use; 0.01 as in AnomalyDINO and RAD",
        metavar="P",
        bounds=SHARE,
    )
    num_reweight: int = setting(
        9,
        "method",
        "number of neighbours b in equation 7, used by image_score reweighted; 9 as in anomalib",
        metavar="N",
        bounds=Bounds(2),
    )
    neighbourhood: str = setting(
        POOLED,
        "method",
        "what a patch embedding holds: pooled neighbourhoods of patch_size, pooled to embed_dim "
        "(the paper), or plain, the features at each position as they are (as in AnomalyDINO)",
        choices=NEIGHBOURHOODS,
    )
    patch_size: int = setting(
        3,
        "method",
        "side of a patch's neighbourhood, in positions of the feature map; 3 as in the paper",
        metavar="N",
        bounds=Bounds(1),
    )
    embed_dim: int = setting(
        1024,
        "method",
        "number of dimensions of a patch embedding; 1024 as in the paper",
        metavar="N",
        bounds=Bounds(1),
    )
    layer_weights: tuple[float, ...] | None = setting(
        None,
        "method",
        "factor for each layer's part of the embedding (default: 1 for each)",
        metavar="W",
        bounds=Bounds(0),
    )
    banks: str = setting(
        JOINED,
        "method",
        "one memory bank of all layers joined (the paper), or one per_layer, each with its own "
        "coreset, and the mean of their patch scores and maps (as in SuperADD and RAD)",
        choices=BANKS,
    )
    search_radius: int = setting(
        -1,
        "method",
        "compare a patch only with coreset patches at most this many rows and columns of the grid "
        "away, for aligned objects (as in RAD); 0 for the same position, -1 for all",
        metavar="N",
        bounds=Bounds(-1),
    )
    retrieve_images: int = setting(
        0,
        "method",
        "compare an image only with the coreset patches of this many training images, those with "
        "the nearest mean embedding (RAD: nearest class token); 0 for all training images",
        metavar="N",
        bounds=Bounds(0),
    )
    foreground: str = setting(
        NO_MASK,
        "method",
        "patches that count as background and score 0: none (the paper), or the patches that the "
        "first principal component of the image's own patches separates from the object (pca, as "
        "in AnomalyDINO, which uses it for objects in front of a plain background)",
        choices=FOREGROUNDS,
    )
    foreground_threshold: float = setting(
        10.0,
        "method",
        "threshold of the first principal component with foreground pca, in the unit of the "
        "features; 10 as in AnomalyDINO, for the normalised tokens of DINOv2",
        metavar="T",
        bounds=Bounds(0),
    )
    sigma: float = setting(
        4.0,
        "method",
        "standard deviation of the Gaussian smoothing of anomaly maps, in pixels; 4 as in the "
        "paper, 0 for no smoothing",
        metavar="S",
        bounds=Bounds(0, 10_000),
    )
    resize: str = setting(
        STRETCH,
        "preprocessing",
        "how images are resized to size_resize: stretch both sides (the paper), or resize the "
        "shorter_edge and keep the aspect ratio (as in AnomalyDINO), then crop the centre to "
        "size_crop; a smaller image is padded by repeating its border pixels",
        choices=RESIZES,
    )
    size_resize: tuple[int, int] = setting(
        (256, 256),
        "preprocessing",
        "size in pixels to which images are resized: one number, or height and width; 256 as in "
        "the paper",
        metavar="N",
        bounds=Bounds(1),
        max_values=2,
    )
    size_crop: tuple[int, int] | None = setting(
        (224, 224),
        "preprocessing",
        "size in pixels of the centre crop: one number, or height and width; 224 as in the paper, "
        "so 23.4 % of each image lies outside the crop and is ignored; train uses size_resize, so "
        "there is no crop",
        metavar="N",
        bounds=Bounds(1),
        max_values=2,
    )
    scales: tuple[float, ...] = setting(
        (1.0,),
        "preprocessing",
        "factors of size_crop at which images go through a convolutional backbone; with smaller "
        "factors in addition to 1, a patch embedding holds details and their surroundings",
        metavar="F",
        bounds=SHARE,
    )
    context: float = setting(
        0.0,
        "preprocessing",
        "factor of size_crop for smaller copies of the images with their own coreset, where a "
        "patch shows more of the surroundings; their score counts half for the image score, and "
        "maps are those of the large images; 0 for none",
        metavar="F",
        bounds=Bounds(0, 1),
    )
    tile: int = setting(
        0,
        "preprocessing",
        "side in pixels of overlapping tiles that go through the backbone one by one, for large "
        "images (as in SuperADD); 0 for the image as a whole",
        metavar="N",
        bounds=Bounds(0),
    )
    overlap: int = setting(
        64,
        "preprocessing",
        "smallest overlap of neighbouring tiles in pixels, with tile; half of it should be at "
        "least the receptive field of a feature",
        metavar="N",
        bounds=Bounds(0),
    )
    interpolation: str = setting(
        BACKBONE,
        "preprocessing",
        "interpolation for resizing images: what the backbone was trained with for a network of "
        "timm, else bilinear as in the reference code (backbone); antialiased bilinear or bicubic; "
        "or area as in PatchCore-ex",
        choices=INTERPOLATIONS,
    )
    augment: tuple[str, ...] = setting(
        (),
        "preprocessing",
        "also learn augmented training images: horizontal and vertical flips, rotations by "
        "multiples of 45 degrees (as in AnomalyDINO), brightness 0.8 and 1.2 (the range of "
        "SuperADD) (default: none)",
        choices=AUGMENTATIONS,
    )
    norm_tokens: bool = setting(
        False,
        "method",
        "apply the final norm of a vision transformer to the tokens of each layer, as AnomalyDINO "
        "does (default: the tokens as the blocks return them)",
    )
    precision: str = setting(
        "float32",
        "computing",
        "precision of the backbone; bfloat16 and float16 are faster on devices that support them "
        "and change results slightly; tf32 is float32 with products rounded to 10 bits on a GPU",
        choices=PRECISIONS,
    )

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for entry in dataclasses.fields(self):
            value = convert(entry.name, getattr(self, entry.name), kinds[entry.name])
            check_choices(entry, value)
            if entry.metadata["bounds"] is not None and value is not None:
                entry.metadata["bounds"].check(entry.name, value)
            object.__setattr__(self, entry.name, value)
        if self.size_crop is None:
            object.__setattr__(self, "size_crop", self.size_resize)
        object.__setattr__(self, "percentage_coreset", tuple(sorted(set(self.percentage_coreset))))
        if self.resize == SHORTER_EDGE and len(set(self.size_resize)) > 1:
            raise PatchCoreError(
                f"expected one number as size_resize with resize {SHORTER_EDGE}, the length of the "
                f"shorter edge, found {as_text(self.size_resize)} (size_resize, resize)"
            )
        if self.resize == STRETCH and any(
            crop > size for crop, size in zip(self.size_crop, self.size_resize, strict=True)
        ):
            raise PatchCoreError(
                "expected size_crop at most size_resize, found size_crop "
                f"{as_text(self.size_crop)} and size_resize {as_text(self.size_resize)}, as "
                "height and width (size_crop, size_resize)"
            )
        self._check_combinations()

    @property
    def size_network(self) -> tuple[int, int]:
        """Height and width in pixels of what goes through the backbone: a tile or a crop."""
        return (self.tile, self.tile) if self.tile else self.size_crop

    def of_context(self) -> "Settings":
        """Return the settings of the smaller copies of the images."""
        size = tuple(round(length * self.context) for length in self.size_crop)
        return dataclasses.replace(
            self,
            context=0.0,
            resize=STRETCH,
            size_resize=size,
            size_crop=size,
            sigma=self.sigma * self.context,
        )

    def _check_combinations(self) -> None:
        """Raise PatchCoreError for combinations of settings without effect or meaning."""
        if self.neighbourhood == PLAIN:
            reason = "which has no neighbourhoods to pool"
            self._require_default("patch_size", "neighbourhood", reason)
            self._require_default("embed_dim", "neighbourhood", reason)
        scales = tuple(sorted(set(self.scales), reverse=True))
        if scales[0] != 1:
            raise PatchCoreError(f"expected 1 among the scales, found {as_text(scales)} (scales)")
        object.__setattr__(self, "scales", scales)
        if self.context:
            if self.context == 1:
                raise PatchCoreError(
                    "expected context below 1, since copies of the same size add nothing, found 1 "
                    "(context)"
                )
            for name in ("scales", "tile", "search_radius", "retrieve_images"):
                self._require_default(name, "context", "which has one bank of whole images")
        if self.tile:
            self._require_default("scales", "tile", "each tile has one size")
        if self.tile and not self.overlap < self.tile <= min(self.size_crop):
            raise PatchCoreError(
                f"expected tile larger than overlap and at most size_crop, found tile {self.tile}, "
                f"overlap {self.overlap} and size_crop {as_text(self.size_crop)} (tile, overlap, "
                "size_crop)"
            )
        if self.banks == PER_LAYER and self.image_score == "reweighted":
            raise PatchCoreError(
                "expected an image_score other than reweighted with banks per_layer: equation 7 "
                "weighs by the neighbours in one bank (image_score, banks)"
            )
        if self.banks == PER_LAYER and self.distance == COSINE:
            reason = "where the length of a layer's features has no effect"
            self._require_default("layer_weights", "distance", f"and banks {PER_LAYER}, {reason}")

    def _require_default(self, name: str, other: str, reason: str) -> None:
        """Raise PatchCoreError if the value of another setting excludes a setting that is given."""
        default = type(self).__dataclass_fields__[name].default
        found = getattr(self, name)
        if found != default:
            raise PatchCoreError(
                f"expected {name} {as_text(default)} with {other} {getattr(self, other)}, "
                f"{reason}, found {as_text(found)} ({name}, {other})"
            )

    def as_json(self) -> dict[str, object]:
        """Return the settings with lists in place of tuples, as ``model.json`` stores them."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_json(cls, record: object) -> "Settings":
        """Read settings that `as_json` returned.

        Args:
            record: Mapping of every setting's name to its value.

        Raises:
            PatchCoreError: It is not a mapping, a setting is unknown or missing, or a value is not
                allowed.
        """
        if not isinstance(record, Mapping):
            raise PatchCoreError(f"expected settings by name, found {type(record).__name__}")
        names = [entry.name for entry in dataclasses.fields(cls)]
        problems = {
            "unknown": [str(name) for name in record if name not in names],
            "missing": [name for name in names if name not in record],
        }
        found = "; ".join(f"{word}: {', '.join(some)}" for word, some in problems.items() if some)
        if found:
            raise PatchCoreError(f"expected every setting of the method, found {found}")
        return cls(**record)

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """Return the settings as keyword-only parameters, for the signature of a function."""
        kinds = typing.get_type_hints(cls)
        return [
            inspect.Parameter(
                entry.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=entry.default,
                annotation=kinds[entry.name],
            )
            for entry in dataclasses.fields(cls)
        ]
