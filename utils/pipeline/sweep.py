"""A sweep: each category is one task of Ray, with all its percentages, shots and seeds.

The driver alone writes results. It draws the figures too, from the arrays that a task returns: its
drawing processes have nothing else to do, and nodes then need no folder that others can write to.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace

from datasets.base import Category
from patchcore import PatchCore
from patchcore.memory_plan import GIGABYTE
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.cluster import Cluster, checked_cluster
from utils.pipeline.demand import Demand, check_demand, demands_of
from utils.pipeline.evaluate_one import Evaluated
from utils.pipeline.nodes import Expected, list_nodes
from utils.pipeline.run import Run
from utils.progress import show_progress
from utils.results import numbered

# Times that a task runs again after its worker or its node was lost.
MAX_RETRIES = 3
# Seconds after which the nodes are counted again, and those in which a lost one may come back.
POLL_SECONDS, WAITING_SECONDS = 5.0, 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A category that could not be evaluated.

    Attributes:
        category: Its name.
        error: What was expected and found.
    """

    category: str
    error: str


def describe_failures(failures: Sequence[Failure], num_categories: int) -> str:
    """Return the error of a run in which categories failed; each was logged before."""
    names = ", ".join(failure.category for failure in failures)
    return (
        f"{len(failures)} of {numbered(num_categories, 'category')} could not be evaluated, the "
        f"results of the others are complete: {names}; first {failures[0].category}: "
        f"{failures[0].error}"
    )


def sweep(
    run: Run,
    models: Mapping[str, PatchCore],
    tasks: Sequence[tuple[Category, EvaluateOptions]],
) -> Iterator[Evaluated | Failure]:
    """Evaluate categories on the nodes of a Ray cluster.

    Args:
        run: The run; the nodes are recorded in its ``run.json``.
        models: The models by name, to know the memory that tasks need.
        tasks: The categories, with the options to compute.

    Yields:
        The results of each category, in the order in which they are finished; a `Failure` for a
        category with an error that the user can fix.

    Raises:
        UsageError: the cluster cannot be used. Nothing is computed then.
    """
    if not tasks:
        return
    categories = [category for category, _ in tasks]
    with checked_cluster(run.options, categories, run.options.device) as cluster:
        on_gpu = cluster.expected.uses_gpu
        usable = [node for node in cluster.nodes if node.gpus or not on_gpu]
        gpu_memory = min((r.gpu_memory for r in cluster.reports if r.gpu), default=0.0)
        demands = demands_of(models, tasks, usable, gpu_memory)
        _record(run, cluster, demands)
        yield from _stream(run.options, models, tasks, demands, cluster.expected)


def _record(run: Run, cluster: Cluster, demands: Sequence[Demand]) -> None:
    """Record and log what computes."""
    cpus = demands[0].cpus
    run.record |= cluster.describe() | {"threads": cpus}
    run.folder.write_run(run.record)
    most = max(demand.gpus for demand in demands)
    share = f", GPU: {most:g}" if cluster.expected.uses_gpu else ""
    log.info(
        "Ray: tasks: %d, nodes: %d; of each task: CPUs: %d (--task_cpus)%s, memory: up to %.2g GB",
        len(demands),
        len(cluster.nodes),
        cpus,
        share,
        max(demand.memory for demand in demands),
    )


def _stream(
    options: EvaluateOptions,
    models: Mapping[str, PatchCore],
    tasks: Sequence[tuple[Category, EvaluateOptions]],
    demands: Sequence[Demand],
    expected: Expected,
) -> Iterator[Evaluated | Failure]:
    """Submit all tasks, and yield their outcomes."""
    import ray

    from utils.pipeline.sweep_worker import TaskContext, run_task

    device = "cuda" if expected.uses_gpu else "cpu"
    digests = {name: model.backbone.weights_digest for name, model in models.items()}
    level = logging.getLogger("utils").getEffectiveLevel()
    shared = ray.put(TaskContext(replace(options, device=device), digests, expected.folder, level))
    remote = ray.remote(max_retries=MAX_RETRIES)(run_task)
    pending = {}
    for (category, own), demand in zip(tasks, demands, strict=True):
        # A future of Python's: signals interrupt waiting for it at once, with their number.
        task = remote.options(
            num_cpus=demand.cpus, num_gpus=demand.gpus, memory=int(demand.memory * GIGABYTE)
        ).remote(
            shared,
            category,
            replace(
                own,
                device=device,
                num_workers=demand.cpus if own.num_workers < 0 else own.num_workers,
                memory_budget=demand.budget,
            ),
            demand.cpus,
        )
        pending[task.future()] = category.name, demand
    waited = 0.0
    with show_progress(len(tasks), "sweep", "category") as bar:
        while pending:
            ready, _ = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
            waited = 0.0 if ready else _check_nodes(pending.values(), waited)
            for task in ready:
                name, _ = pending.pop(task)
                found = _outcome(task, name)
                bar.update()
                if isinstance(found, Failure):
                    log.error("%s: %s", name, found.error)
                yield found


def _outcome(task: Future, name: str) -> Evaluated | Failure:
    """Fetch the outcome of a task, and show what it has logged."""
    import ray

    try:
        outcome = task.result()
    except ray.exceptions.RayTaskError:  # a mistake of the program
        raise
    except ray.exceptions.RayError as error:
        return Failure(
            name,
            f"expected a node that computes it, but its process ended {MAX_RETRIES + 1} times "
            f"({type(error).__name__}), possibly because it ran out of memory (--memory_budget, "
            "--task_cpus)",
        )
    for logger, level, text in outcome.lines:
        logging.getLogger(logger).log(level, "%s", text)
    return Failure(name, outcome.error) if outcome.error else outcome.evaluated


def _check_nodes(pending: Iterable[tuple[str, Demand]], waited: float) -> float:
    """Check that the nodes that are left can compute what is pending.

    Returns:
        The seconds for which they cannot.

    Raises:
        UsageError: these are more than a node may take to come back.
    """
    nodes = list_nodes()
    lost = [one for one in pending if not any(one[1].fits(node) for node in nodes)]
    if not lost:
        return 0.0
    if waited >= WAITING_SECONDS:
        check_demand(*lost[0], nodes)
    return waited + POLL_SECONDS
