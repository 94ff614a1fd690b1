"""Patch distances -> anomaly map (B, H, W), anomaly score (B,)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.anomaly_map import AnomalyMap
from patchcore.embedder import Embedder
from patchcore.foreground import foreground_of
from patchcore.ignored import Ignored, IgnoreMask
from patchcore.memory_bank import Bank, make_bank, torch_nearest
from patchcore.metric import Metric
from patchcore.nearby import Places, SearchArea
from patchcore.observer import NO_OBSERVER, Observer
from patchcore.prediction import Prediction
from patchcore.settings import PCA, Settings
from patchcore.torch_state import float32_products


class Scorer:
    """Scores patch embeddings by a memory bank (section 3.3 of the paper).

    Attributes:
        k: Number of nearest coreset patches; their mean distance is the score of a patch.
        image_score: Name of the image score, a key of `IMAGE_SCORES`.
        num_reweight: b, size of the neighbourhood in equation 7.
        metric: The distance of patches.
        grid: (h, w) patches of an image.
        anomaly_map: Patch scores to maps.
        top_counts: Numbers of patches and of pixels that `top_share` and `top_share_map` use.

    Args:
        settings: Settings of the method.
        grid: (h, w) patches of an image.
        device: Device of the computation.
        mask: Pixels to ignore; None to judge all.
        num_banks: Number of memory banks, L.

    Raises:
        PatchCoreError: the mask leaves no patch to judge.
    """

    def __init__(
        self,
        settings: Settings,
        grid: tuple[int, int],
        device: torch.device,
        mask: IgnoreMask | None = None,
        num_banks: int = 1,
    ):
        self.k = settings.k
        self.image_score = settings.image_score
        self.num_reweight = settings.num_reweight
        self.metric = Metric(settings.distance, num_banks)
        self.grid = grid
        self._settings = settings
        self.anomaly_map = AnomalyMap(grid, settings.size_crop, settings.sigma, mask).to(device)
        self.top_counts = self.anomaly_map.top_counts(settings.top_share)

    @classmethod
    def of(cls, embedder: Embedder, settings: Settings, mask: IgnoreMask | None = None) -> "Scorer":
        """Return the scorer of an embedder's patches, with its grid, device and number of banks."""
        return cls(settings, embedder.grid, embedder.device, mask, embedder.num_banks)

    @property
    def ignored(self) -> Ignored | None:
        """The positions that are not judged; None if all are."""
        return self.anomaly_map.ignored

    @property
    def least_patches(self) -> int:
        """Least size of a coreset: k, and 2 for equation 7, which gives 0 without a neighbour."""
        return max(self.k, 2) if IMAGE_SCORES[self.image_score] is reweighted else self.k

    @torch.inference_mode()
    def predict(
        self,
        embeddings: torch.Tensor,
        bank: Bank,
        sizes: Sequence[int],
        observer: Observer = NO_OBSERVER,
        seed: int | None = None,
    ) -> Iterator[Prediction]:
        """Predict a batch of images by each of several coresets, each a prefix of the bank.

        Args:
            embeddings: (B, h, w, D) float32.
            bank: The points of the coreset's embeddings.
            sizes: Coreset sizes, ascending, of all banks together.
            observer: Observes the stages ``search`` and ``score``.
            seed: Seed of the selection, for the observer.

        Yields:
            The prediction by each size, as tensors on the device.

        Raises:
            PatchCoreError: k is larger than the smallest size.
        """
        shape = *embeddings.shape[:3], self.metric.num_banks * self.k
        with observer.stage("search", seed, 0):
            foreground = self._foreground(embeddings)
            points = self.metric.points(embeddings)
            where = self._where(points) if bank.area is not None else None
            search = bank.begin(points.flatten(0, 2), self.k, where)
        for part, size in enumerate(sizes):
            with observer.stage("search", seed, part):
                euclidean, nearest = (found.view(shape) for found in search.extend_to(size))
            with observer.stage("score", seed, part):
                distance = self.metric.distances(euclidean)
                if foreground is not None:
                    distance = distance * foreground[..., None]
                prediction = self._score(points, distance, nearest, bank, size)
            yield prediction

    @property
    def retrieves_images(self) -> bool:
        """Whether images are compared by `image_features`."""
        return self._settings.retrieve_images > 0

    def image_features(
        self, points: torch.Tensor, judged: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the features by which images are compared.

        Args:
            points: (B, h * w, D), points of the patches.
            judged: (B, h * w) bool, the patches that are not ignored; None for all.

        Returns:
            (B, D), the mean of each image's judged points, as a point.
        """
        if judged is None:
            return self.metric.points(points.mean(1))
        total = points.masked_fill(~judged[..., None], 0).sum(1)
        return self.metric.points(total / judged.sum(1, keepdim=True))

    def area_of(
        self, numbers: np.ndarray, features: torch.Tensor | None, device: torch.device
    ) -> SearchArea | None:
        """Return which coreset patches a patch is compared with; None for all.

        Args:
            numbers: (M,) int64, numbers of the coreset patches in the order of embedding.
            features: (n, D), `image_features` of the embedded training images; None if images are
                not compared.
            device: Device of the search.
        """
        return SearchArea.of(
            self._settings, Places.of_patches(numbers, self.grid, device, features)
        )

    def make_bank(
        self, embeddings: torch.Tensor, numbers: np.ndarray, features: torch.Tensor | None
    ) -> Bank:
        """Return the bank of coreset patches, or banks.

        Args:
            embeddings: (L * M, D) float32, of the patches of the L banks in turn.
            numbers: (L * M,) int64, as for `area_of`.
            features: As for `area_of`.
        """
        num_banks = self.metric.num_banks
        points = self.metric.points(embeddings)
        area = self.area_of(numbers, features, points.device)
        if num_banks == 1:
            return make_bank(points, num_banks, area)
        bank_of_row = torch.arange(len(points), device=points.device) % num_banks
        parts = torch.stack(self.metric.parts(points), dim=1)  # (L * M, L, D / L)
        return make_bank(parts[torch.arange(len(points)), bank_of_row], num_banks, area)

    def _where(self, points: torch.Tensor) -> Places:
        """Return the places of all patches of points (B, h, w, D)."""
        numbers = np.arange(points[..., 0].numel())
        features = None
        if self.retrieves_images:
            judged = self._judged_patches()
            if judged is not None:
                judged = judged.flatten().expand(len(points), -1)
            features = self.image_features(points.flatten(1, 2), judged)
        return Places.of_patches(numbers, self.grid, points.device, features)

    def _foreground(self, embeddings: torch.Tensor) -> torch.Tensor | None:
        """Return (B, h, w) bool, the patches of the object; None for all."""
        if self._settings.foreground != PCA:
            return None
        threshold = self._settings.foreground_threshold
        return foreground_of(embeddings, threshold, self._judged_patches())

    def _judged_patches(self) -> torch.Tensor | None:
        """Return (h, w) bool, the patches that are not ignored; None for all."""
        return None if self.ignored is None else ~self.anomaly_map.ignored_patches

    @float32_products()
    def _score(
        self,
        points: torch.Tensor,
        distance: torch.Tensor,
        nearest: torch.Tensor,
        bank: Bank,
        size: int,
    ) -> Prediction:
        patches = patch_scores(distance)  # (B, h, w)
        maps = self.anomaly_map(patches)  # (B, H, W)
        # No other score reads the coreset, and the rows of several banks would be copied.
        is_reweighted = IMAGE_SCORES[self.image_score] is reweighted
        coreset = bank.embeddings[:size] if is_reweighted else None
        scored = ScoredPatches(
            self.anomaly_map.judged_scores(patches),
            maps,
            points,
            nearest[..., 0],
            coreset,
            neighbours=lambda rows: torch_nearest(
                coreset[rows], coreset, min(self.num_reweight, size)
            ),
            metric=self.metric,
            top_counts=self.top_counts,
        )
        return Prediction(IMAGE_SCORES[self.image_score](scored), maps, distance, nearest)


def patch_scores(distances: torch.Tensor) -> torch.Tensor:
    """Score each patch: its mean distance to its k nearest coreset patches.

    With several banks, this is the mean of their patch scores. The map is linear in the patch
    scores, so it is the mean of the banks' maps (SuperADD, Roming et al. 2026; RAD).

    Args:
        distances: (..., L * k).

    Returns:
        (...), in the unit of the distances.
    """
    return distances.mean(-1)


@dataclass(frozen=True)
class ScoredPatches:
    """Input of the image scores in `IMAGE_SCORES`.

    Attributes:
        scores: (B, h, w) patch scores, -inf for ignored patches.
        maps: (B, H, W) anomaly maps, 0 at ignored pixels.
        points: (B, h, w, D), points of the patches' embeddings.
        nearest: (B, h, w) int64, the nearest coreset patch of each patch.
        coreset: (M, D), points of the coreset; None for a score other than `reweighted`.
        neighbours: Maps coreset patches (B,) to the nearest coreset patches of each, (B, b) int64,
            including the patch itself.
        metric: The distance of patches.
        top_counts: Numbers of patches and of pixels that `top_share` and `top_share_map` use.
    """

    scores: torch.Tensor
    maps: torch.Tensor
    points: torch.Tensor
    nearest: torch.Tensor
    coreset: torch.Tensor | None
    neighbours: Callable[[torch.Tensor], torch.Tensor]
    metric: Metric
    top_counts: tuple[int, int]


def max_patch(patches: ScoredPatches) -> torch.Tensor:
    """Return (B,) the largest patch score of each image (section 3.3 of the paper, equation 6)."""
    return patches.scores.flatten(1).amax(1)


def max_map(patches: ScoredPatches) -> torch.Tensor:
    """Return (B,) the largest value of each smoothed anomaly map."""
    return patches.maps.flatten(1).amax(1)


def reweighted(patches: ScoredPatches) -> torch.Tensor:
    """Return (B,) the largest patch score of each image, weighted by how rare its neighbour is.

    Section 3.3 of the paper, equation 7, with its symbols: s* is the largest patch score, m_test
    that patch, m* its nearest coreset patch, and N_b(m*) the b coreset patches nearest to m*
    (itself among them); s = (1 - exp|m_test - m*| / sum over m in N_b(m*) of exp|m_test - m|) s*.
    """
    s_star, position = patches.scores.flatten(1).max(1)  # (B,)
    # Not len(): exporters keep the batch size free in a shape only.
    images = torch.arange(s_star.shape[0], device=s_star.device)
    m_test = patches.points.flatten(1, 2)[images, position]  # (B, D)
    m_star = patches.nearest.flatten(1)[images, position]  # (B,)
    neighbourhood = patches.coreset[patches.neighbours(m_star)]  # (B, b, D)
    to_distances = patches.metric.distances
    distances = to_distances((m_test[:, None] - neighbourhood).norm(dim=2))  # (B, b)
    d_star = to_distances((m_test - patches.coreset[m_star]).norm(dim=1))  # (B,)
    # exp of a distance overflows, so the quotient is the exponential of a difference.
    weight = 1 - torch.exp(d_star - distances.logsumexp(1))
    return weight * s_star


def top_share(patches: ScoredPatches) -> torch.Tensor:
    """Return (B,) the mean of the largest patch scores of each image.

    AnomalyDINO (Damm et al. 2024, section 3.2): the tail value at risk of the patch distances.
    """
    return _mean_of_largest(patches.scores.flatten(1), patches.top_counts[0])


def top_share_map(patches: ScoredPatches) -> torch.Tensor:
    """Return (B,) the mean of the largest values of each smoothed anomaly map, as in RAD."""
    return _mean_of_largest(patches.maps.flatten(1), patches.top_counts[1])


def _mean_of_largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return (B,) the mean of the ``count`` largest of values (B, n).

    There are at least as many judged ones, and none of these is below an ignored one.
    """
    return values.topk(count, dim=1).values.mean(1)


# The choices of the setting image_score.
IMAGE_SCORES = {
    "max_patch": max_patch,
    "max_map": max_map,
    "reweighted": reweighted,
    "top_share": top_share,
    "top_share_map": top_share_map,
}
