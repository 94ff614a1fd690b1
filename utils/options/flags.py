"""Flags from a dataclass: each field declared by `flag` is one flag of a command."""

import argparse
import dataclasses
import re
import typing
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from patchcore.errors import PatchCoreError
from patchcore.settings import Bounds
from utils.errors import UsageError

AnyFlags = typing.TypeVar("AnyFlags", bound="Flags")


def flag(
    default: object,
    group: str,
    text: str,
    *,
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    bounds: Bounds | None = None,
    max_values: int = 0,
    positional: bool = False,
) -> typing.Any:
    """Declare a flag.

    Args:
        default: Value if the flag is not given; a tuple for a flag with several values.
        group: Heading under which ``--help`` lists it.
        text: Meaning, and reason for the default.
        metavar: Placeholder for the value in ``--help``.
        choices: Allowed values, if there is a fixed set.
        bounds: Allowed numbers.
        max_values: Largest number of values of a tuple; 0 for any number.
        positional: For a tuple of strings: its values are the arguments without a flag, and all
            that follow ``--``. One per command.
    """
    metadata = {"group": group, "text": text, "metavar": metavar, "choices": choices}
    metadata |= {"bounds": bounds, "max_values": max_values, "positional": positional}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Flags:
    """Base of a command's options; groups of flags are combined by inheritance.

    A subclass with its own checks calls ``super().__post_init__()`` first.

    Raises:
        UsageError: A number is out of the bounds of its flag.
    """

    def __post_init__(self) -> None:
        with usage_errors():
            for entry in dataclasses.fields(self):
                bounds, value = entry.metadata["bounds"], getattr(self, entry.name)
                is_given = value != ()  # a flag with several values may default to none
                if bounds is not None and is_given:
                    bounds.check(entry.name, value)

    def texts(self, *, without: Collection[str]) -> dict[str, str]:
        """Return the values of all flags but some as texts, by name."""
        names = [entry.name for entry in dataclasses.fields(self)]
        return {name: str(getattr(self, name)) for name in names if name not in without}


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a PatchCoreError about settings into a UsageError that names the flags."""
    try:
        yield
    except PatchCoreError as error:
        # The message ends with the names of the settings: "... (k)".
        message, _, names = str(error).rpartition("(")
        flags = re.sub(r"(\w+)", r"--\1", names)
        raise UsageError(f"{message}({flags}") from error


def parse_flags(
    arguments: Sequence[str],
    defaults: AnyFlags,
    *,
    command: str,
    description: str,
    epilog: str = "",
) -> AnyFlags:
    """Read the flags of a command.

    Args:
        arguments: Arguments that follow the command's name.
        defaults: Values of flags that are not given; the flags are the fields of its class.
        command: Name of the command, for ``--help``.
        description: Purpose of the command, for ``--help``.
        epilog: End of ``--help``.

    Raises:
        UsageError: A flag is unknown or its value is not allowed.
    """
    parser = CommandParser(command, description, epilog)
    add_flags(parser, defaults)
    before, after = _split_at_dashes(arguments)
    for word in before:
        if word.startswith("--") and word.endswith("=--"):  # argparse makes it an empty list
            parser.error(f"argument {word.partition('=')[0]}: expected a value, found --")
    # Intermixed: positional arguments may be before, between and after the flags.
    values = vars(parser.parse_intermixed_args(before))
    if after:
        positional = [e.name for e in dataclasses.fields(defaults) if e.metadata["positional"]]
        if not positional:
            parser.error(f"unrecognized arguments: {' '.join(after)}")
        values[positional[0]] += tuple(after)
    return dataclasses.replace(defaults, **values)


def add_flags(parser: "CommandParser", defaults: Flags) -> None:
    """Add the flags of a dataclass to a parser, under their headings."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    types = typing.get_type_hints(type(defaults))
    for entry in dataclasses.fields(defaults):
        group = entry.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        _add_flag(groups[group], entry, types[entry.name], getattr(defaults, entry.name))


class CommandParser(argparse.ArgumentParser):
    """Argument parser that reports a mistake as an exception.

    Args:
        command: Name of the command.
        description: Purpose of the command.
        epilog: End of ``--help``.
        add_help: Whether there is a ``--help``.
    """

    def __init__(self, command: str, description: str = "", epilog: str = "", *, add_help=True):
        super().__init__(
            prog=f"python main.py {command}".strip(),
            description=description,
            epilog=epilog,
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> typing.NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; {self.prog} --help lists all flags")


def _split_at_dashes(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the arguments before and after ``--``; nothing after it is a flag.

    argparse rejects arguments after ``--`` if there is no positional argument before it.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def _add_flag(
    group: "argparse._ArgumentGroup", entry: dataclasses.Field, kind: type, default: object
) -> None:
    details = entry.metadata
    text = details["text"].replace("%", "%%")  # argparse would fill it in
    if details["positional"]:
        group.add_argument(
            entry.name,
            type=typing.get_args(kind)[0],
            nargs="*",
            action=_keep_tuple(details["max_values"], grouped=False),
            default=default,
            metavar=details["metavar"],
            help=text,
        )
        return
    if kind is bool:
        group.add_argument(
            f"--{entry.name}",
            action=argparse.BooleanOptionalAction if default else "store_true",
            default=default,
            help=text,
        )
        return
    several = typing.get_origin(kind) is tuple
    item = typing.get_args(kind)[0] if several else kind
    grouped = typing.get_origin(item) is tuple
    shown = as_text(default)
    group.add_argument(
        f"--{entry.name}",
        type=typing.get_args(item)[0] if grouped else item,
        nargs="+" if several else None,
        action=_keep_tuple(details["max_values"], grouped=grouped) if several else "store",
        default=default,
        choices=details["choices"] or None,
        metavar=details["metavar"],
        # The text describes an empty default.
        help=text + (f" [{shown}]".replace("%", "%%") if shown else ""),
    )


def as_text(value: object) -> str:
    """Return the value of a flag as it is given on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(as_text, value))
    return str(value)


def _keep_tuple(max_values: int, *, grouped: bool) -> type[argparse.Action]:
    """Return an action that stores several values as a tuple.

    Args:
        max_values: Largest number of values; 0 for any number.
        grouped: Whether the flag may be given again, each time for one more tuple.
    """

    class KeepTuple(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            if max_values and len(values) > max_values:
                name = option_string or self.metavar or self.dest
                parser.error(f"expected one to {max_values} values for {name}, found {len(values)}")
            value = tuple(values)
            if grouped:
                before = getattr(namespace, self.dest)
                # The first value of the flag replaces the default.
                value = (value,) if before is self.default else (*before, value)
            setattr(namespace, self.dest, value)

    return KeepTuple
