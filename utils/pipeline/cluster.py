"""The Ray cluster of a run: connected, and checked before anything is computed."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from datasets.base import Category
from patchcore.engine import Engine
from utils.errors import UsageError
from utils.logs import PACKAGES
from utils.options.engine import RAY
from utils.options.fit import FitOptions
from utils.pipeline.nodes import Expected, Node, Report, inspect_nodes, list_nodes
from utils.ray_cluster import ROOT, connected

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """Nodes that can compute a run.

    Attributes:
        nodes: All nodes.
        reports: What each of them has.
        expected: What each of them was asked for.
    """

    nodes: Sequence[Node]
    reports: Sequence[Report]
    expected: Expected

    def describe(self) -> dict[str, object]:
        """Return what computes, for ``run.json``."""
        gpus = dict.fromkeys(report.gpu for report in self.reports if report.gpu)
        return {
            "device": ", ".join(gpus if self.expected.uses_gpu else ("CPU",)),
            "cpu": "; ".join(dict.fromkeys(report.cpu for report in self.reports)),
        } | self.describe_nodes()

    def describe_nodes(self) -> dict[str, object]:
        """Return the nodes, for ``run.json``."""
        return {
            "nodes": [{"host": r.host, "cpu": r.cpu, "gpu": r.gpu or None} for r in self.reports],
        }


@contextmanager
def checked_cluster(
    options: FitOptions, categories: Sequence[Category], device: str
) -> Iterator[Cluster]:
    """Connect to a cluster within a block; each node has the program and the files.

    Args:
        options: Options of the run.
        categories: The samples.
        device: ``auto`` for GPUs if there are any; ``cpu`` or ``cuda``.

    Raises:
        UsageError: the cluster or a node cannot be used.
    """
    with connected(options.address, tuple(ROOT / name for name in PACKAGES)):
        nodes = list_nodes()
        expected = Expected.of(options, categories, uses_gpu=uses_gpu(device, nodes))
        yield Cluster(nodes, inspect_nodes(nodes, expected), expected)


def uses_gpu(device: str, nodes: Sequence[Node]) -> bool:
    """Return whether tasks compute on GPUs, by the value of ``--device``.

    Raises:
        UsageError: no node has one.
    """
    has_gpu = any(node.gpus for node in nodes)
    if device == "cuda" and not has_gpu:
        raise UsageError(
            f"expected a GPU on a node of the Ray cluster, found none on {len(nodes)} nodes "
            "(--device): --device cpu computes on CPUs"
        )
    return has_gpu and device != "cpu"


@contextmanager
def fit_engine(
    options: FitOptions,
    categories: Sequence[Category],
    device: str,
    record: dict[str, object] | None = None,
) -> Iterator[Engine | None]:
    """Provide the engine of the fits of a run, within a block.

    Args:
        options: Options of the run.
        categories: The samples.
        device: Type of this process's device, ``cpu`` or ``cuda``; workers have the same.
        record: Gets the nodes, for ``run.json``; None without this file.

    Yields:
        Workers of Ray that divide the images of each category; None for this process alone.

    Raises:
        PatchCoreError, UsageError: the cluster or a node cannot be used.
    """
    if options.engine != RAY or not categories:
        yield None
        return
    from patchcore.distributed import RayEngine

    with checked_cluster(options, categories, device) as cluster:
        if record is not None:
            record |= cluster.describe_nodes()
        log.info("Ray: nodes: %d; workers divide each category (--shards)", len(cluster.nodes))
        engine = RayEngine(options.shards, cpus=options.task_cpus)
        engine.check(torch.device(device))
        yield engine
