"""The tasks of Ray without Ray: computed at once in this process; `ray_actors` has its actors."""

import importlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest


class RayError(Exception):
    """Error of a cluster."""


class RayTaskError(RayError):
    """Error of the program in a task."""


class Ray(ModuleType):
    """Stands for the package.

    Attributes:
        tasks: The options of each task.
        run: Returns what a task returns, or raises its error.
        records: What `nodes` returns.
    """

    def __init__(self):
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self.util = SimpleNamespace(register_serializer=lambda *_, **__: None)
        self.tasks: list[dict[str, object]] = []
        self.run: Callable = lambda function, *arguments: function(*arguments)
        self.records = [
            {
                "Alive": True,
                "NodeID": "a",
                "NodeManagerAddress": "10.0.0.7",
                "Resources": {"CPU": 4.0, "memory": 16e9},
            }
        ]
        self.is_running = False

    def is_initialized(self) -> bool:
        return self.is_running

    def init(self, **_: object) -> None:
        self.is_running = True

    def shutdown(self) -> None:
        self.is_running = False

    def nodes(self) -> list[dict[str, object]]:
        return self.records

    @staticmethod
    def put(value: object) -> object:
        return value

    def remote(self, **common: object) -> Callable:
        return lambda function: SimpleNamespace(
            options=lambda **own: SimpleNamespace(
                remote=lambda *arguments: self._start(function, common | own, arguments)
            )
        )

    @staticmethod
    def get(task: SimpleNamespace, timeout: float) -> object:
        return task.future().result(timeout)

    def _start(self, function, options: dict[str, object], arguments: tuple) -> SimpleNamespace:
        self.tasks.append(options)
        future: Future = Future()
        try:
            future.set_result(self.run(function, *arguments))
        except Exception as error:
            future.set_exception(error)
        return SimpleNamespace(future=lambda: future)


@pytest.fixture
def ray(monkeypatch) -> Iterator[Ray]:
    """Let the program find this Ray in place of an installed one."""
    fake, worker = Ray(), "utils.pipeline.sweep_worker"
    strategies = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: (node, soft)
    for name, module in (("ray", fake), ("ray.util", fake.util), (strategies.__name__, strategies)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, worker, raising=False)
    importlib.import_module(worker)  # imports Ray
    yield fake
    del sys.modules[worker]
