"""Flags from a dataclass: each of its fields, declared by `flag`, is one flag of a command."""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import field

from utils.errors import UsageError

Settings = typing.TypeVar("Settings")


def flag(
    default: object,
    group: str,
    text: str,
    *,
    metavar: str | None = None,
    choices=(),
    most: int = 0,
    positional: bool = False,
) -> typing.Any:
    """Declare a flag.

    Args:
        default: Its value when not given; a tuple for a flag that takes several.
        group: The heading under which ``--help`` shows it.
        text: What it means, and why the default is what it is.
        metavar: What stands for its value in ``--help``.
        choices: The only values, where it has such.
        most: For a tuple: how many values at most; 0 for any number.
        positional: For a tuple of texts: its values are what stands in the command without a flag,
            and all that follows ``--``; one for a command.
    """
    details = {"group": group, "text": text, "metavar": metavar, "choices": choices, "most": most}
    return field(default=default, metadata=details | {"positional": positional})


def parse_flags(
    arguments: Sequence[str],
    defaults: Settings,
    *,
    command: str,
    description: str,
    epilog: str = "",
    without: Sequence[str] = (),
) -> Settings:
    """Read the flags of a command.

    Args:
        arguments: What follows the command's name.
        defaults: The values of flags that are not given; its class, a dataclass, has the flags.
        command: Its name, for ``--help``.
        description: What it does, for ``--help``.
        epilog: What ``--help`` ends with.
        without: Fields that are no flags of this command.

    Raises:
        UsageError: a flag is unknown or its value cannot be used.
    """
    parser = CommandParser(command, description, epilog)
    groups: dict[str, argparse._ArgumentGroup] = {}
    types = typing.get_type_hints(type(defaults))
    for entry in dataclasses.fields(defaults):
        if entry.name in without:
            continue
        group = entry.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        _add_flag(groups[group], entry, types[entry.name], getattr(defaults, entry.name))
    before, after = _split_at_dashes(arguments)
    # Intermixed: what has no flag may stand before, between and after the flags.
    values = vars(parser.parse_intermixed_args(before))
    if after:
        positional = [e.name for e in dataclasses.fields(defaults) if e.metadata["positional"]]
        if not positional:
            parser.error(f"unrecognized arguments: {' '.join(after)}")
        values[positional[0]] += tuple(after)
    return dataclasses.replace(defaults, **values)


def flags_as_markdown(defaults: object) -> str:
    """Return a table of all flags for the README."""
    lines = ["| flag | default | meaning |", "|:---|:---|:---|"]
    for entry in dataclasses.fields(defaults):
        details = entry.metadata
        choices = f" ({', '.join(details['choices'])})" if details["choices"] else ""
        shown = _shown(getattr(defaults, entry.name))
        default = f"`{shown}`" if shown else ""
        name = details["metavar"] if details["positional"] else f"--{entry.name}"
        lines.append(f"| `{name}` | {default} | {details['text']}{choices} |")
    return "\n".join(lines) + "\n"


class CommandParser(argparse.ArgumentParser):
    """Reads a command's arguments; a mistake is an exception, which one place prints.

    Args:
        command: Its name.
        description: What it does.
        epilog: What ``--help`` ends with.
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
    """Return what stands before and after ``--``, behind which nothing is a flag.

    argparse itself takes what follows for unknown where no other positional stands before it.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def _add_flag(
    group: "argparse._ArgumentGroup", entry: dataclasses.Field, kind: type, default: object
) -> None:
    details = entry.metadata
    text = details["text"].replace("%", "%%")  # which argparse would fill in
    if details["positional"]:
        group.add_argument(
            entry.name,
            type=typing.get_args(kind)[0],
            nargs="*",
            action=_keep_tuple(details["most"], grouped=False),
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
    shown = _shown(default)
    group.add_argument(
        f"--{entry.name}",
        type=typing.get_args(item)[0] if grouped else item,
        nargs="+" if several else None,
        action=_keep_tuple(details["most"], grouped=grouped) if several else "store",
        default=default,
        choices=details["choices"] or None,
        metavar=details["metavar"],
        # Where nothing is the default, the text says what that means.
        help=text + (f" [{shown}]".replace("%", "%%") if shown else ""),
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return str(value)


def _keep_tuple(most: int, *, grouped: bool) -> type[argparse.Action]:
    """Return an action that keeps several values as a tuple.

    Args:
        most: How many values at most; 0 for any number.
        grouped: Whether the flag may be given again, each time for one more tuple.
    """

    class KeepTuple(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            if most and len(values) > most:
                name = option_string or self.metavar or self.dest
                parser.error(f"expected one to {most} values for {name}, found {len(values)}")
            value = tuple(values)
            if grouped:
                before = getattr(namespace, self.dest)
                # What lies there before the first time is the default, which a flag replaces.
                value = (value,) if before is self.default else (*before, value)
            setattr(namespace, self.dest, value)

    return KeepTuple
