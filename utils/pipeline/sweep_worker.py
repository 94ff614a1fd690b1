"""The part of a sweep that runs on the nodes: one category, as a task of Ray."""

import functools
import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import ray
import threadpoolctl
import torch

from datasets.base import Category, DatasetError
from patchcore import PatchCore, PatchCoreError
from utils.errors import UsageError, describe_out_of_memory, is_out_of_memory
from utils.logs import PACKAGES
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.evaluate_one import Evaluated, evaluate_one
from utils.pipeline.models import choose_device, make_models
from utils.ray_cluster import enter


@dataclass(frozen=True)
class TaskContext:
    """What all tasks of a run have in common.

    Attributes:
        options: Options of the run, with the device of the tasks.
        digests: Digest of the weights of each model.
        folder: Current folder of the driver.
        level: Lowest level of log lines that are shown.
    """

    options: EvaluateOptions
    digests: Mapping[str, str]
    folder: str
    level: int


@dataclass(frozen=True)
class TaskOutcome:
    """Outcome of a task.

    Attributes:
        evaluated: The results; None if it failed.
        error: The error that the user can fix; empty if there was none.
        lines: Logger, level and text of each log line.
    """

    evaluated: Evaluated | None
    error: str
    lines: tuple[tuple[str, int, str], ...]


def run_task(
    context: TaskContext, category: Category, options: EvaluateOptions, cpus: int
) -> TaskOutcome:
    """Evaluate a category; errors that a user can fix are returned, and not tried again.

    Args:
        context: What all tasks have in common.
        category: Samples of the category.
        options: Options of the task.
        cpus: Number of threads.
    """
    enter(context.folder)
    # Tensors travel in the host's memory, whatever device the driver has.
    ray.util.register_serializer(torch.Tensor, serializer=_to_host, deserializer=_from_host)
    evaluated, error, lines = None, "", []
    try:
        with _threads(cpus):
            models = _load_models(context.options)
            _check_weights(models, context.digests)
            # What loading logs, the driver has logged before.
            with _log_lines(lines, context.level):
                evaluated = evaluate_one(models, category, options)
    except (DatasetError, PatchCoreError, UsageError) as found:
        error = str(found)
    except (MemoryError, RuntimeError) as found:
        if not is_out_of_memory(found):
            raise
        error = describe_out_of_memory(found)
    return TaskOutcome(evaluated, error, tuple(lines))


@functools.lru_cache(maxsize=1)
def _load_models(options: EvaluateOptions) -> dict[str, PatchCore]:
    """Return the models of a run, loaded once for all tasks that a process computes."""
    return make_models(options, choose_device(options.device), [])


def _check_weights(models: Mapping[str, PatchCore], digests: Mapping[str, str]) -> None:
    for name, model in models.items():
        if model.backbone.weights_digest != digests[name]:
            raise UsageError(
                f"expected the same weights of {name} on all nodes, found others on "
                f"{platform.node()} (--weights)"
            )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Limit the threads of all libraries that compute."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    with threadpoolctl.threadpool_limits(count):
        yield


@contextmanager
def _log_lines(lines: list[tuple[str, int, str]], level: int) -> Iterator[None]:
    """Collect what this program logs, for the driver to show."""
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((record.name, record.levelno, record.getMessage()))
    loggers = [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.setLevel(level)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _to_host(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _from_host(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy())  # Ray's arrays cannot be written to
