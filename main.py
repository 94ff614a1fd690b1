"""PatchCore for industrial anomaly detection: python main.py --help."""

import logging
import sys

import cv2

from datasets.base import DatasetError
from patchcore import PatchCoreError
from utils.commands import demo, evaluate, tables
from utils.errors import UsageError

COMMANDS = {"evaluate": evaluate.main, "demo": demo.main, "tables": tables.main}
EPILOG = """commands (evaluate may be left out; each has its own --help):
  evaluate   this one
  demo       the same on procedural categories that it makes itself: no download needed
  tables     tables again from one or more result folders: Markdown, CSV, LaTeX, README
"""
USER_MISTAKE = 2
INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Run a command; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # What OpenCV has to say of a damaged file is in our own error.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # Without a command, "evaluate" is meant: what comes first is a flag then.
    name, *rest = arguments if arguments and arguments[0][:1] != "-" else ["evaluate", *arguments]
    try:
        if name not in COMMANDS:
            raise UsageError(f"no command {name!r}; there are: {', '.join(COMMANDS)}")
        COMMANDS[name](rest, epilog=EPILOG)
    except (DatasetError, PatchCoreError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted; finished categories are kept", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
