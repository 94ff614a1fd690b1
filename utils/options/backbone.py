"""Flags of the backbone."""

from dataclasses import dataclass
from pathlib import Path

from patchcore.settings import DEFAULT, RANDOM
from utils.errors import UsageError, named_flag
from utils.options.flags import Flags, flag


@dataclass(frozen=True)
class Member:
    """One network of a run; an ensemble has several.

    Attributes:
        backbone: Name as ``--backbone`` takes it.
        weights: Weights as ``--weights`` takes them.
        layers: Modules that give the feature maps; empty for the default of the backbone.
    """

    backbone: str
    weights: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class BackboneOptions(Flags):
    """Networks, their weights and layers."""

    backbone: tuple[str, ...] = flag(
        ("wide_resnet50_2",),
        "backbone",
        "name of a torchvision classification model, timm:NAME for a network of timm, formulanet "
        "(small, weights included), or module:factory for your own network (a callable without "
        "arguments in an importable module); the default is the paper's; several are evaluated "
        "separately and as an ensemble",
        metavar="NAME",
    )
    weights: tuple[str, ...] = flag(
        (DEFAULT,),
        "backbone",
        "default (torchvision's or timm's, downloaded if not cached; formulanet and your own "
        "network bring theirs), a state-dict file (.pth or .safetensors), or random (seeded, to "
        "test the program); one for all backbones or one each",
        metavar="default|random|FILE",
    )
    layers: tuple[tuple[str, ...], ...] = flag(
        (),
        "backbone",
        "modules of the backbone that give the feature maps, from large to small maps (default: "
        "layer2 layer3 of a ResNet as in the paper; layer1 layer2 layer3 of formulanet; of other "
        "networks the last stages of stride 8 and 16, or the blocks of a vision transformer at two "
        "thirds and at the end); give the flag once for all backbones or once for each",
        metavar="NAME",
    )
    summary: bool = flag(False, "backbone", "print a summary of the cut backbone, layer by layer")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.members()

    def members(self) -> list[Member]:
        """Return the networks, each with its weights and layers.

        Raises:
            UsageError: Weights or layers are given neither once nor once for each backbone.
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

    def check_files(self) -> None:
        """Raise UsageError if a weights file is missing."""
        for weights in self.weights:
            check_weights_file(weights)


def check_weights_file(weights: str) -> None:
    """Raise UsageError if weights are neither a file nor the word default or random."""
    with named_flag("--weights"):
        if weights not in (DEFAULT, RANDOM) and not Path(weights).is_file():
            raise UsageError(
                f"no weights file {weights} (--weights); give {DEFAULT!r}, {RANDOM!r} or the path "
                "of a state dict"
            )
