"""Flags of the method, made from `patchcore.settings.Settings`."""

import dataclasses
import types
import typing
from dataclasses import dataclass

from patchcore.protocols import PROTOCOL_BACKBONES, PROTOCOLS
from patchcore.settings import Settings
from utils.options.flags import AnyFlags, CommandParser, Flags, flag, parse_flags, usage_errors

# Settings of one number in the library that may have several on the command line.
SEVERAL = {
    "seed": "; several values share one embedding, tables show their mean and standard deviation, "
    "and the first seed draws random weights"
}


def _as_flag(value: object) -> object:
    """Return a setting in the form of its flag: a square's size as one number, None as no value."""
    if value is None:
        return ()
    return value[:1] if isinstance(value, tuple) and len(set(value)) == 1 else value


def _flag_fields() -> list[tuple[str, type, dataclasses.Field]]:
    """Return name, type and flag of each setting."""
    kinds = typing.get_type_hints(Settings)
    found = []
    for entry in dataclasses.fields(Settings):
        kind, default, details = kinds[entry.name], _as_flag(entry.default), dict(entry.metadata)
        if isinstance(kind, types.UnionType):  # tuple or None
            kind = typing.get_args(kind)[0]
        if entry.name in SEVERAL:
            kind, default = tuple[kind, ...], (default,)
            details["text"] += SEVERAL[entry.name]
        found.append((entry.name, kind, flag(default, **details)))
    return found


@dataclass(frozen=True)
class ProtocolOptions(Flags):
    """Preset that the settings of the method start from."""

    protocol: str = flag(
        "paper",
        "method",
        "preset of method settings; explicit flags override it: paper (reference code), "
        "whole_image (without crop; the default of train), "
        "paper_320 (366/320 pixels), high_resolution (512/448 pixels, 3 percent, "
        "context 0.5), "
        "patchcore_ex (area interpolation, k = 5, max_map), anomalib_like (256x256 without crop, "
        "1536 dimensions, reweighted), or anomalydino, rad and superadd (published methods, with "
        "their backbones and layers unless a backbone is given; docs/method.md lists what each "
        "sets and does not cover)",
        choices=tuple(PROTOCOLS),
    )


SettingsOptions = dataclasses.make_dataclass(
    "SettingsOptions", _flag_fields(), bases=(ProtocolOptions,), frozen=True
)


@dataclass(frozen=True)
class MethodOptions(SettingsOptions):
    """A flag for each setting of the method."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.settings()

    def settings(self) -> Settings:
        """Return the settings of the method, with the first seed.

        Raises:
            UsageError: Settings exclude one another.
        """
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Settings)}
        values["size_crop"] = values["size_crop"] or None
        with usage_errors():
            return Settings(**values | {name: values[name][0] for name in SEVERAL})


def parse_options(
    arguments: list[str],
    defaults: AnyFlags,
    *,
    command: str,
    description: str,
    epilog: str = "",
) -> AnyFlags:
    """Read the flags of a command as `parse_flags`; ``--protocol`` sets the method's defaults."""
    return parse_flags(
        arguments,
        dataclasses.replace(defaults, **_preset(arguments, defaults.protocol)),
        command=command,
        description=description,
        epilog=epilog,
    )


def _preset(arguments: list[str], default: str) -> dict[str, object]:
    """Return the defaults by ``--protocol``, which is read before all other flags."""
    parser = CommandParser("", add_help=False)
    parser.add_argument("--protocol", default=default)
    parser.add_argument("--backbone", nargs="*")
    found = parser.parse_known_args(arguments)[0]
    # An unknown name is reported with all other flags.
    preset = {n: _as_flag(value) for n, value in PROTOCOLS.get(found.protocol, {}).items()}
    if found.backbone is None and found.protocol in PROTOCOL_BACKBONES:
        name, layers = PROTOCOL_BACKBONES[found.protocol]
        preset |= {"backbone": (name,), "layers": (layers,)}
    return preset
