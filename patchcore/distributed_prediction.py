"""Predictions over several processes or machines, by Ray: each worker holds the trained model."""

from collections.abc import Iterable

import numpy as np
import torch

from patchcore.errors import PatchCoreError, first_line
from patchcore.model import PatchCore
from patchcore.prediction import Prediction, join_on_host
from patchcore.ray_workers import MAX_LOSSES, connected_ray


class Predictor:
    """A worker that predicts batches.

    Args:
        model: The trained model.
        num_threads: Number of torch's threads; another number can change the last bits.
    """

    def __init__(self, model: PatchCore, num_threads: int):
        torch.set_num_threads(num_threads)
        self._model = model

    def predict(self, batch: np.ndarray) -> Prediction:
        """Predict cropped images (B, *size_crop, 3)."""
        return self._model.predict_crops([batch])


def predict_distributed(
    model: PatchCore,
    batches: Iterable[np.ndarray],
    num_workers: int,
    *,
    cpus: float = 1,
    gpus: float = 1,
    num_threads: int = 0,
) -> Prediction:
    """Predict batches of cropped images by workers, with the result of one process.

    Ray restarts a worker that is lost, and repeats its batch.

    Args:
        model: The trained model, which each worker holds.
        batches: Each (B, *size_crop, 3) uint8 RGB. Few are read before they are needed.
        num_workers: Number of workers.
        cpus: CPUs that Ray reserves for a worker.
        gpus: GPUs that Ray reserves for a worker, where the model's device is a GPU.
        num_threads: Threads of a worker; 0 for as many as this process has.

    Raises:
        PatchCoreError: Ray is missing or not connected, a worker is lost again and again, there is
            no image, or as in `PatchCore.predict_crops`.
    """
    ray = connected_ray()
    from ray.util import ActorPool

    predictor = ray.remote(
        num_cpus=cpus,
        num_gpus=gpus if model.device.type == "cuda" else 0,
        max_restarts=MAX_LOSSES,
        max_task_retries=MAX_LOSSES,
    )(Predictor)
    shared, threads = ray.put(model), num_threads or torch.get_num_threads()
    pool = ActorPool([predictor.remote(shared, threads) for _ in range(num_workers)])
    found = []
    try:
        for batch in batches:
            if not pool.has_free():
                found.append(pool.get_next())
            pool.submit(lambda worker, images: worker.predict.remote(images), batch)
        while pool.has_next():
            found.append(pool.get_next())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayActorError as error:
        raise PatchCoreError(
            f"expected workers to keep running, lost one: {first_line(error)}"
        ) from error
    return join_on_host(found)
