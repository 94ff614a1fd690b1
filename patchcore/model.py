"""PatchCore from images to scores: the parts of this package in their order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from patchcore.backbone import Backbone
from patchcore.coreset import greedy_coreset
from patchcore.errors import PatchCoreError
from patchcore.memory_bank import MemoryBank
from patchcore.patch_embedding import PatchEmbedding
from patchcore.preprocess import Preprocess
from patchcore.scoring import AnomalyMap, image_scores, patch_scores
from patchcore.weights import DEFAULT, load_backbone

DEFAULT_BACKBONE = "wide_resnet50_2"
DEFAULT_LAYERS = ("layer2", "layer3")


@dataclass(frozen=True)
class Prediction:
    """What PatchCore says of B images.

    Attributes:
        score: (B,) float32, the anomaly score, >= 0: the distance of the image's most anomalous
            patch to its nearest coreset patch.
        anomaly_map: (B, H, W) float32 in the score's units, of the cropped image.
        distance: (B, h, w, k) float32, each patch's Euclidean distances to its nearest coreset
            patches, ascending.
        nearest: (B, h, w, k) int64, these coreset patches: positions in `PatchCore.coreset`.
    """

    score: np.ndarray
    anomaly_map: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray


class PatchCore:
    """Finds what differs from normal images, knowing only those (Roth et al. 2022).

    `fit` and `predict` take images of any size. Who has many, or wants to measure, calls their
    parts: `crop` (per image, in threads), `embed_all` and `select` for `fit`; `embed`,
    `nearest` and `score` for `predict`.

    Several percentages share one selection and one search: the coreset of 1 % is the beginning of
    that of 10 %.

    Attributes:
        backbone: The cut network.
        preprocess: Resizing, cropping, normalisation.
        grid: (h, w) patches of an image.
        device: Where it computes.
        percentages: The coreset's shares of the training patches, ascending.
        coreset: (M,) int64, which training patches were selected, in order of selection, for the
            largest percentage. None before the selection.
        coreset_sizes: How many of them make up each percentage's coreset.
        memory_bank: The coreset's embeddings. None before the selection.

    Args:
        backbone: A `Backbone`, or what `load_backbone` takes: a torchvision model's name or
            ``module:factory``.
        layers: Names of the layers to read; not with a `Backbone`, which has them.
        weights: ``default``, ``random`` or a file; not with a `Backbone`.
        percentage_coreset: Shares in (0, 1] of the training patches to keep; one or several.
        k: Nearest coreset patches whose mean distance scores a patch.
        size_resize: (height, width) in pixels of the resized image.
        size_crop: (height, width) in pixels of the part kept from its middle.
        patch_size: Side of a patch's neighbourhood, in positions of a layer's grid.
        embed_dim: D, the length of an embedding.
        sigma: Smoothing of the anomaly map, in pixels.
        seed: Of the selection, and of random weights.
        device: A torch device, e.g. ``cpu`` or ``cuda``.
        batch_size: Images at a time, where this class forms the batches.

    Raises:
        PatchCoreError: an argument cannot be used.
    """

    def __init__(
        self,
        backbone: str | Backbone = DEFAULT_BACKBONE,
        layers: Sequence[str] = DEFAULT_LAYERS,
        *,
        weights: str = DEFAULT,
        percentage_coreset: float | Sequence[float] = 0.1,
        k: int = 1,
        size_resize: tuple[int, int] = (256, 256),
        size_crop: tuple[int, int] = (224, 224),
        patch_size: int = 3,
        embed_dim: int = 1024,
        sigma: float = 4.0,
        seed: int = 0,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
    ):
        self.preprocess = Preprocess(size_resize, size_crop)
        self.percentages = check_percentages(percentage_coreset)
        self.k = k
        self.seed = seed
        self.batch_size = batch_size
        self.device = torch.device(device)
        if isinstance(backbone, str):
            backbone = load_backbone(backbone, layers, weights, size=size_crop, seed=seed)
        self.backbone = backbone.to(self.device, memory_format=torch.channels_last)
        embedding = PatchEmbedding(backbone.channels, patch_size, embed_dim=embed_dim)
        self._patch_embedding = embedding.to(self.device)
        # An even patch_size has no middle: its grid is one smaller.
        self.grid = tuple(length - 1 + patch_size % 2 for length in backbone.grids[0])
        self._anomaly_map = AnomalyMap(self.grid, size_crop, sigma).to(self.device)
        self.coreset: np.ndarray | None = None
        self.coreset_sizes: list[int] = []
        self.memory_bank: MemoryBank | None = None

    @property
    def patches_per_image(self) -> int:
        """How many patches an image has: h * w."""
        return self.grid[0] * self.grid[1]

    def fit(self, images: Sequence[np.ndarray]) -> "PatchCore":
        """Learn what is normal.

        Args:
            images: Normal images, each (H, W, 3) uint8 RGB of any size.

        Returns:
            Itself.

        Raises:
            PatchCoreError: no image, or fewer patches than the percentage needs.
        """
        embeddings = self.embed_all(self._batches(images), len(images))
        self.select(embeddings)
        return self

    def predict(self, images: Iterable[np.ndarray]) -> Prediction:
        """Judge images by the coreset of the largest percentage.

        Args:
            images: Each (H, W, 3) uint8 RGB of any size.

        Returns:
            The prediction for all of them.

        Raises:
            PatchCoreError: nothing has been fitted, or there is no image.
        """
        parts = []
        for batch in self._batches(images):
            *_, of_largest = self.nearest(self.embed(batch))
            parts.append(self.score(*of_largest))
        if not parts:
            raise PatchCoreError("expected at least one image to predict, found none")
        return join(parts)

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one image: (H, W, 3) uint8 to (*size_crop, 3) uint8."""
        return self.preprocess.crop_image(image)

    @torch.inference_mode()
    def embed(self, batch: np.ndarray) -> torch.Tensor:
        """Embed a batch's patches.

        Args:
            batch: (B, *size_crop, 3) uint8 RGB, as `crop` gives them.

        Returns:
            (B, h, w, D) float32 on the device.
        """
        images = self.preprocess.normalise(torch.from_numpy(batch).to(self.device))
        return self._patch_embedding(self.backbone(images))

    @torch.inference_mode()
    def embed_all(self, batches: Iterable[np.ndarray], num_images: int) -> torch.Tensor:
        """Embed the patches of all training images.

        Args:
            batches: Each (B, *size_crop, 3) uint8 RGB; num_images in all.
            num_images: So that the memory is taken once.

        Returns:
            (N, D) float32 on the device, N = num_images * h * w.
        """
        if num_images < 1:
            raise PatchCoreError("expected at least one training image, found none")
        shape = num_images, *self.grid, self._patch_embedding.embed_dim
        embeddings = torch.empty(shape, device=self.device)
        done = 0
        for batch in batches:
            embeddings[done : done + len(batch)] = self.embed(batch)
            done += len(batch)
        if done != num_images:
            raise PatchCoreError(f"expected {num_images} training images, found {done}")
        return embeddings.flatten(0, 2)

    def sizes_of_coresets(self, num_patches: int) -> list[int]:
        """Return each percentage's number of patches: int(N * percentage), as in the paper's code.

        Raises:
            PatchCoreError: one has no patch at all, or fewer than k.
        """
        sizes = [int(num_patches * percentage) for percentage in self.percentages]
        if sizes[0] < max(self.k, 1):
            raise PatchCoreError(
                f"expected at least k = {self.k} patches in the coreset, found {sizes[0]}: "
                f"{self.percentages[0]:g} of {num_patches} training patches (percentage_coreset, k)"
            )
        return sizes

    @torch.inference_mode()
    def select(
        self, embeddings: torch.Tensor, progress: Callable[[int], None] | None = None
    ) -> None:
        """Select the coreset and make it the memory bank.

        Args:
            embeddings: (N, D) float32 of all training patches.
            progress: Called with the number of patches selected so far.

        Raises:
            PatchCoreError: a percentage of N is no patch at all, or fewer than k.
        """
        sizes = self.sizes_of_coresets(len(embeddings))
        coreset = greedy_coreset(embeddings, sizes[-1], seed=self.seed, progress=progress)
        self.coreset = coreset.cpu().numpy()
        self.coreset_sizes = sizes
        self.memory_bank = MemoryBank(embeddings[coreset])

    @torch.inference_mode()
    def nearest(self, embeddings: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Find each patch's nearest coreset patches, for each percentage.

        Args:
            embeddings: (B, h, w, D), as `embed` gives them.

        Yields:
            For each percentage, ascending: (B, h, w, k) distances and positions in the coreset.
        """
        if self.memory_bank is None:
            raise PatchCoreError("expected a fitted PatchCore: call fit first")
        shape = *embeddings.shape[:3], self.k
        for distance, index in self.memory_bank.search_prefixes(
            embeddings.flatten(0, 2), self.k, self.coreset_sizes
        ):
            yield distance.view(shape), index.view(shape)

    @torch.inference_mode()
    def score(self, distance: torch.Tensor, nearest: torch.Tensor) -> Prediction:
        """Turn one percentage's distances into scores and maps.

        Args:
            distance: (B, h, w, k), as `nearest` gives them.
            nearest: (B, h, w, k).
        """
        scores = patch_scores(distance)  # (B, h, w)
        return Prediction(
            score=image_scores(scores).cpu().numpy(),
            anomaly_map=self._anomaly_map(scores).cpu().numpy(),
            distance=distance.cpu().numpy(),
            nearest=nearest.cpu().numpy(),
        )

    def _batches(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        remaining = iter(images)
        while batch := [self.crop(image) for image in islice(remaining, self.batch_size)]:
            yield np.stack(batch)


def join(parts: Sequence[Prediction]) -> Prediction:
    """Put the predictions of several batches together, in their order."""
    return Prediction(
        score=np.concatenate([part.score for part in parts]),
        anomaly_map=np.concatenate([part.anomaly_map for part in parts]),
        distance=np.concatenate([part.distance for part in parts]),
        nearest=np.concatenate([part.nearest for part in parts]),
    )


def check_percentages(percentage_coreset: float | Sequence[float]) -> tuple[float, ...]:
    """Return the percentages ascending, each once; raise PatchCoreError outside (0, 1]."""
    given = (
        (percentage_coreset,)
        if isinstance(percentage_coreset, int | float)
        else tuple(percentage_coreset)
    )
    if not given or not all(0 < percentage <= 1 for percentage in given):
        raise PatchCoreError(
            "expected percentages in (0, 1], for example 0.1 for 10 %, found "
            f"{', '.join(map(str, given)) or 'none'} (percentage_coreset)"
        )
    return tuple(sorted(set(given)))
