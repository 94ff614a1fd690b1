"""A second coreset, of smaller images, for the scores of whole images.

The receptive field of a layer is fixed in pixels. In large images it shows fine defects, and maps
are sharper; in small ones it shows more of the object, and finds what is wrong only in its
surroundings. So a smaller copy of each image has a bank of its own. Its score of the image counts
half, and anomaly maps are those of the large image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from patchcore.backbone import Backbone
from patchcore.embedder import Embedder
from patchcore.ensemble import NormalScores
from patchcore.errors import PatchCoreError
from patchcore.held_out import HeldOutScores
from patchcore.ignored import IgnoreMask
from patchcore.memory_bank import Bank
from patchcore.observer import NO_OBSERVER, Observer
from patchcore.passes import Notes, TrainingImages
from patchcore.prediction import Prediction
from patchcore.scoring import Scorer
from patchcore.settings import Settings


@dataclass(frozen=True)
class TrainedContext:
    """What was learned of the smaller images.

    Attributes:
        bank: Their coreset.
        sizes: Coreset sizes of the percentages, ascending, of all banks together.
        pairs: For each percentage, the scores that the large images' bank and this one give to
            training patches: each has its own unit of distance.
    """

    bank: Bank
    sizes: tuple[int, ...]
    pairs: tuple[tuple[NormalScores, NormalScores], ...]

    def part(self, number: int) -> "TrainedContext":
        """Return that of one percentage."""
        size = self.sizes[number]
        return TrainedContext(self.bank.first(size), (size,), (self.pairs[number],))

    def join(
        self, number: int, scores: torch.Tensor | np.ndarray, small: torch.Tensor | np.ndarray
    ) -> torch.Tensor | np.ndarray:
        """Return the mean of two scores of each image, in the unit of the large images.

        Args:
            number: Position of the percentage.
            scores: (B,) scores of the large images.
            small: (B,) scores of the small ones.
        """
        own, other = self.pairs[number]
        return (scores + own.mean + (small - other.mean) * (own.std / other.std)) / 2

    def join_held_out(
        self, number: int, own: HeldOutScores | None, small: HeldOutScores | None
    ) -> HeldOutScores | None:
        """Return the joined scores of the same held-out images; None if one of both has none."""
        if own is None or small is None:
            return None
        at, small_at = (np.argsort(scores.images) for scores in (own, small))
        scores = self.join(number, own.image_scores[at], small.image_scores[small_at])
        order = np.argsort(scores, kind="stable")
        return HeldOutScores(scores[order], own.pixel_scores, own.images[at][order])


@dataclass(frozen=True)
class Context:
    """Embeds and scores smaller copies of the images.

    Attributes:
        embedder: Embeds the copies.
        scorer: Scores them.
    """

    embedder: Embedder
    scorer: Scorer

    @classmethod
    def of(cls, backbone: Backbone, settings: Settings, device: torch.device) -> "Context | None":
        """Return the context that settings ask for; None for none.

        Args:
            backbone: The cut network of the large images.
            settings: Settings of the method.
            device: Device of the computation.

        Raises:
            PatchCoreError: the backbone does not take images of this size.
        """
        if not settings.context:
            return None
        small = settings.of_context()
        try:
            embedder = Embedder(backbone, small, device)
        except PatchCoreError as error:
            raise PatchCoreError(f"{error} (context {settings.context:g}; 0 for none)") from error
        return cls(embedder, Scorer.of(embedder, small))

    def with_mask(self, settings: Settings, mask: IgnoreMask | None) -> "Context":
        """Return the context with other ignored pixels.

        Args:
            settings: Settings of the method.
            mask: Pixels of the large images to ignore; None to judge all.

        Raises:
            PatchCoreError: the mask leaves nothing to judge.
        """
        small = settings.of_context()
        if mask is not None:
            mask = mask.resized(small.size_crop)
        return replace(self, scorer=Scorer.of(self.embedder, small, mask))

    def images(self, images: TrainingImages) -> "SmallImages":
        """Return smaller copies of training images."""
        return SmallImages(images, self.embedder.preprocess.size_crop)

    def embed(self, batch: np.ndarray) -> torch.Tensor:
        """Embed cropped images (B, H, W, 3) uint8; return (B, h', w', D)."""
        return self.embedder.embed(shrink(batch, self.embedder.preprocess.size_crop))

    def join(
        self,
        predictions: Iterator[Prediction],
        embeddings: torch.Tensor,
        trained: TrainedContext,
        observer: Observer = NO_OBSERVER,
        seed: int | None = None,
    ) -> Iterator[Prediction]:
        """Yield predictions with joined scores.

        Args:
            predictions: Those of the large images, by each percentage.
            embeddings: `embed` of the same images.
            trained: What was learned of small images.
            observer: Observes the stages, as `Scorer.predict`.
            seed: Seed of the selection, for the observer.
        """
        small = self.scorer.predict(embeddings, trained.bank, trained.sizes, observer, seed)
        for number, (prediction, other) in enumerate(zip(predictions, small, strict=True)):
            yield replace(prediction, score=trained.join(number, prediction.score, other.score))


@dataclass(frozen=True)
class SmallImages:
    """Smaller copies of training images, as `TrainingImages`.

    Attributes:
        large: The images.
        size: (H, W) in pixels of the copies.
    """

    large: TrainingImages
    size: tuple[int, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each image."""
        return self.large.names

    @property
    def batch_size(self) -> int:
        """Number of images in each batch but the last."""
        return self.large.batch_size

    @property
    def notes(self) -> Notes | None:
        """What was noticed while the images were read."""
        return self.large.notes

    def __len__(self) -> int:
        return len(self.large)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the copies in batches."""
        for batch in self.large.batches():
            yield shrink(batch, self.size)

    def part(self, start: int, stop: int) -> "SmallImages":
        """Return the images from ``start`` to ``stop``."""
        return SmallImages(self.large.part(start, stop), self.size)


def shrink(batch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return smaller copies of cropped images: (B, H, W, 3) uint8 to (B, *size, 3) uint8."""
    height, width = size
    return np.stack([cv2.resize(i, (width, height), interpolation=cv2.INTER_AREA) for i in batch])
