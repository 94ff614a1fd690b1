"""Ray actors that are called together; one that is lost is replaced and brought to the same state.

Ray is optional (``requirements-ray.txt``). The caller connects to it (``ray.init``).
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

from patchcore.errors import PatchCoreError, first_line
from patchcore.shard_worker import Key, ShardWorker

# A worker that is lost this often is given up: its machine has too little memory, for example.
MAX_LOSSES = 3
# Seconds in which a worker has to start; it imports torch, perhaps at the same time as many others.
START_SECONDS = 300.0

log = logging.getLogger(__name__)


class Call(NamedTuple):
    """A call of a method of every worker.

    Attributes:
        method: Its name.
        arguments: Those for each worker.
        key: The selection that the call belongs to; None if it matters to later ones too.
    """

    method: str
    arguments: Sequence[tuple]
    key: Key | None


class Workers:
    """Ray actors that are called together, and replaced if they are lost.

    Args:
        arguments: The arguments of each `ShardWorker`.
        resources: What Ray reserves for each, as ``ray.remote`` takes it.
        kind: The class of a worker; benchmarks use another one.
    """

    def __init__(
        self,
        arguments: Sequence[tuple],
        resources: dict[str, float],
        kind: type[ShardWorker] = ShardWorker,
    ):
        self._ray = import_ray()
        self._actor_class = self._ray.remote(**resources)(kind)
        self._arguments = arguments
        self.actors = [self._actor_class.remote(*own) for own in arguments]
        for index in range(len(arguments)):
            self._wait_for_start(index)
        self._num_losses = [0] * len(arguments)
        self._log: list[Call] = []
        # Of each worker, the calls that have not been waited for: they may have failed.
        self._open_calls: list[list] = [[] for _ in arguments]

    def __len__(self) -> int:
        return len(self._arguments)

    def call(self, method: str, arguments: Sequence[tuple]) -> list:
        """Call a method of every worker that changes nothing; return the results in order."""
        self._send_to_all(method, arguments)
        return [
            self.result(index, lambda i=index, own=own: self._send_to(i, method, own))
            for index, own in enumerate(arguments)
        ]

    def change(self, method: str, arguments: Sequence[tuple], key: Key | None = None) -> list:
        """Call a method that changes the workers; return the results in order."""
        self.send(method, arguments, key)
        return [self.result(index) for index in range(len(self))]

    def send(self, method: str, arguments: Sequence[tuple], key: Key | None = None) -> None:
        """Call a method that changes the workers, without waiting; `result` raises its errors."""
        self._log.append(Call(method, arguments, key))
        self._send_to_all(method, arguments)

    def replace_first_call(self, arguments: Sequence[tuple]) -> None:
        """Replace the arguments of the first call, for workers that are replaced from now on."""
        self._log[0] = self._log[0]._replace(arguments=arguments)

    def discard(self, key: Key) -> None:
        """Discard what was noted of a selection that is over."""
        self._log = [call for call in self._log if call.key != key]
        for index in range(len(self)):
            self._send_to(index, "close", (key,))

    def put(self, value: object) -> object:
        """Return a reference to a value, with which it is sent to a machine once."""
        return self._ray.put(value)

    def stop(self) -> None:
        """End the workers."""
        for actor in self.actors:
            self._ray.kill(actor)

    def _send_to_all(self, method: str, arguments: Sequence[tuple]) -> None:
        for index, own in enumerate(arguments):
            self._send_to(index, method, own)

    def _send_to(self, index: int, method: str, arguments: tuple) -> None:
        sent = getattr(self.actors[index], method).remote(*arguments)
        self._open_calls[index].append(sent)

    def result(self, index: int, again: Callable[[], None] | None = None) -> object:
        """Wait for a worker; return the result of its last call.

        Args:
            index: The worker.
            again: Sends the last call again, if it was not noted.
        """
        while True:
            try:
                *_, found = self._ray.get(self._open_calls[index])
                self._open_calls[index].clear()
                return found
            except self._ray.exceptions.RayActorError as error:
                self._replace(index, error)
                if again is not None:
                    again()
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None

    def _wait_for_start(self, index: int) -> None:
        """Wait until a node has room for a worker and has started it.

        Raises:
            PatchCoreError: No node has within `START_SECONDS`.
        """
        started = self.actors[index].__ray_ready__.remote()
        # Not `get`, which raises the error of a worker that has died since: its next result does.
        ready, _ = self._ray.wait([started], timeout=START_SECONDS)
        if not ready:
            self.stop()
            raise PatchCoreError(
                f"expected room for {len(self)} workers on the Ray cluster, found none for worker "
                f"{index} within {START_SECONDS:g} s: a node is lost, or other programs use it"
            )

    def _replace(self, index: int, error: Exception) -> None:
        """Start a worker again, and repeat what changed the lost one."""
        self._num_losses[index] += 1
        reason = first_line(error)
        if self._num_losses[index] > MAX_LOSSES:
            raise PatchCoreError(
                f"expected worker {index} to keep running, lost it {MAX_LOSSES + 1} times: "
                f"{reason} (more shards need less memory each)"
            )
        log.warning("worker %d is lost and replaced: %s", index, reason)
        self.actors[index] = self._actor_class.remote(*self._arguments[index])
        self._wait_for_start(index)
        self._open_calls[index].clear()
        for call in self._log:
            self._send_to(index, call.method, call.arguments[index])


def import_ray() -> ModuleType:
    """Return Ray.

    Raises:
        PatchCoreError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise PatchCoreError(
            "expected Ray for several machines: pip install -r requirements-ray.txt"
        ) from error


def connected_ray() -> ModuleType:
    """Return Ray, connected to a cluster.

    Raises:
        PatchCoreError: it is not installed, or not connected.
    """
    ray = import_ray()
    if not ray.is_initialized():
        raise PatchCoreError("expected a connection to a Ray cluster: call ray.init first")
    return ray
