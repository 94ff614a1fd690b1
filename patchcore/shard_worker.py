"""One worker of a fit over several processes or machines: it embeds and holds a part."""

import platform

import numpy as np
import torch

from patchcore.embedder import Embedder
from patchcore.errors import PatchCoreError
from patchcore.observer import NO_OBSERVER
from patchcore.passes import ImageReader, LocalPatches, Notes, PatchCropper, TrainingImages
from patchcore.scoring import Scorer
from patchcore.version import RESULTS_VERSION

Key = tuple[int, int]  # seed, bank


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "results": str(RESULTS_VERSION),
    }


class ShardWorker:
    """Embeds consecutive training images; holds their projections and their distances.

    Its patches are numbered from 0, in the order of embedding. Tensors that it returns are on the
    CPU.

    Args:
        embedder: Embeds the images.
        scorer: Defines the points that are projected.
        images: The worker's images, whole batches.
        judged: (n,) bool, which of its patches are not ignored; None for all.
        seeds: Seeds of the projections.
        num_threads: Number of torch's threads; another number can change the last bits.
    """

    def __init__(
        self,
        embedder: Embedder,
        scorer: Scorer,
        images: TrainingImages,
        judged: torch.Tensor | None,
        seeds: tuple[int, ...],
        num_threads: int,
    ):
        torch.set_num_threads(num_threads)
        self._embedder, self._scorer, self._images = embedder, scorer, images
        self._judged, self._seeds = judged, seeds
        self._patches: LocalPatches | None = None
        self._shards = {}

    def embed(
        self, expected: dict[str, str], known: np.ndarray | None
    ) -> tuple[np.ndarray, torch.Tensor | None, Notes | None]:
        """Embed the images.

        Args:
            expected: `versions` of the driver.
            known: (n, 2) uint64, the digests of the images if a lost worker has embedded them.

        Returns:
            The digests (n, 2) and the features (n, D) of the embedded images, as `Patches` has
            them, and what was noticed while they were read.

        Raises:
            PatchCoreError: this worker has other versions, or an image has changed.
        """
        different = [f"{n} {v}" for n, v in versions().items() if expected.get(n) != v]
        if different:
            wanted = ", ".join(f"{n} {v}" for n, v in expected.items())
            raise PatchCoreError(
                f"expected workers with the driver's versions ({wanted}), found one with "
                f"{', '.join(different)} on {platform.node()}"
            )
        reader = ImageReader(self._embedder, self._images, True, NO_OBSERVER)
        self._patches = LocalPatches(
            reader,
            self._seeds,
            self._scorer,
            self._judged,
            keep_embeddings=False,
            keep_images=False,
        )
        digests, features = self._patches.digests, self._patches.features
        if known is not None and not np.array_equal(known, digests):
            raise PatchCoreError(
                "expected the same training images when those of a lost worker were embedded "
                "again, found a change"
            )
        notes = getattr(self._images, "notes", None)
        return digests, None if features is None else features.cpu(), notes

    def open(self, key: Key, candidates: torch.Tensor | None) -> None:
        """Open a shard for a selection.

        Args:
            key: Names the selection; an earlier one with this name is closed before.
            candidates: (n,) bool, the patches to select from; None for all.
        """
        seed, bank = key
        if candidates is not None:
            candidates = candidates.to(self._embedder.device)
        self._shards[key] = self._patches.shards(seed, candidates)[bank]

    @torch.inference_mode()
    def subtract(self, key: Key, origin: torch.Tensor) -> None:
        """Subtract a vector (P,) from the projections of a selection, also for later ones."""
        seed, bank = key
        self._patches.shards(seed, None)[bank].subtract(origin.to(self._embedder.device))

    def close(self, key: Key) -> None:
        """Discard a selection."""
        self._shards.pop(key, None)

    @torch.inference_mode()
    def call_shard(self, key: Key, method: str, *arguments: object) -> object:
        """Call a method of the shard of a selection, see `Shards.call`."""
        (found,) = self._shards[key].call(method, [_moved(arguments, self._embedder.device)])
        return _moved([found], torch.device("cpu"))[0]

    def free_projections(self) -> None:
        """Give back the memory of the projections."""
        self._shards.clear()
        self._patches.free_projections()

    @torch.inference_mode()
    def rows(self, numbers: np.ndarray, cropped: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Embed the images again.

        Args:
            numbers: (m,) int64, patches, ascending.
            cropped: (j,) int64, patches to crop from the images.

        Returns:
            The embeddings (m, D) and the crops (j, ph, pw, 3).
        """
        cropper = PatchCropper(cropped, self._embedder)
        found = self._patches.rows(numbers, cropper if len(cropped) else None)
        return found.take(numbers).cpu(), cropper.patches


def _moved(values: object, device: torch.device) -> tuple:
    return tuple(v.to(device) if isinstance(v, torch.Tensor) else v for v in values)
