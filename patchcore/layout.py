"""What a trial run found out about a backbone, so that it need not run again on loading."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import torch

from patchcore.errors import PatchCoreError
from patchcore.network_input import NetworkInput

CHANNELS_FIRST = "channels_first"  # (B, C, h, w), as most networks
CHANNELS_LAST = "channels_last"  # (B, h, w, C), as Swin Transformers
TOKENS = "tokens"  # (B, prefix + h * w, C), as vision transformers
AXES = (CHANNELS_FIRST, CHANNELS_LAST, TOKENS)
# Interpolations that networks are trained with.
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class LayerLayout:
    """How the output of one layer becomes a feature map.

    Attributes:
        name: The layer's name, as in ``network.named_modules()``.
        axes: Order of the output's axes, one of `AXES`.
        prefix: Tokens before those of the grid, such as a class token; 0 unless ``axes`` is
            ``tokens``.
        channels: C.
        grid: (h, w) for images of the layout's size.
        overwritten: Whether the network writes over the output in place after the layer has
            returned it. The output must be copied then.
    """

    name: str
    axes: str
    prefix: int
    channels: int
    grid: tuple[int, int]
    overwritten: bool

    def to_map(self, output: torch.Tensor) -> torch.Tensor:
        """Return the layer's output as a map (B, C, h, w), a view of it."""
        if self.axes == CHANNELS_LAST:
            return output.permute(0, 3, 1, 2)
        if self.axes == TOKENS:
            return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return output


@dataclass(frozen=True)
class Layout:
    """The layers of a backbone, and how its network was changed.

    Attributes:
        size: (H, W) in pixels of the images.
        layers: The layers, from large maps to small ones.
        removed: Names of modules that were replaced by identities.
        folded: Names of each convolution and of the batch norm that was folded into it.
        norm: Name of the norm that is applied to the tokens of every layer; empty for none.
        input: How the network expects its images.
    """

    size: tuple[int, int]
    layers: tuple[LayerLayout, ...]
    removed: tuple[str, ...] = ()
    folded: tuple[tuple[str, str], ...] = ()
    norm: str = ""
    input: NetworkInput = NetworkInput()

    def to_record(self) -> dict[str, object]:
        """Return the layout as a dictionary that JSON can hold."""
        return {
            "size": list(self.size),
            "layers": [asdict(layer) | {"grid": list(layer.grid)} for layer in self.layers],
            "removed": list(self.removed),
            "folded": [list(pair) for pair in self.folded],
            "norm": self.norm,
            "input": {
                "mean": list(self.input.mean),
                "std": list(self.input.std),
                "interpolation": self.input.interpolation,
            },
        }

    @classmethod
    def from_record(cls, record: Mapping) -> "Layout":
        """Read what `to_record` returned.

        Raises:
            PatchCoreError: an entry is missing or has another type.
        """
        layers = tuple(_read_layer(layer) for layer in _list(record, "layers", dict))
        folded = tuple(tuple(pair) for pair in _list(record, "folded", list))
        if not layers or any(not _are(str, pair) or len(pair) != 2 for pair in folded):
            raise PatchCoreError(
                "expected a backbone's layout with layers and with pairs of names in folded, found "
                f"{len(layers)} layers and {folded}"
            )
        return cls(
            _pair(record, "size"),
            layers,
            tuple(_list(record, "removed", str)),
            folded,
            _entry(record, "norm", str),
            _read_input(_entry(record, "input", dict)),
        )


def _read_layer(record: Mapping) -> LayerLayout:
    layer = LayerLayout(
        name=_entry(record, "name", str),
        axes=_entry(record, "axes", str),
        prefix=_entry(record, "prefix", int),
        channels=_entry(record, "channels", int),
        grid=_pair(record, "grid"),
        overwritten=_entry(record, "overwritten", bool),
    )
    if layer.axes not in AXES or layer.prefix < 0 or layer.channels < 1:
        raise PatchCoreError(
            f"expected axes {', '.join(AXES)}, a prefix of 0 or more and channels of 1 or more in "
            f"a backbone's layout, found {layer}"
        )
    return layer


def _read_input(record: Mapping) -> NetworkInput:
    mean, std = (tuple(_list(record, name, float)) for name in ("mean", "std"))
    interpolation = _entry(record, "interpolation", str)
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or interpolation not in INTERPOLATIONS:
        raise PatchCoreError(
            f"expected mean and std of 3 channels and interpolation {', '.join(INTERPOLATIONS)} in "
            f"a backbone's layout, found {record}"
        )
    return NetworkInput(mean, std, interpolation)


def _entry(record: Mapping, name: str, kind: type) -> object:
    """Return an entry that has exactly this type: in JSON, true is not a number."""
    found = record.get(name) if isinstance(record, Mapping) else record
    if type(found) is not kind:
        raise PatchCoreError(
            f"expected {name} ({kind.__name__}) in a backbone's layout, found {found!r:.80}"
        )
    return found


def _list(record: Mapping, name: str, kind: type) -> list:
    values = _entry(record, name, list)
    if not _are(kind, values):
        raise PatchCoreError(
            f"expected {name} to list {kind.__name__} in a backbone's layout, found {values!r:.80}"
        )
    return values


def _pair(record: Mapping, name: str) -> tuple[int, int]:
    """Return a height and a width."""
    values = _list(record, name, int)
    if len(values) != 2 or min(values) < 1:
        raise PatchCoreError(
            f"expected {name} (height, width) in a backbone's layout, found {values}"
        )
    return values[0], values[1]


def _are(kind: type, values: Iterable) -> bool:
    return all(type(value) is kind for value in values)
