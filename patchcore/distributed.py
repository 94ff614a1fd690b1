"""A fit over several processes or machines, by Ray, with the result of one.

Each worker embeds whole batches of the training images and keeps their projections and distances.
The driver runs the greedy loop (`patchcore.greedy`) over them. What changes a worker is noted; if a
worker is lost, its images are embedded again elsewhere, and what was noted is done again in the
same order, which gives the same distances to the last bit.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.device_memory import free_memory
from patchcore.embedder import Embedder
from patchcore.engine import SHARE_OF_FREE_MEMORY
from patchcore.errors import PatchCoreError
from patchcore.memory_plan import GIGABYTE, MemoryPlan, Needs
from patchcore.observer import Observer
from patchcore.passes import EmbeddingRows, PatchCropper, TrainingImages
from patchcore.ray_workers import Workers, connected_ray, import_ray
from patchcore.shard_worker import Key, versions
from patchcore.shards import Shards
from patchcore.training_patches import TrainingPatches

# Bytes of a worker besides its patches: the packages, the network, and a batch of images.
WORKER_BYTES = 1_000_000_000
# Methods of a shard that change it and return something.
CHANGING = frozenset({"prepare", "begin"})

log = logging.getLogger(__name__)


class RayShards(Shards):
    """Shards that workers hold.

    Args:
        workers: The workers.
        key: Names the selection.
        counts: Number of candidates of each worker.
        device: Device of the driver.
    """

    def __init__(self, workers: Workers, key: Key, counts: Sequence[int], device: torch.device):
        super().__init__(counts)
        self._workers, self._key, self._device = workers, key, device

    def call(self, method: str, arguments: Sequence[tuple]) -> list:
        """Call a method of each shard; return the results in order."""
        calls = self._calls(method, arguments)
        if method in CHANGING:
            found = self._workers.change("call_shard", calls, self._key)
        else:
            found = self._workers.call("call_shard", calls)
        return [v.to(self._device) if isinstance(v, torch.Tensor) else v for v in found]

    def send(self, method: str, arguments: Sequence[tuple]) -> None:
        """Call a method that changes each shard, without waiting for it."""
        self._workers.send("call_shard", self._calls(method, arguments), self._key)

    def subtract(self, origin: torch.Tensor) -> None:
        """Subtract a vector (P,) from all projections; they stay centred for later selections."""
        self._workers.send("subtract", [(self._key, origin.cpu())] * len(self._workers))

    def _calls(self, method: str, arguments: Sequence[tuple]) -> list[tuple]:
        """Return the calls, with each tensor sent to a machine once."""
        tensors = [v for own in arguments for v in own if isinstance(v, torch.Tensor)]
        shared = {id(tensor): tensor for tensor in tensors}
        shared = {name: self._workers.put(tensor.cpu()) for name, tensor in shared.items()}
        return [
            (self._key, method, *(shared.get(id(value), value) for value in own))
            for own in arguments
        ]


class RayPatches:
    """The training patches in the memory of workers, as `Patches`.

    Args:
        workers: The workers, which have not embedded yet.
        embedder: Embeds their images.
        images: The training images.
        observer: Observes the stages.
        stops: By worker, the number of the first patch after its own.
    """

    def __init__(
        self,
        workers: Workers,
        embedder: Embedder,
        images: TrainingImages,
        observer: Observer,
        stops: Sequence[int],
    ):
        self._workers, self._embedder = workers, embedder
        self._firsts, self._stops = [0, *stops[:-1]], stops
        self._open: list[Key] = []
        digests, features, errors = [], [], []
        with observer.stage("embed"):
            workers.send("embed", [(versions(), None)] * len(workers))
            for index in range(len(workers)):
                try:
                    of_images, of_features, notes = workers.result(index)
                except Exception as error:
                    if not hasattr(error, "joined"):  # it names no images
                        raise
                    errors.append(error)
                    continue
                digests.append(of_images)
                features += [] if of_features is None else [of_features]
                if notes is not None:
                    images.notes.merge(notes)
                observer.advance(len(of_images))
        if errors:
            raise errors[0].joined(errors[1:])
        workers.replace_first_call([(versions(), known) for known in digests])
        self.digests = np.concatenate(digests)
        self.features = torch.cat(features).to(self._embedder.device) if features else None

    def shards(self, seed: int, candidates: torch.Tensor | None) -> list[RayShards]:
        """Return the shards of each bank; those returned before are closed."""
        self._close()
        parts: list[torch.Tensor | None] = [None] * len(self._workers)
        counts = [stop - first for first, stop in zip(self._firsts, self._stops, strict=True)]
        if candidates is not None:
            parts = self._divide(candidates.cpu())
            counts = [int(part.sum()) for part in parts]
        self._open = [(seed, bank) for bank in range(self._embedder.num_banks)]
        for key in self._open:
            self._workers.send("open", [(key, part) for part in parts], key)
        return [RayShards(self._workers, key, counts, self._embedder.device) for key in self._open]

    def free_projections(self) -> None:
        """Give back the memory of the projections."""
        self._close()
        self._workers.send("free_projections", [()] * len(self._workers))

    def close(self) -> None:
        """End the workers."""
        self._workers.stop()

    def rows(self, numbers: np.ndarray, cropper: PatchCropper | None) -> EmbeddingRows:
        """Return embeddings, as `Patches.rows`."""
        numbers = np.unique(numbers)
        cropped = np.empty(0, dtype=np.int64) if cropper is None else cropper.indices
        calls, places = [], []
        for first, stop in zip(self._firsts, self._stops, strict=True):
            begin, end = np.searchsorted(numbers, (first, stop))
            places.append(np.flatnonzero((cropped >= first) & (cropped < stop)))
            calls.append((numbers[begin:end] - first, cropped[places[-1]] - first))
        found = self._workers.call("rows", calls)
        for (_, crops), here in zip(found, places, strict=True):
            if len(here):
                cropper.patches[here] = crops
        rows = torch.cat([rows for rows, _ in found]).to(self._embedder.device)
        return EmbeddingRows(rows, numbers)

    def _divide(self, values: torch.Tensor) -> list[torch.Tensor]:
        pairs = zip(self._firsts, self._stops, strict=True)
        return [values[first:stop].clone() for first, stop in pairs]

    def _close(self) -> None:
        for key in self._open:
            self._workers.discard(key)


@dataclass(frozen=True)
class RayEngine:
    """Workers of a Ray cluster, as `patchcore.engine.Engine`.

    Attributes:
        shards: Number of workers; 0 for the smallest number that fits into the memory.
        cpus: CPUs that Ray reserves for a worker; 0 divides those of the cluster evenly.
        gpus: GPUs that Ray reserves for a worker, where the driver's device is a GPU.
        num_threads: Threads of a worker; 0 for as many as its CPUs. With as many as the driver,
            results are those of one process to the last bit.
    """

    shards: int = 0
    cpus: float = 0
    gpus: float = 1
    num_threads: int = 0

    def check(self, device: torch.device) -> list[Mapping[str, float]]:
        """Check that the cluster has the CPUs and GPUs for the workers; return what its nodes have.

        Raises:
            PatchCoreError: It has too few.
        """
        nodes, wanted = _resources(), self._wanted(device)
        if _slots(nodes, wanted) < max(self.shards, 1):
            raise PatchCoreError(
                f"expected a Ray cluster for {max(self.shards, 1)} workers of "
                f"{_describe(wanted)} each, found {'; '.join(map(_describe_node, nodes))} (shards, "
                "device)"
            )
        return nodes

    def _wanted(self, device: torch.device) -> dict[str, float]:
        """Return what Ray reserves for a worker at least, besides memory."""
        return {"CPU": self.cpus or 1} | ({"GPU": self.gpus} if device.type == "cuda" else {})

    def plan(self, needs: Needs, budget: float, device: torch.device) -> MemoryPlan:
        """Choose the number of workers; ``budget`` is the gigabytes for each, 0 for all they have.

        Raises:
            PatchCoreError: Ray is missing or not connected; the cluster has too little memory, or
                too few CPUs or GPUs.
        """
        nodes, wanted = self.check(device), self._wanted(device)
        total = needs.while_selecting()
        most = _slots(nodes, wanted)
        limit = budget * GIGABYTE or math.inf
        if device.type == "cuda":  # the workers' GPUs are taken to be as large as this one
            limit = min(limit, SHARE_OF_FREE_MEMORY * free_memory(device) * GIGABYTE)
        for count in [self.shards] if self.shards else range(1, most + 1):
            size = total / count
            others = wanted | {"memory": size + WORKER_BYTES}
            if size <= limit and _slots(nodes, others) >= count:
                cpus = self.cpus or _even_cpus(nodes, count, others)
                return MemoryPlan(2, total / GIGABYTE, count, cpus)
        count = self.shards or most  # at least 1, by the check
        raise PatchCoreError(
            f"expected a Ray cluster for {count} workers of {total / count / GIGABYTE:.2g} GB and "
            f"{_describe(wanted)} each, found {'; '.join(map(_describe_node, nodes))} (shards, "
            "memory_budget, device)"
        )

    def embed(
        self,
        training: TrainingPatches,
        images: TrainingImages,
        plan: MemoryPlan,
        observer: Observer,
    ) -> RayPatches:
        """Embed the images on workers; digests are always noted, images are never kept."""
        embedder, judged = training.embedder, training.judged
        num_batches = math.ceil(len(images) / images.batch_size)
        count = min(plan.shards, num_batches)
        cpus = plan.cpus
        threads = self.num_threads or max(int(cpus), 1)
        resources = {
            "num_cpus": cpus,
            "num_gpus": self.gpus if embedder.device.type == "cuda" else 0,
            "memory": int(plan.needed * GIGABYTE / plan.shards) + WORKER_BYTES,
        }
        put = import_ray().put
        method = put(embedder), put(training.scorer)
        seeds, arguments, stops = training.request.seeds, [], [0]
        for batches in np.array_split(np.arange(num_batches), count):
            start = int(batches[0]) * images.batch_size
            stop = min((int(batches[-1]) + 1) * images.batch_size, len(images))
            stops.append(embedder.num_patches(stop))
            own = None if judged is None else judged[stops[-2] : stops[-1]].clone()
            arguments.append((*method, images.part(start, stop), own, seeds, threads))
        log.info("workers of Ray that embed and select: %d, CPUs of each: %g", count, cpus)
        workers = Workers(arguments, resources)
        try:
            return RayPatches(workers, embedder, images, observer, stops[1:])
        except BaseException:
            workers.stop()  # the next attempt needs their CPUs
            raise


def _resources() -> list[Mapping[str, float]]:
    """Return what each node of the cluster has."""
    return [node["Resources"] for node in connected_ray().nodes() if node["Alive"]]


def _even_cpus(
    nodes: Sequence[Mapping[str, float]], count: int, others: Mapping[str, float]
) -> int:
    """Return the most CPUs that each worker can have in addition to other resources, at least 1."""
    cpus = 1
    while _slots(nodes, {**others, "CPU": cpus + 1}) >= count:
        cpus += 1
    return cpus


def _slots(nodes: Sequence[Mapping[str, float]], wanted: Mapping[str, float]) -> int:
    """Return the number of workers that fit into a cluster, by what each worker needs."""
    return sum(
        min(int(node.get(name, 0) / amount) for name, amount in wanted.items() if amount)
        for node in nodes
    )


def _describe(wanted: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())


def _describe_node(node: Mapping[str, float]) -> str:
    memory = node.get("memory", 0) / GIGABYTE
    return f"a node with {memory:.2g} GB, {node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU"
