"""Flags of the messages, which all commands have."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from utils.errors import UsageError
from utils.options.flags import Flags, flag


@dataclass(frozen=True)
class LogOptions(Flags):
    """Verbosity of the messages."""

    quiet: bool = flag(
        False, "messages", "show warnings and errors only, besides results on standard output"
    )
    verbose: bool = flag(
        False,
        "messages",
        "also show what each step decides and how long it takes; commands with a result folder "
        "always write this to its run.log",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quiet and self.verbose:
            raise UsageError("expected --quiet or --verbose, found both")


def terminal_level(arguments: Sequence[str]) -> int:
    """Return the level of the messages that a terminal shows, before the flags are checked."""
    flags = [*arguments, "--"][: [*arguments, "--"].index("--")]
    if "--quiet" in flags:
        return logging.WARNING
    return logging.DEBUG if "--verbose" in flags else logging.INFO
