"""The flags of a run: each with its default, the reason for it, and the group it is shown in.

`Options` is the one list: the command line is made from it, every part of the program reads it,
and `run.json` records it.
"""

import argparse
import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
PICTURES = ("all", "defective", "none")


def _flag(
    default: object, group: str, text: str, *, metavar: str | None = None, choices=(), most: int = 0
) -> typing.Any:
    """Declare a flag.

    Args:
        default: Its value when not given; a tuple for a flag that takes several.
        group: The heading under which ``--help`` shows it.
        text: What it means, and why the default is what it is.
        metavar: What stands for its value in ``--help``.
        choices: The only values, where it has such.
        most: For a tuple: how many values at most; 0 for any number.
    """
    details = {"group": group, "text": text, "metavar": metavar, "choices": choices, "most": most}
    return field(default=default, metadata=details)


@dataclass(frozen=True)
class Options:
    """What a run is asked to do."""

    path_data: Path = _flag(
        Path("mvtec_anomaly_detection"),
        "input",
        "folder with one folder per category in MVTec AD's layout",
        metavar="DIR",
    )
    categories: tuple[str, ...] = _flag(
        (),
        "input",
        "the categories to evaluate, in this order (default: all, sorted)",
        metavar="NAME",
    )
    path_result: Path = _flag(
        Path("result"),
        "output",
        "folder for tables and pictures; an earlier run's move to its subfolder 'earlier'",
        metavar="DIR",
    )
    pictures: str = _flag(
        "all",
        "output",
        "test images to draw localization pictures of; the measured time never includes them",
        choices=PICTURES,
    )
    summary: bool = _flag(False, "output", "print a summary of the cut backbone, layer by layer")
    percentage_coreset: tuple[float, ...] = _flag(
        (0.1,),
        "method",
        "share of the training patches to keep, in (0, 1]: 0.1 is the paper's middle case; several "
        "share one reading, embedding and selection",
        metavar="P",
    )
    k: int = _flag(
        1,
        "method",
        "a patch is scored by its mean distance to this many nearest coreset patches; 1 as in the "
        "paper",
        metavar="N",
    )
    seed: int = _flag(0, "method", "seed of the selection, and of random weights", metavar="N")
    backbone: str = _flag(
        "wide_resnet50_2",
        "backbone",
        "name of a torchvision classification model, or module:factory for a network of your own "
        "(a callable without arguments in an importable module); default: the paper's",
        metavar="NAME",
    )
    weights: str = _flag(
        "default",
        "backbone",
        "'default' (torchvision's, downloaded by torchvision where not cached; a factory's network "
        "keeps its own), a state-dict file (.pth or .safetensors), or 'random' (seeded, to see "
        "that the program runs)",
        metavar="default|random|FILE",
    )
    layers: tuple[str, ...] = _flag(
        ("layer2", "layer3"),
        "backbone",
        "modules of the backbone whose maps are used, from large maps to small ones; default: the "
        "paper's for ResNets",
        metavar="NAME",
    )
    size_resize: tuple[int, ...] = _flag(
        (256,),
        "preprocessing",
        "size in pixels to which images are resized: one number, or height and width; default: "
        "the paper's",
        metavar="N",
        most=2,
    )
    size_crop: tuple[int, ...] = _flag(
        (224,),
        "preprocessing",
        "size in pixels of the part kept from the middle: one number, or height and width; "
        "default: the paper's",
        metavar="N",
        most=2,
    )
    patch_size: int = _flag(
        3, "method", "side of a patch's neighbourhood in positions of a layer's map", metavar="N"
    )
    embed_dim: int = _flag(1024, "method", "length of a patch embedding", metavar="N")
    sigma: float = _flag(
        4.0, "method", "Gaussian smoothing of the anomaly map, in pixels; 0 for none", metavar="S"
    )
    batch_size: int = _flag(
        8,
        "computing",
        "images at a time; more gain nothing on a CPU, a GPU may take 32 or more",
        metavar="N",
    )
    num_workers: int = _flag(
        4,
        "computing",
        "threads that read images ahead and draw pictures; 0 for none",
        metavar="N",
    )
    device: str = _flag(
        "auto",
        "computing",
        "where to compute; auto takes the GPU where there is one",
        choices=DEVICES,
    )

    def __post_init__(self) -> None:
        least = {"k": 1, "seed": 0, "patch_size": 1, "embed_dim": 1, "sigma": 0, "batch_size": 1}
        for name, bound in {**least, "num_workers": 0}.items():
            value = getattr(self, name)
            if not value >= bound:
                raise UsageError(f"expected --{name} of at least {bound}, found {value}")
        if not self.percentage_coreset or not all(0 < p <= 1 for p in self.percentage_coreset):
            found = " ".join(f"{p:g}" for p in self.percentage_coreset) or "none"
            raise UsageError(
                "expected --percentage_coreset in (0, 1], for example 0.1 for 10 %, found " + found
            )

    def size(self, name: str) -> tuple[int, int]:
        """Return ``size_resize`` or ``size_crop`` as (height, width)."""
        values = getattr(self, name)
        return values[0], values[-1]


def parse_options(
    arguments: list[str], *, command: str, description: str, defaults: Options, epilog: str = ""
) -> Options:
    """Read the flags of a command.

    Args:
        arguments: What follows the command's name.
        command: Its name, for ``--help``.
        description: What it does, for ``--help``.
        defaults: The values of flags that are not given.
        epilog: What ``--help`` ends with.

    Raises:
        UsageError: a flag is unknown or its value cannot be used.
    """
    parser = _Parser(
        prog=f"python main.py {command}",
        description=description,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    types = typing.get_type_hints(Options)
    for entry in dataclasses.fields(Options):
        group = entry.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        _add_flag(groups[group], entry, types[entry.name], getattr(defaults, entry.name))
    return Options(**vars(parser.parse_args(arguments)))


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as an exception, so that the program has one place that prints errors."""

    def error(self, message: str) -> typing.NoReturn:
        raise UsageError(f"{message}; {self.prog} --help lists all flags")


def _add_flag(
    group: "argparse._ArgumentGroup", entry: dataclasses.Field, kind: type, default: object
) -> None:
    details = entry.metadata
    if kind is bool:
        group.add_argument(
            f"--{entry.name}",
            action=argparse.BooleanOptionalAction if default else "store_true",
            default=default,
            help=details["text"],
        )
        return
    several = typing.get_origin(kind) is tuple
    item = typing.get_args(kind)[0] if several else kind
    shown = " ".join(map(str, default)) if several else str(default)
    text = (
        details["text"]
        if "default" in details["text"] and not shown
        else (f"{details['text']} [{shown}]")
    )
    group.add_argument(
        f"--{entry.name}",
        type=item,
        nargs="+" if several else None,
        action=_at_most(details["most"]) if several else "store",
        default=default,
        choices=details["choices"] or None,
        metavar=details["metavar"],
        help=text.replace("%", "%%"),
    )


def _at_most(most: int) -> type[argparse.Action]:
    """Return an action that keeps several values as a tuple, no more than ``most`` (0: any)."""

    class KeepTuple(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            if most and len(values) > most:
                parser.error(f"expected one to {most} values for {option_string}, {len(values)}")
            setattr(namespace, self.dest, tuple(values))

    return KeepTuple
