"""The actors of Ray without Ray: objects of this process, which can get lost."""

import pickle
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace

import pytest


class RayActorError(Exception):
    """An actor is lost."""


class RayTaskError(Exception):
    """A method of an actor raised an error."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class Actor:
    """An object that is called as an actor of Ray: what goes in and out is pickled."""

    def __init__(self, ray: "LocalRay", kind: type, arguments: tuple):
        self._ray, self._object = ray, kind(*_sent(arguments))
        self.is_lost = False

    def __getattr__(self, method: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *arguments: self._call(method, arguments))

    def _call(self, method: str, arguments: tuple) -> Callable[[], object]:
        """Call a method at once; return what gives its result or raises its error."""
        if method == "__ray_ready__":
            return lambda: None
        if len(self._ray.calls) in self._ray.losses:
            self.is_lost = True
        self._ray.calls.append(method)
        if self.is_lost:
            return _raising(RayActorError("killed\nby the test"))
        try:
            result = getattr(self._object, method)(*_sent(arguments))
        except Exception as error:
            return _raising(RayTaskError(_sent(error)))
        return lambda: _sent(result)


class LocalRay:
    """Ray with one node of two CPUs and 8 GB.

    Args:
        losses: Numbers of calls, among those of all actors, that lose their actor.

    Attributes:
        calls: The methods that were called, in order.
        actors: All actors that were started.
        resources: What was reserved for each actor.
    """

    exceptions = SimpleNamespace(RayActorError=RayActorError, RayTaskError=RayTaskError)

    def __init__(self, losses: Collection[int] = ()):
        self.losses = losses
        self.calls: list[str] = []
        self.actors: list[Actor] = []

    def remote(self, **resources: float) -> Callable[[type], SimpleNamespace]:
        self.resources = resources
        return lambda kind: SimpleNamespace(remote=lambda *own: self._start(kind, own))

    def _start(self, kind: type, arguments: tuple) -> Actor:
        self.actors.append(Actor(self, kind, arguments))
        return self.actors[-1]

    def put(self, value: object) -> object:
        return value

    def get(self, calls: Sequence[Callable[[], object]]) -> list:
        return [call() for call in calls]

    def wait(self, calls: list, timeout: float) -> tuple[list, list]:
        return calls, []

    def kill(self, actor: Actor) -> None:
        actor.is_lost = True

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict]:
        return [{"Alive": True, "Resources": {"CPU": 2, "memory": 8e9}}]


class ActorPool:
    """As `ray.util.ActorPool`: results in the order of the calls."""

    def __init__(self, actors: Sequence[Actor]):
        self._idle, self._calls = list(actors), []

    def has_free(self) -> bool:
        return bool(self._idle)

    def submit(self, call: Callable, value: object) -> None:
        actor = self._idle.pop()
        self._calls.append((actor, call(actor, value)))

    def has_next(self) -> bool:
        return bool(self._calls)

    def get_next(self) -> object:
        actor, call = self._calls.pop(0)
        self._idle.append(actor)
        return call()


def use(patch: pytest.MonkeyPatch, ray: LocalRay) -> None:
    """Let the package find this Ray in place of an installed one."""
    for module in ("distributed", "ray_workers"):
        patch.setattr(f"patchcore.{module}.import_ray", lambda: ray)


def _sent(value: object) -> object:
    return pickle.loads(pickle.dumps(value))


def _raising(error: Exception) -> Callable[[], object]:
    def give() -> object:
        raise error

    return give
