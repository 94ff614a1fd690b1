"""Ray for the length of a run: on this machine alone, or a cluster that runs already.

Ray is optional, and imported only within functions. What starts here listens on the loopback
address alone, asks for a token that only this run knows, and sends nothing to anyone.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UsageError, first_line
from utils.machine import usable_cores

# Seconds in which a port has to accept a connection, and a cluster to accept a driver.
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 60.0
# Seconds in which processes stop writing to Ray's folder.
REMOVE_SECONDS = 2.0
# Resolvers may take a larger number for the port of its lower 16 bits.
LARGEST_PORT = 65_535
# Sockets lie in Ray's folder, and their paths have at most 107 characters.
LONGEST_FOLDER = 40
ROOT = Path(__file__).resolve().parent.parent
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

# Ray reads these when it is imported.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# On Linux too, nodes then have the loopback address, as Ray does it on other systems.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}

# Connects as `ray.init` does, in a process that can be ended: where nothing answers, Ray waits for
# more than a minute and ignores signals.
TRIAL = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
"""


@contextmanager
def connected(address: str, packages: tuple[Path, ...]) -> Iterator[None]:
    """Connect to a cluster within a block, unless this process is connected to one already.

    Args:
        address: ``HOST:PORT``, or ``auto`` for the cluster that runs on this machine; empty to
            start Ray on this machine for this block, with one CPU for each usable core.
        packages: Folders of packages that the workers of a running cluster get. Workers that are
            started here find them where this program does.

    Raises:
        UsageError: nothing answers at the address, or Ray cannot be started.
    """
    if _is_connected():
        yield
        return
    os.environ.update(QUIET if address else {**QUIET, **LOOPBACK})
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    handlers = _signal_handlers()
    try:
        if address:
            _check_answer(address)
            with _usage_errors(f"cannot use the Ray cluster at {address} (--address)"):
                _init(address=address, runtime_env=_runtime_env(packages))
            _restore(handlers)
            yield
        else:
            # Ray reads it once in a process.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
            with _short_folder() as folder:
                with _usage_errors("cannot start Ray on this machine"):
                    _init(
                        address="local",
                        num_cpus=usable_cores(),
                        include_dashboard=False,
                        _temp_dir=str(folder),
                    )
                _restore(handlers)
                try:
                    yield
                finally:
                    _shut_down()
    finally:
        _shut_down()
        _restore(handlers)


def enter(folder: str) -> None:
    """Go to the folder that relative paths start from, where this node has it."""
    with suppress(OSError):
        os.chdir(folder)


def _init(**arguments: object) -> None:
    """Connect to Ray from this program's folder.

    Workers import from the current folder first, and another one may have packages with the names
    of this program's.
    """
    import ray

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        ray.init(
            log_to_driver=False, configure_logging=False, logging_level="CRITICAL", **arguments
        )
    finally:
        os.chdir(before)


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    # Its import may have been interrupted.
    return hasattr(ray, "is_initialized") and ray.is_initialized()


def _shut_down() -> None:
    if _is_connected():
        sys.modules["ray"].shutdown()


def _runtime_env(packages: tuple[Path, ...]) -> dict[str, object]:
    names = ("THP_MEM_ALLOC_ENABLE", "OPENCV_LOG_LEVEL")  # as main.py sets them
    return {
        "py_modules": [str(folder) for folder in packages],
        "env_vars": {name: os.environ[name] for name in names if name in os.environ},
    }


def _check_answer(address: str) -> None:
    """Raise UsageError unless a Ray cluster answers."""
    hint = "start one with ray start --head, or leave out --address to use this machine alone"
    if address != "auto":
        host, _, port = address.rpartition(":")
        # Its digits are counted first: Python reads no number of thousands of digits.
        is_port = port.isdecimal() and len(port) <= 5 and int(port) <= LARGEST_PORT
        if not host or not is_port:
            raise UsageError(f"expected auto or HOST:PORT, found {address!r} (--address)")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a name
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"expected a Ray cluster at {address} (--address), found none ({reason}): {hint}"
            ) from error
    try:
        found = subprocess.run(
            [sys.executable, "-c", TRIAL, address],
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"expected a Ray cluster at {address} (--address), found no answer of Ray within "
            f"{ANSWER_SECONDS:.0f} s: {hint}"
        ) from error
    if found.returncode:
        lines = found.stderr.strip().splitlines() or [f"exit status {found.returncode}"]
        raise UsageError(
            f"expected a Ray cluster at {address} (--address), cannot connect ({lines[-1]}): {hint}"
        )


@contextmanager
def _usage_errors(what: str) -> Iterator[None]:
    """Report what Ray raises while it starts in one line."""
    try:
        yield
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        raise UsageError(f"{what}: {first_line(error) or type(error).__name__}") from error


@contextmanager
def _short_folder() -> Iterator[Path]:
    """Make a folder for Ray's logs, sockets and spilled objects; remove it at the end."""
    parent = tempfile.gettempdir()
    is_long = len(parent) > LONGEST_FOLDER and Path("/tmp").is_dir()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp" if is_long else parent))
    try:
        yield folder
    finally:
        end = time.monotonic() + REMOVE_SECONDS
        shutil.rmtree(folder, ignore_errors=True)
        while folder.exists() and time.monotonic() < end:
            time.sleep(0.1)
            shutil.rmtree(folder, ignore_errors=True)


def _signal_handlers() -> Mapping[int, object]:
    """Return this program's reactions to signals, which Ray replaces."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    return {number: signal.getsignal(number) for number in numbers}


def _restore(handlers: Mapping[int, object]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
