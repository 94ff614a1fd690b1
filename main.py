"""PatchCore for industrial anomaly detection: python main.py --help."""

import os
import sys
from pathlib import Path

# torch allocates large pages if asked to: every batch needs new tensors of some 100 MB, and a page
# fault for every 4 KB was a fifth of the time of an embedding.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# OpenCV's messages about damaged files; our own errors name the file.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

# A command is utils/commands/<name>.py, imported only if it is asked for.
COMMANDS = {
    "evaluate": "evaluate on a dataset: metrics, tables and figures (the default command)",
    "demo": "evaluate on procedural categories, without a dataset",
    "rerun": "repeat an evaluation from its run.json, and compare the results",
    "tables": "rebuild the tables of result folders: Markdown, CSV, LaTeX, README",
    "train": "fit on normal images only and save the models",
    "infer": "judge images, folders, videos or a camera with a trained model",
    "check": "check a dataset before it is used, or the training images of a model",
    "export": "write a trained model to one file, as ONNX or for torch.export",
    "datasets": "list published datasets: images, licence, paper, where to get them",
    "download": "download a published dataset, or unpack its archive",
}
DEFAULT_COMMAND = "evaluate"
WRONG_USAGE = 2
CRASHED = 70  # as in sysexits.h; 1 is Python's own, but infer's for an anomaly
INTERRUPTED = 130
STATUSES = """Exit status: 0 on success; 1 if infer found an anomaly, check reported a finding,
or the results of rerun differ; 2 on an error; 3 if images or categories were skipped
(--on_error skip); 70 on an internal error; 128 + n if signal n ended the command."""
# Signals that end a run: finished results are kept, and the exit status is 128 plus the number.
ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# While a run ends, further signals are ignored for this long.
ENDING_SECONDS = 5.0
# How often a run that a signal should have ended is checked: callbacks of weak references, which
# imports use, and some extension modules drop the exception, and the run would go on.
CHECK_SECONDS = 1.0


def main(arguments: list[str]) -> int:
    """Run a command and return the exit status: 0, the command's own, or one of those above."""
    import io

    from utils.logs import command_log
    from utils.options.log import terminal_level

    if isinstance(sys.stdout, io.TextIOWrapper):  # print names that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    with command_log(terminal_level(arguments)):
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    """Run a command; report what ends it early."""
    import importlib

    from datasets.base import DatasetError
    from patchcore.errors import PatchCoreError, did_you_mean
    from utils.errors import UsageError, first_line, is_out_of_memory
    from utils.printable import printable_lines

    # A flag in the first place belongs to the default command.
    is_named = bool(arguments) and not arguments[0].startswith("-")
    name, *rest = arguments if is_named else [DEFAULT_COMMAND, *arguments]
    try:
        if name not in COMMANDS:
            hint = did_you_mean(name, COMMANDS)
            raise UsageError(f"expected a command ({', '.join(COMMANDS)}), found {name!r}{hint}")
        _check_current_folder()
        _check_memory_limits()
        command = importlib.import_module(f"utils.commands.{name}")
        return command.main(rest, epilog=_list_commands()) or 0
    except (DatasetError, PatchCoreError, UsageError) as error:
        print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        return WRONG_USAGE
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
        print(
            "error: out of memory (--batch_size, --memory_budget; on a GPU --device cpu); "
            f"finished results are kept{reason and f': {reason}'}",
            file=sys.stderr,
        )
        return WRONG_USAGE
    except KeyboardInterrupt as error:
        return _report_interrupt(*error.args)
    except OSError as error:  # such as a full disk, a full standard output, too many open files
        return _report_os_error(error)


def run_script(arguments: list[str]) -> int:
    """Run `main` as a program; return the exit status, also after a crash or an interruption."""
    import signal
    import time

    received = []
    numbers = [getattr(signal, name) for name in ENDING_SIGNALS if hasattr(signal, name)]

    def end(number, frame):
        received.append((number, time.monotonic()))
        if len(received) == 1 or received[-1][1] - received[0][1] > ENDING_SECONDS:
            if hasattr(signal, "setitimer"):  # not on Windows
                signal.signal(signal.SIGALRM, end_again)
                signal.setitimer(signal.ITIMER_REAL, CHECK_SECONDS, CHECK_SECONDS)
            raise KeyboardInterrupt(number)

    def end_again(number, frame):
        if not _is_handled(KeyboardInterrupt):
            raise KeyboardInterrupt(received[0][0])

    try:
        _open_standard_streams()
        for number in numbers:
            # A shell makes background jobs ignore SIGINT, and nohup SIGHUP.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, end)
        status = main(arguments)
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt) as error:
        # Extension modules that are interrupted during their import raise an ImportError instead.
        if received or isinstance(error, KeyboardInterrupt):
            return _report_interrupt(*(number for number, _ in received[:1]))
        if isinstance(error, OSError):  # the standard output could not be flushed
            return _report_os_error(error)
        return _report_crash()
    finally:
        if received and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        # The interpreter resets other handlers while it shuts down, and one more signal kills it.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def _is_handled(kind: type[BaseException]) -> bool:
    """Return whether an exception of a kind, or one that it led to, is being handled."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


def _open_standard_streams() -> None:
    """Open the null device for standard streams that are closed.

    Otherwise the next file that is opened would take their place and receive printed output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _check_current_folder() -> None:
    """Raise UsageError if the current folder was deleted; libraries of torch end a process then."""
    from utils.errors import UsageError

    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(
            f"cannot use the current folder: {error.strerror}; change to another one"
        ) from error


def _check_memory_limits() -> None:
    """Raise MemoryError if libraries cannot even be imported below a limit such as ulimit -v.

    NumPy's OpenBLAS would end this process then, with the status of infer for an anomaly.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if all(limit == resource.RLIM_INFINITY for limit in limits):
        return
    import subprocess

    trial = subprocess.run([sys.executable, "-c", "import numpy"], capture_output=True, check=False)
    if trial.returncode:
        raise MemoryError("a limit of this process is too low to import NumPy (ulimit -v, -d)")


def _report_os_error(error: OSError) -> int:
    """Report an error of the system, unless nobody reads the output; return the exit status."""
    from utils.printable import printable

    is_unread = isinstance(error, BrokenPipeError)
    if not is_unread:
        where = "" if error.filename is None else f": {printable(os.fsdecode(error.filename))}"
        text = f"error: {error.strerror or error}{where}; finished results are kept"
        print(text, file=sys.stderr)
    _discard_output()
    return INTERRUPTED if is_unread else WRONG_USAGE


def _discard_output() -> None:
    """Send the rest of the standard output nowhere, also what is flushed at the very end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_crash() -> int:
    try:
        import traceback

        traceback.print_exc()
    except Exception:  # there may be no memory left to print it
        print("error: internal error; the traceback cannot be printed", file=sys.stderr)
    return CRASHED


def _report_interrupt(number: int = 2) -> int:
    """Report a signal, by default SIGINT; return the exit status."""
    name = "interrupted" if number == INTERRUPTED - 128 else f"ended by signal {number}"
    print(f"{name}; finished results are kept", file=sys.stderr)
    return 128 + number


def _list_commands() -> str:
    lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join([STATUSES, "", "commands (each has its own --help):", *lines])


if __name__ == "__main__":
    folder = str(Path(__file__).resolve().parent)
    if folder not in sys.path:  # with -I, -P or PYTHONSAFEPATH
        sys.path.insert(0, folder)
    sys.exit(run_script(sys.argv[1:]))
