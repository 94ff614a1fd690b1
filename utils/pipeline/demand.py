"""What a category's task needs of a node: CPUs, a share of a GPU, and memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datasets.base import Category
from patchcore import PatchCore
from patchcore.engine import SHARE_OF_FREE_MEMORY
from patchcore.errors import PatchCoreError
from patchcore.memory_needs import memory_needs
from patchcore.memory_plan import BYTES_PER_FLOAT, GIGABYTE, plan_memory
from patchcore.training_patches import TrainingPatches
from utils.errors import UsageError
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.evaluate_category import fit_request
from utils.pipeline.nodes import Node

# Gigabytes of a process with libraries, a backbone and the activations of a batch, without the fit.
PROCESS_MEMORY = 1.5
# Gigabytes of a GPU for the same, with the temporary memory of faiss.
GPU_PROCESS_MEMORY = 4.0
# Bytes of a pixel of a test image with its mask, and of its anomaly map.
IMAGE_BYTES, MAP_BYTES = 4, 4
# Times that a result exists at once: on its way to the driver it is copied.
COPIES = 2
# Ray counts shares of a GPU in steps of 1 / 10000.
SHARES = 100


@dataclass(frozen=True)
class Demand:
    """What a task needs of a node.

    Attributes:
        cpus: Number of CPUs, and of threads.
        gpus: Share of a GPU, in [0, 1].
        memory: Gigabytes of the host's memory.
        budget: Gigabytes for embeddings, selection and coresets, for ``--memory_budget``.
    """

    cpus: int
    gpus: float
    memory: float
    budget: float

    def fits(self, node: Node) -> bool:
        """Return whether a node has this, if it does nothing else."""
        return self.cpus <= node.cpus and self.gpus <= node.gpus and self.memory <= node.memory


def demands_of(
    models: Mapping[str, PatchCore],
    tasks: Sequence[tuple[Category, EvaluateOptions]],
    nodes: Sequence[Node],
    gpu_memory: float,
) -> list[Demand]:
    """Return what each task needs.

    Args:
        models: The models by name.
        tasks: The categories, with the options to compute.
        nodes: The nodes that may compute them.
        gpu_memory: Gigabytes of the smallest GPU; 0 to compute on CPUs.

    Raises:
        UsageError: no node has as much.
    """
    # A head node is often started without CPUs, and computes nothing then.
    nodes = [node for node in nodes if node.cpus >= 1] or nodes
    shares = [_memory(models, *task, nodes, gpu_memory) for task in tasks]
    cpus = tasks[0][1].task_cpus or _cpus_per_task([gpus for gpus, _, _ in shares], nodes)
    demands = [Demand(cpus, *share) for share in shares]
    for (category, _), demand in zip(tasks, demands, strict=True):
        check_demand(category.name, demand, nodes)
    return demands


def check_demand(name: str, demand: Demand, nodes: Sequence[Node]) -> None:
    """Raise UsageError if no node has what a category needs."""
    if any(demand.fits(node) for node in nodes):
        return
    share = f", {demand.gpus:g} GPU" if demand.gpus else ""
    largest = ", ".join(
        f"{node.address} with {node.cpus:g} CPUs, {node.gpus:g} GPUs and {node.memory:.2g} GB"
        for node in nodes
    )
    raise UsageError(
        f"expected a node of the Ray cluster with {demand.cpus} CPUs{share} and "
        f"{demand.memory:.2g} GB for {name}, found {largest or 'none'} (--task_cpus, "
        "--percentage_coreset, --seed, --memory_budget; --shards divides a category)"
    )


def _memory(
    models: Mapping[str, PatchCore],
    category: Category,
    options: EvaluateOptions,
    nodes: Sequence[Node],
    gpu_memory: float,
) -> tuple[float, float, float]:
    """Return the share of a GPU, the host's memory and the budget of the fit, in gigabytes."""
    kept = COPIES * _result_bytes(models, category, options) / GIGABYTE
    largest = gpu_memory or max(node.memory for node in nodes) - PROCESS_MEMORY - kept
    budget = options.memory_budget or SHARE_OF_FREE_MEMORY * max(largest, 0.0)
    seeds = tuple(dict.fromkeys(options.seed))
    counts = [min(shots or math.inf, len(category.train)) for shots in options.shot_counts]
    try:
        needed = max(
            _fit_memory(model, options, seeds, int(max(counts)), budget)
            for model in models.values()
        )
    except PatchCoreError as error:
        raise UsageError(f"{category.name}, on the largest node of the Ray cluster: {error}") from (
            error
        )
    task_budget = options.memory_budget or needed
    if not gpu_memory:
        return 0.0, PROCESS_MEMORY + kept + needed, task_budget
    share = min((needed + GPU_PROCESS_MEMORY) / gpu_memory, 1.0)
    share = math.ceil(share * SHARES) / SHARES
    return share, PROCESS_MEMORY + kept, task_budget


def _fit_memory(
    model: PatchCore,
    options: EvaluateOptions,
    seeds: tuple[int, ...],
    num_images: int,
    budget: float,
) -> float:
    """Return the gigabytes of a fit; with a context, of its second one with the first coresets."""
    request = fit_request(model.with_percentages(options.percentage_coreset), options, seeds)
    parts = [model] if model.context is None else [model, model.context]
    request = replace(request, normal=request.normal or len(parts) > 1)
    needed, kept = 0.0, 0.0
    for part in parts:
        needs = memory_needs(
            TrainingPatches.of(part.embedder, part.scorer, num_images, options.batch_size, request)
        )
        needed = max(needed, kept + plan_memory(needs, budget).needed)
        rows = sum(needs.coreset_sizes) * needs.embed_dim / needs.num_banks
        kept += rows * BYTES_PER_FLOAT / GIGABYTE
    return needed


def _result_bytes(
    models: Mapping[str, PatchCore], category: Category, options: EvaluateOptions
) -> int:
    """Return the bytes of a category's predictions, images and masks."""
    height, width = options.settings().size_crop
    num_models = len(models) + (len(models) > 1)
    seeds, shots = len(set(options.seed)), len(options.shot_counts)
    maps = num_models * seeds * shots * len(options.percentage_coreset)
    return len(category.test) * height * width * (IMAGE_BYTES + MAP_BYTES * maps)


def _cpus_per_task(shares: Sequence[float], nodes: Sequence[Node]) -> int:
    """Return the CPUs of each task if all nodes are used, at least 1."""
    cpus = sum(node.cpus for node in nodes)
    at_once = len(shares)
    if max(shares):
        at_once = min(at_once, int(sum(node.gpus for node in nodes) / max(shares)))
    smallest = min(node.cpus for node in nodes)
    return int(max(1, min(smallest, cpus // max(at_once, 1))))
