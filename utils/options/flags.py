"""Flags from a dataclass: each field declared by `flag` is one flag of a command."""

import argparse
import dataclasses
import re
import shlex
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from patchcore.errors import PatchCoreError, did_you_mean
from patchcore.setting_values import Bounds
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
                is_given = value not in ((), None)  # the default of a flag may be no value
                if bounds is not None and is_given:
                    bounds.check(entry.name, value)

    def check_given(self, given: Collection[str]) -> None:
        """Check the flags of a command line, given by name, also those with their default value.

        Raises:
            UsageError: A flag has no effect together with others.
        """

    def texts(self, *, without: Collection[str]) -> dict[str, str]:
        """Return the values of all flags but some as texts for messages, by name.

        Different values have different texts.
        """
        names = [entry.name for entry in dataclasses.fields(self)]
        return {name: describe_value(getattr(self, name)) for name in names if name not in without}


def refuse(flags: Iterable[str], reason: str) -> None:
    """Raise UsageError about flags without effect, if there are any.

    Args:
        flags: Their names.
        reason: Why they have none; it follows the flags and begins with a preposition.
    """
    listed = " ".join(f"--{name}" for name in flags)
    if listed:
        raise UsageError(f"expected no {listed} {reason}")


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a PatchCoreError about settings into a UsageError that names the flags."""
    try:
        yield
    except PatchCoreError as error:
        # The last brackets have the names of the settings: "... (k)".
        message, _, end = str(error).rpartition("(")
        names, _, hint = end.partition(")")
        flags = re.sub(r"(\w+)", r"--\1", names)
        raise UsageError(f"{message}({flags}){hint}") from error


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
    found, unknown = parser.parse_known_intermixed_args(before)
    positional = [e.name for e in dataclasses.fields(defaults) if e.metadata["positional"]]
    if unknown or (after and not positional):
        parser.refuse_unknown([*unknown, *after])
    values = vars(found)  # those of the given flags
    if after:
        values[positional[0]] = (*values.get(positional[0], ()), *after)
    options = dataclasses.replace(defaults, **values)
    options.check_given(values)
    return options


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
        raise UsageError(f"{message} ({self.prog} --help lists all flags)")

    def refuse_unknown(self, words: Sequence[str]) -> typing.NoReturn:
        """Raise UsageError about arguments that this command does not have."""
        known = [name for action in self._actions for name in action.option_strings]
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        hint = did_you_mean(flags[0], known) if flags else ""
        self.error(f"unrecognized arguments: {' '.join(words)}{hint}")


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
    choices = ",".join(details["choices"])
    metavar = details["metavar"] or (f"{{{choices}}}" if choices else None)
    # Only flags that are given become values: `Flags.check_given` needs their names.
    common = {"default": argparse.SUPPRESS, "metavar": metavar}
    text = details["text"].replace("%", "%%")  # argparse would fill it in
    if details["positional"]:
        group.add_argument(
            entry.name,
            type=_reader(typing.get_args(kind)[0]),
            nargs="*",
            action=_keep_tuple(details["max_values"], grouped=False),
            help=text,
            **common,
        )
        return
    if kind is bool:
        group.add_argument(
            f"--{entry.name}",
            action=argparse.BooleanOptionalAction if default else "store_true",
            default=argparse.SUPPRESS,
            help=text,
        )
        return
    if isinstance(kind, types.UnionType):  # a value or None
        kind = typing.get_args(kind)[0]
    several = typing.get_origin(kind) is tuple
    item = typing.get_args(kind)[0] if several else kind
    grouped = typing.get_origin(item) is tuple
    # The text describes an empty default, and a number that stands for a default in words.
    shown = "" if "(default: " in text else as_text(default)
    group.add_argument(
        f"--{entry.name}",
        type=_reader(
            typing.get_args(item)[0] if grouped else item,
            details["choices"],
            # Without a value, a flag replaces the value that a record gives.
            may_be_empty=entry.default == "" != default,
        ),
        nargs="+" if several else None,
        action=_keep_tuple(details["max_values"], grouped=grouped) if several else "store",
        help=text + (f" [{shown}]".replace("%", "%%") if shown else ""),
        **common,
    )


def describe_value(value: object) -> str:
    """Return the value of a flag in words, for a message; different values have different words."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, tuple):
        return "none" if value in ("", None) else str(value)
    if any(isinstance(item, tuple) for item in value):  # a flag that is given several times
        return "; ".join(map(describe_value, value))
    return shlex.join(map(str, value)) or "none"


def check_choice(value: object, choices: Sequence[str]) -> None:
    """Raise ValueError if a value is not one of the choices."""
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        raise ValueError(f"expected {', '.join(choices)}, found {value!r:.40}{hint}")


def _reader(
    kind: type, choices: Sequence[str] = (), *, may_be_empty: bool = False
) -> Callable[[str], object]:
    """Return a function from the text of an argument to its value, for argparse."""

    def read(text: str) -> object:
        if not (text or may_be_empty):
            raise argparse.ArgumentTypeError("expected a value, found an empty text")
        try:
            value = kind(text)
        except ValueError as error:
            what = {int: "a whole number", float: "a number"}[kind]
            raise argparse.ArgumentTypeError(f"expected {what}, found {text!r}") from error
        try:
            if choices:
                check_choice(value, choices)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return value

    return read


def as_text(value: object) -> str:
    """Return the value of a flag as it is given on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(as_text, value))
    return "" if value is None else str(value)


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
                value = (*getattr(namespace, self.dest, ()), value)
            setattr(namespace, self.dest, value)

    return KeepTuple
