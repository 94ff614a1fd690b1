"""The nodes of a Ray cluster: what they have, and whether they can compute what is asked for."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.base import Category
from datasets.transport import file_digest
from patchcore.memory_plan import GIGABYTE
from patchcore.settings import DEFAULT, RANDOM
from patchcore.version import RESULTS_VERSION, VERSION
from utils.errors import UsageError
from utils.machine import describe_cpu, package_versions
from utils.options.fit import FitOptions
from utils.pipeline.finished import files_of
from utils.ray_cluster import enter

# Seconds in which a node has to say what it has: a worker must start there, and read the names of
# all files.
INSPECTION_SECONDS = 300.0
# Packages that do not touch a number.
HARMLESS = frozenset({"matplotlib", "scikit-learn"})


@dataclass(frozen=True)
class Expected:
    """What each node must have.

    Attributes:
        versions: Versions of the program, of Python and of packages.
        folder: Current folder of the driver, which relative paths start from.
        files: Each file of the data, with its size in bytes.
        weights: Each weights file, with its digest.
        uses_gpu: Whether to look for a GPU.
    """

    versions: Mapping[str, str]
    folder: str
    files: Sequence[tuple[str, int]]
    weights: Mapping[str, str]
    uses_gpu: bool

    @classmethod
    def of(
        cls, options: FitOptions, categories: Sequence[Category], *, uses_gpu: bool
    ) -> "Expected":
        """Return what this process has."""
        files = dict.fromkeys(path for category in categories for path in files_of(category))
        weights = [path for path in options.weights if path not in (DEFAULT, RANDOM)]
        return cls(
            own_versions(),
            str(Path.cwd()),
            [(str(path), path.stat().st_size) for path in files],
            {path: file_digest(Path(path)) for path in weights},
            uses_gpu,
        )


@dataclass(frozen=True)
class Report:
    """What a node has.

    Attributes:
        host: Its name.
        versions: As in `Expected`.
        problem: The first file that is missing or differs, in words; empty if there is none.
        cpu: Name and cores of the processor.
        gpu: Name of the GPU; empty without one.
        gpu_memory: Its memory in gigabytes.
    """

    host: str
    versions: Mapping[str, str]
    problem: str
    cpu: str
    gpu: str = ""
    gpu_memory: float = 0.0


@dataclass(frozen=True)
class Node:
    """A node, with what Ray may use of it.

    Attributes:
        identity: Ray's name of the node.
        address: IP address.
        cpus: Number of CPUs.
        gpus: Number of GPUs.
        memory: Gigabytes for tasks.
    """

    identity: str
    address: str
    cpus: float
    gpus: float
    memory: float


def own_versions() -> dict[str, str]:
    """Return the versions that must be the same on all nodes, as local builds have them."""
    packages = {n: v.partition("+")[0] for n, v in package_versions().items() if n not in HARMLESS}
    return {"patchcore": VERSION, "results": str(RESULTS_VERSION)} | packages


def inspect_node(expected: Expected) -> Report:
    """Look at the node that this function runs on."""
    enter(expected.folder)
    report = Report(platform.node(), own_versions(), _problem(expected), describe_cpu())
    if not expected.uses_gpu:
        return report
    import torch

    if not torch.cuda.is_available():
        return report
    properties = torch.cuda.get_device_properties(0)
    gpu_memory = properties.total_memory / GIGABYTE
    return replace(report, gpu=properties.name, gpu_memory=gpu_memory)


def _problem(expected: Expected) -> str:
    for name, size in expected.files:
        try:
            found = Path(name).stat().st_size
        except OSError as error:
            return f"does not see {_shown(name)} ({error.strerror}; --path_data)"
        if found != size:
            return f"sees another {_shown(name)}, of {found} bytes, not {size} (--path_data)"
    for name, digest in expected.weights.items():
        try:
            if file_digest(Path(name)) != digest:
                return f"sees another weights file {_shown(name)} (--weights)"
        except OSError as error:
            return f"does not see the weights file {_shown(name)} ({error.strerror}; --weights)"
    return ""


def _shown(name: str) -> str:
    return str(Path(name).absolute())


def list_nodes() -> list[Node]:
    """Return the nodes of the cluster that are alive."""
    import ray

    found = []
    for record in ray.nodes():
        if record["Alive"]:
            has = record["Resources"]
            memory = has.get("memory", 0) / GIGABYTE
            cpus, gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
            found.append(Node(record["NodeID"], record["NodeManagerAddress"], cpus, gpus, memory))
    return found


def inspect_nodes(nodes: Sequence[Node], expected: Expected) -> list[Report]:
    """Let each node look at what it has.

    Raises:
        UsageError: a node does not answer, lacks a file, or has other versions.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    inspect = ray.remote(num_cpus=0, max_retries=0)(inspect_node)
    shared = ray.put(expected)
    tasks = []
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node.identity, soft=False)
        # The smallest share makes a GPU visible.
        gpus = 0.001 if expected.uses_gpu and node.gpus else 0
        inspection = inspect.options(scheduling_strategy=strategy, num_gpus=gpus)
        tasks.append(inspection.remote(shared))
    reports = []
    for node, task in zip(nodes, tasks, strict=True):
        try:
            report = ray.get(task, timeout=INSPECTION_SECONDS)
        except (ray.exceptions.RayError, TimeoutError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(
                f"expected node {node.address} of the Ray cluster to run this program, it cannot "
                f"({type(error).__name__}: {reason[-1]}): end Ray there, or install the same "
                "requirements as here"
            ) from error
        check_report(node, report, expected)
        reports.append(report)
    return reports


def check_report(node: Node, report: Report, expected: Expected) -> None:
    """Raise UsageError if a node lacks a file or has other versions."""
    where = f"node {node.address} ({report.host})"
    for name in dict.fromkeys((*expected.versions, *report.versions)):
        own, found = (v.get(name, "none") for v in (expected.versions, report.versions))
        if own != found:
            raise UsageError(
                f"expected the same versions on all nodes of the Ray cluster, found {name} {found} "
                f"on {where} and {own} here: install the same requirements"
            )
    if expected.uses_gpu and node.gpus and not report.gpu:
        raise UsageError(
            f"expected torch to find the GPU of {where}, found none: install torch for this GPU, "
            "or give --device cpu"
        )
    if report.problem:
        raise UsageError(
            f"expected the same files on all nodes of the Ray cluster, but {where} {report.problem}"
        )
