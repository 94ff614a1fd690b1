"""Settings of the method, each declared once: name, default, choices, bounds and meaning.

This module imports neither torch nor NumPy. The signature of `PatchCore`, the command line and
``model.json`` are made from `Settings`, so a new setting is declared here and used where it acts.
"""

import dataclasses
import inspect
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from patchcore.errors import PatchCoreError

IMAGE_SCORES = ("max_patch", "max_map", "reweighted")
INTERPOLATIONS = ("bilinear", "area")
FLIPS = ("horizontal", "vertical")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")

# Words that may stand in place of a weights file.
DEFAULT, RANDOM = "default", "random"
# How a threshold was set: from held-out training images, from labelled test images, or as a number.
TRAIN_QUANTILE, F1_MAX, GIVEN = "train_quantile", "f1_max", "given"
# Nominal false-positive rates of TRAIN_QUANTILE thresholds for images and for pixels.
IMAGE_RATE, PIXEL_RATE = 0.01, 0.001
# Types in which a saved model can store its embeddings.
STORED_DTYPES = ("float32", "float16")
EXPORT_FORMATS = ("onnx", "torch")

# Presets: settings that differ from the defaults, which are those of the paper's reference code.
PROTOCOLS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "paper": {},
        "whole_image": {"size_crop": None},
        "patchcore_ex": {"interpolation": "area", "k": 5, "image_score": "max_map"},
        "anomalib_like": {
            "size_resize": (256, 256),
            "size_crop": (256, 256),
            "embed_dim": 1536,
            "image_score": "reweighted",
            "num_reweight": 9,
        },
    }
)

# A setting's declared type -> the values that are accepted for it.
_ACCEPTED = {int: numbers.Integral, float: numbers.Real, str: str}


@dataclass(frozen=True)
class Bounds:
    """Interval of allowed numbers.

    Attributes:
        low: Smallest allowed value.
        high: Largest allowed value; any finite number by default.
        open_low: Whether ``low`` itself is excluded.
        example: Example of an allowed value, for the error message.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    example: str = ""

    def __contains__(self, value: float) -> bool:
        above_low = value > self.low if self.open_low else value >= self.low
        return above_low and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        example = f", for example {self.example}" if self.example else ""
        if math.isinf(self.high):
            return f"of at least {self.low}{example}"
        return f"in {'(' if self.open_low else '['}{self.low}, {self.high}]{example}"

    def check(self, name: str, values: object) -> None:
        """Check a number or a tuple of numbers.

        Args:
            name: Name of the setting, for the error message.
            values: Number, or tuple of at least one number.

        Raises:
            PatchCoreError: A number is outside the interval.
        """
        values = values if isinstance(values, tuple) else (values,)
        if not values or not all(value in self for value in values):
            shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
            finite = "finite " if any(map(math.isinf, values)) else ""
            raise PatchCoreError(
                f"expected {finite}{name} {self}, found {' '.join(shown) or 'none'} ({name})"
            )


SHARE = Bounds(0, 1, open_low=True)


def setting(
    default: object,
    group: str,
    text: str,
    *,
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    bounds: Bounds | None = None,
    max_values: int = 0,
) -> typing.Any:
    """Declare a setting.

    Args:
        default: Value that applies if none is given.
        group: Heading under which ``--help`` lists it.
        text: Meaning, and reason for the default.
        metavar: Placeholder for the value in ``--help``.
        choices: Allowed values, if there is a fixed set.
        bounds: Allowed numbers.
        max_values: Largest number of values of a tuple; 0 for any number.
    """
    metadata = {"group": group, "text": text, "metavar": metavar, "choices": choices}
    metadata |= {"bounds": bounds, "max_values": max_values}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Settings of PatchCore, checked and in one form.

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
        "of the paper; several values share one embedding and one selection",
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
    seed: int = setting(
        0,
        "method",
        "random seed of the coreset selection and of random weights",
        metavar="N",
        bounds=Bounds(0, 2**32 - 1),
    )
    image_score: str = setting(
        "max_patch",
        "method",
        "anomaly score of an image: the largest patch score (max_patch, as in the reference "
        "code), the largest value of the smoothed anomaly map (max_map), or equation 7 of the "
        "paper (reweighted)",
        choices=IMAGE_SCORES,
    )
    num_reweight: int = setting(
        9,
        "method",
        "number of neighbours b in equation 7, used by image_score reweighted; 9 as in anomalib",
        metavar="N",
        bounds=Bounds(2),
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
    )
    sigma: float = setting(
        4.0,
        "method",
        "standard deviation of the Gaussian smoothing of anomaly maps, in pixels; 4 as in the "
        "paper, 0 for no smoothing",
        metavar="S",
        bounds=Bounds(0),
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
        "so that 23.4 % of each image is not judged; train has no crop: size_resize",
        metavar="N",
        bounds=Bounds(1),
        max_values=2,
    )
    interpolation: str = setting(
        "bilinear",
        "preprocessing",
        "interpolation for resizing images: antialiased bilinear as in the reference code, or "
        "area as in PatchCore-ex",
        choices=INTERPOLATIONS,
    )
    flip: tuple[str, ...] = setting(
        (),
        "preprocessing",
        "also learn flipped training images: horizontal, vertical or both (default: neither)",
        choices=FLIPS,
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
            value = _convert(entry.name, getattr(self, entry.name), kinds[entry.name])
            _check_choices(entry, value)
            if entry.metadata["bounds"] is not None and value is not None:
                entry.metadata["bounds"].check(entry.name, value)
            object.__setattr__(self, entry.name, value)
        if self.size_crop is None:
            object.__setattr__(self, "size_crop", self.size_resize)
        object.__setattr__(self, "percentage_coreset", tuple(sorted(set(self.percentage_coreset))))
        if any(crop > size for crop, size in zip(self.size_crop, self.size_resize, strict=True)):
            raise PatchCoreError(
                f"expected size_crop at most size_resize, found size_crop {self.size_crop} and "
                f"size_resize {self.size_resize}, as height and width (size_crop, size_resize)"
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
            PatchCoreError: It is no mapping, a setting is unknown or missing, or a value is not
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


def _convert(name: str, value: object, kind: object) -> object:
    """Return a value in its declared type; a single value or a list becomes a tuple."""
    is_optional = isinstance(kind, types.UnionType)  # a tuple or None
    if is_optional:
        kind = typing.get_args(kind)[0]
        if value is None:
            return None
    if typing.get_origin(kind) is not tuple:
        return _convert_item(name, value, kind)
    item, length = typing.get_args(kind)
    is_single = isinstance(value, str) or not isinstance(value, Iterable)
    values = tuple(_convert_item(name, v, item) for v in ((value,) if is_single else value))
    if length is Ellipsis:
        return None if is_optional and not values else values
    if len(values) not in (1, 2):
        raise PatchCoreError(
            f"expected {name} as one number, or height and width, found {value!r} ({name})"
        )
    return values[0], values[-1]


def _convert_item(name: str, value: object, kind: type) -> object:
    if isinstance(value, bool) or not isinstance(value, _ACCEPTED[kind]):
        raise PatchCoreError(f"expected {name} of type {kind.__name__}, found {value!r} ({name})")
    return kind(value)


def _check_choices(entry: dataclasses.Field, value: object) -> None:
    choices = entry.metadata["choices"]
    values = value if isinstance(value, tuple) else (value,)
    if choices and not set(values) <= set(choices):
        raise PatchCoreError(
            f"expected {entry.name} {', '.join(choices)}, found {' '.join(map(repr, values))} "
            f"({entry.name})"
        )
