"""Flags of the engine that computes a run."""

import importlib.util
from dataclasses import dataclass

from patchcore.setting_values import Bounds
from utils.errors import UsageError
from utils.options.flags import Flags, flag

LOCAL, RAY = "local", "ray"
# Device types that Ray assigns to a task.
RAY_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class EngineOptions(Flags):
    """Engine that computes a run."""

    engine: str = flag(
        LOCAL,
        "computing",
        "local computes in this process; ray computes on the nodes of a Ray cluster: categories at "
        "the same time, as tasks, or parts of a category (--shards); "
        "pip install -r requirements-ray.txt; see docs/sweeps.md",
        choices=(LOCAL, RAY),
    )
    address: str = flag(
        "",
        "computing",
        "with --engine ray: HOST:PORT of a running Ray cluster, or auto for the cluster that runs "
        "on this machine (default: start Ray on this machine only, for this run)",
        metavar="auto|HOST:PORT",
    )
    shards: int = flag(
        0,
        "computing",
        "with --engine ray: workers that divide the training images of each category, one category "
        "after another, with the coreset of one process; 0: evaluate computes each category as one "
        "task, and train uses the smallest number of workers with enough memory",
        metavar="N",
        bounds=Bounds(0),
    )
    task_cpus: int = flag(
        0,
        "computing",
        "with --engine ray: CPUs of each task or worker, which computes with as many threads; 0 "
        "divides the CPUs of the cluster",
        metavar="N",
        bounds=Bounds(0),
    )

    @property
    def sweeps(self) -> bool:
        """Whether an evaluation computes categories as tasks of Ray."""
        return self.engine == RAY and not self.shards

    def check_engine(self, device: str) -> None:
        """Check the flags of Ray, and that it is installed if it is the engine.

        Args:
            device: Value of ``--device``.

        Raises:
            UsageError: Ray is not installed, or flags do not fit together.
        """
        if self.engine != RAY:
            for name in ("address", "shards", "task_cpus"):
                if getattr(self, name):
                    raise UsageError(f"expected --{name} only with --engine {RAY}")
            return
        if "://" in self.address:
            raise UsageError(
                f"expected auto or HOST:PORT, found {self.address!r} (--address): run this program "
                "on a node of the cluster"
            )
        if device not in RAY_DEVICES:
            raise UsageError(
                f"expected --device {', '.join(RAY_DEVICES)} with --engine {RAY}, which chooses "
                f"the GPU, found {device!r}"
            )
        if importlib.util.find_spec("ray") is None:
            raise UsageError(
                "expected Ray for --engine ray, found none: pip install -r requirements-ray.txt"
            )
