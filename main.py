"""PatchCore for industrial anomaly detection: python main.py --help."""

import importlib
import io
import logging
import os
import sys
import traceback

import cv2

from datasets.base import DatasetError
from patchcore.errors import PatchCoreError
from utils.errors import UsageError

# torch asks the system for large pages, if it has not been told otherwise: each batch needs tensors
# of some 100 MB anew, and a fault for every 4 KB of them was a fifth of an embedding's time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# Each is utils/commands/<name>.py. Only the one that is asked for is loaded: it starts sooner.
COMMANDS = ("evaluate", "demo", "tables", "train", "infer", "export")
EPILOG = """commands (evaluate may be left out; each has its own --help):
  evaluate   this one
  demo       the same on procedural categories that it makes itself: no download needed
  tables     tables again from one or more result folders: Markdown, CSV, LaTeX, README
  train      learn from normal images alone, without a test set
  infer      judge images, folders, videos or a camera by a trained model
  export     a trained model as one file, ONNX or torch's own, that runs without this program
"""
USER_MISTAKE = 2
CRASHED = 70  # sysexits.h; Python's own 1 would say of infer that something is anomalous
INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Run a command; return the exit status, 0 unless the command says another."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks ends no run
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # What OpenCV has to say of a damaged file is in our own error.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # Without a command, "evaluate" is meant: what comes first is a flag then.
    name, *rest = arguments if arguments and arguments[0][:1] != "-" else ["evaluate", *arguments]
    try:
        if name not in COMMANDS:
            raise UsageError(f"no command {name!r}; there are: {', '.join(COMMANDS)}")
        command = importlib.import_module(f"utils.commands.{name}")
        return command.main(rest, epilog=EPILOG) or 0
    except (DatasetError, PatchCoreError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's: not imported before it is needed
            raise
        print(
            f"error: the GPU's memory is full (--batch_size, --device cpu): {error}",
            file=sys.stderr,
        )
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # who reads our output has seen enough: nothing more can be printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        status = CRASHED
    sys.exit(status)
