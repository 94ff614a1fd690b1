"""PatchCore for industrial anomaly detection: python main.py --help."""

import logging
import sys

from datasets.base import DatasetError
from patchcore import PatchCoreError
from utils.commands import demo, evaluate
from utils.errors import UsageError

COMMANDS = {"evaluate": evaluate.main, "demo": demo.main}
EPILOG = """commands (evaluate may be left out; each has its own --help):
  evaluate   this one
  demo       the same on procedural categories that it makes itself: no download needed
"""
USER_MISTAKE = 2
INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Run a command; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    named = bool(arguments) and arguments[0] in COMMANDS
    command = COMMANDS[arguments[0]] if named else COMMANDS["evaluate"]
    try:
        command(arguments[1:] if named else arguments, epilog=EPILOG)
    except (DatasetError, PatchCoreError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted; finished categories are kept", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
