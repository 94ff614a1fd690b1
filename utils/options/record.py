"""Options from ``run.json``: every value is checked, since the file may be untrusted."""

import dataclasses
import logging
import os
import typing
from pathlib import Path

from utils.errors import UsageError
from utils.options.flags import AnyFlags, check_choice

log = logging.getLogger(__name__)


def read_options(defaults: AnyFlags, record: object, source: Path) -> AnyFlags:
    """Return the options that a run has recorded.

    Args:
        defaults: Values of options that the record lacks, such as those of newer flags.
        record: The entry ``options`` of ``run.json``.
        source: The path of ``run.json``, for errors.

    Raises:
        UsageError: An option is unknown, or its value has another type or is not allowed.
    """
    if not isinstance(record, dict):
        raise UsageError(f"expected the options of an evaluation in {source}, found none")
    entries = {entry.name: entry for entry in dataclasses.fields(defaults)}
    unknown = [name for name in record if name not in entries]
    if unknown:
        raise UsageError(
            f"expected the options of an evaluation in {source}, found unknown options: "
            f"{', '.join(f'{name!r:.40}' for name in unknown[:5])}"
        )
    missing = [name for name in entries if name not in record]
    if missing:
        log.info("not in %s, defaults are used: %s", source, ", ".join(missing))
    kinds = typing.get_type_hints(type(defaults))
    values = {}
    for name, value in record.items():
        try:
            values[name] = _read(kinds[name], value)
            _check_choice(entries[name], values[name])
        except (ValueError, OverflowError) as error:
            raise UsageError(f"cannot use {name} of {source}: {error}") from error
    return dataclasses.replace(defaults, **values)


def _read(kind: object, value: object) -> object:
    """Return a value of JSON as an option of a type.

    Raises:
        ValueError, OverflowError: It is of another type, or cannot be a command-line argument.
    """
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"expected a list, found {value!r:.40}")
        return tuple(_read(typing.get_args(kind)[0], item) for item in value)
    accepted = {float: (float, int), Path: (str,)}.get(kind, (kind,))
    if type(value) not in accepted:
        raise ValueError(f"expected {kind.__name__}, found {value!r:.40}")
    if isinstance(value, str) and b"\0" in os.fsencode(value):
        raise ValueError("expected text without null bytes")
    return kind(value)


def _check_choice(entry: dataclasses.Field, value: object) -> None:
    """Check what the parser of the command line checks.

    Raises:
        ValueError: The value is not among the choices, or there are too many values.
    """
    choices, most = entry.metadata["choices"], entry.metadata["max_values"]
    values = value if isinstance(value, tuple) else (value,)
    for one in values if choices else ():
        check_choice(one, choices)
    if most and len(values) > most:
        raise ValueError(f"expected at most {most} values, found {len(values)}")
