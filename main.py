"""PatchCore for industrial anomaly detection: python main.py --help."""

import os
import sys

# torch allocates large pages if asked to: every batch needs new tensors of some 100 MB, and a page
# fault for every 4 KB of them was a fifth of the time of an embedding.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# OpenCV's messages about damaged files; our own errors name the file.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

# A command is utils/commands/<name>.py, imported only if it is asked for.
COMMANDS = {
    "evaluate": "evaluate on a dataset: metrics, tables and figures (the default command)",
    "demo": "evaluate on procedural categories: no download of a dataset needed",
    "tables": "rebuild the tables of result folders: Markdown, CSV, LaTeX, README",
    "train": "fit on normal images alone and save the models",
    "infer": "judge images, folders, videos or a camera with a trained model",
    "export": "write a trained model to one file, as ONNX or for torch.export",
    "datasets": "list published datasets: images, licence, paper, where to get them",
    "download": "download a published dataset, or unpack its archive",
}
DEFAULT_COMMAND = "evaluate"
WRONG_USAGE = 2
CRASHED = 70  # as in sysexits.h; 1 is Python's own, but infer's for an anomaly
INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Run a command and return the exit status: 0, the command's own, or one of those above."""
    import importlib
    import io
    import logging

    from datasets.base import DatasetError
    from patchcore.errors import PatchCoreError
    from utils.errors import UsageError

    if isinstance(sys.stdout, io.TextIOWrapper):  # print names that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    for package in ("patchcore", "datasets", "utils"):  # other packages log only warnings
        logging.getLogger(package).setLevel(logging.INFO)
    # A flag in the first place belongs to the default command.
    is_named = bool(arguments) and not arguments[0].startswith("-")
    name, *rest = arguments if is_named else [DEFAULT_COMMAND, *arguments]
    try:
        if name not in COMMANDS:
            raise UsageError(f"no command {name!r}; there are: {', '.join(COMMANDS)}")
        command = importlib.import_module(f"utils.commands.{name}")
        return command.main(rest, epilog=_list_commands()) or 0
    except (DatasetError, PatchCoreError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for it
            raise
        print(
            f"error: the GPU's memory is full (--batch_size, --device cpu): {error}",
            file=sys.stderr,
        )
        return WRONG_USAGE
    except KeyboardInterrupt:
        return _report_interrupt()
    except BrokenPipeError:  # the reader of our output has closed it: print nothing more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


def run_script(arguments: list[str]) -> int:
    """Run `main` as a program; return the exit status, also after a crash or an interruption."""
    interrupts = []

    def interrupt(number, frame):
        interrupts.append(number)
        raise KeyboardInterrupt

    try:
        import signal

        signal.signal(signal.SIGINT, interrupt)
        return main(arguments)
    except (Exception, KeyboardInterrupt) as error:
        # Extension modules that are interrupted during their import raise an ImportError instead.
        if interrupts or isinstance(error, KeyboardInterrupt):
            return _report_interrupt()
        import traceback

        traceback.print_exc()
        return CRASHED


def _report_interrupt() -> int:
    print("interrupted; what was finished is kept", file=sys.stderr)
    return INTERRUPTED


def _list_commands() -> str:
    lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["commands (each has its own --help):", *lines])


if __name__ == "__main__":
    sys.exit(run_script(sys.argv[1:]))
