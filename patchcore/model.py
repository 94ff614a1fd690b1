"""PatchCore from images to scores: the parts of this package in their order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from patchcore import storage
from patchcore.backbone import Backbone
from patchcore.coreset import greedy_coreset
from patchcore.embedded_origins import OriginsOfBatches
from patchcore.errors import PatchCoreError
from patchcore.explain import cut_patches, locate
from patchcore.held_out import held_out_scores
from patchcore.images import each_image
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.origins import EmbeddingOrder, Origins
from patchcore.patch_embedding import PatchEmbedding
from patchcore.precision import PRECISIONS, float32_products, warn_if_emulated
from patchcore.prediction import Collector, Neighbours, Prediction, Scores
from patchcore.preprocess import Preprocess
from patchcore.scoring import (
    IMAGE_SCORES,
    AnomalyMap,
    max_scores,
    patch_scores,
    reweighted_scores,
)
from patchcore.thresholds import BestThresholds, Thresholds, choose_thresholds
from patchcore.trained import Trained
from patchcore.weights import DEFAULT, load_backbone

DEFAULT_BACKBONE = "wide_resnet50_2"
# Which axis of (B, H, W, 3) each flip turns around.
FLIPS = {"vertical": 1, "horizontal": 2}


class PatchCore:
    """Finds what differs from normal images, knowing only those (Roth et al. 2022).

    `fit` and `predict` take images of any size. Who has many, or wants to measure, calls their
    parts: `crop` (per image, in threads), `augment`, `embed_all` and `select` for `fit`; `embed`,
    `nearest` and `score` for `predict`.

    Several percentages share one selection and one search: the coreset of 1 % is the beginning of
    that of 10 %.

    Attributes:
        backbone: The cut network.
        preprocess: Resizing, cropping, normalisation.
        patch_embedding: The layers' maps to patch embeddings.
        anomaly_map: Patch scores to maps.
        grid: (h, w) patches of an image.
        device: Where it computes.
        percentages: The coreset's shares of the training patches, ascending.
        trained: What `fit` learned, or `load` read; None before.
        settings: The method's arguments, as JSON knows them.

    Args:
        backbone: A `Backbone`, or what `load_backbone` takes: ``formulanet``, a torchvision
            model's name or ``module:factory``.
        layers: Names of the layers to read, none for the backbone's default: layer2 and layer3
            as in the paper, and layer1 to layer3 of formulanet. Not with a `Backbone`, which has
            them.
        weights: ``default``, ``random`` or a file; not with a `Backbone`.
        percentage_coreset: Shares in (0, 1] of the training patches to keep; one or several.
        k: Nearest coreset patches whose mean distance scores a patch.
        image_score: ``max_patch`` (the largest patch score), ``max_map`` (the largest value of the
            smoothed map) or ``reweighted`` (the paper's equation 7).
        num_reweight: The neighbourhood's size in equation 7, b.
        size_resize: (height, width) in pixels of the resized image.
        size_crop: (height, width) in pixels of the part kept from its middle.
        interpolation: How images are resized, ``bilinear`` or ``area``.
        flip: Training images are also learned flipped: ``horizontal``, ``vertical``, both or none.
        patch_size: Side of a patch's neighbourhood, in positions of a layer's grid.
        embed_dim: D, the length of an embedding.
        layer_weights: A factor for each layer's part of the embedding; None for 1 each.
        sigma: Smoothing of the anomaly map, in pixels.
        seed: Of the selection, and of random weights.
        precision: In which the backbone computes: ``float32``, ``tf32`` (float32 whose products a
            GPU rounds to 10 bits), ``bfloat16`` or ``float16``. The others are faster where the
            device has them, and round the maps to 3 digits; everything after the backbone stays
            in float32.
        device: A torch device, e.g. ``cpu`` or ``cuda``.
        batch_size: Images at a time, where this class forms the batches.

    Raises:
        PatchCoreError: an argument cannot be used.
    """

    def __init__(
        self,
        backbone: str | Backbone = DEFAULT_BACKBONE,
        layers: Sequence[str] = (),
        *,
        weights: str = DEFAULT,
        percentage_coreset: float | Sequence[float] = 0.1,
        k: int = 1,
        image_score: str = "max_patch",
        num_reweight: int = 9,
        size_resize: tuple[int, int] = (256, 256),
        size_crop: tuple[int, int] = (224, 224),
        interpolation: str = "bilinear",
        flip: Sequence[str] = (),
        patch_size: int = 3,
        embed_dim: int = 1024,
        layer_weights: Sequence[float] | None = None,
        sigma: float = 4.0,
        seed: int = 0,
        precision: str = "float32",
        device: str | torch.device = "cpu",
        batch_size: int = 8,
    ):
        if image_score not in IMAGE_SCORES:
            raise PatchCoreError(
                f"expected image_score {', '.join(IMAGE_SCORES)}, found {image_score!r}"
            )
        if precision not in PRECISIONS:
            raise PatchCoreError(f"expected precision {', '.join(PRECISIONS)}, found {precision!r}")
        if not set(flip) <= set(FLIPS):
            raise PatchCoreError(f"expected flip {', '.join(FLIPS)}, found {' '.join(flip)}")
        self.preprocess = Preprocess(size_resize, size_crop, interpolation=interpolation)
        self.percentages = check_percentages(percentage_coreset)
        self.k = k
        self.image_score = image_score
        self.num_reweight = num_reweight
        self.flip = tuple(flip)
        self.seed = seed
        self.batch_size = batch_size
        self.device = torch.device(device)
        if isinstance(backbone, str):
            backbone = load_backbone(backbone, layers, weights, size=size_crop, seed=seed)
        warn_if_emulated(precision, self.device)
        self._precision = PRECISIONS[precision]
        self.backbone = backbone.to(
            self.device, self._precision.dtype, memory_format=torch.channels_last
        )
        embedding = PatchEmbedding(
            backbone.channels, patch_size, embed_dim=embed_dim, layer_weights=layer_weights
        )
        self.patch_embedding = embedding.to(self.device)
        # An even patch_size has no middle: its grid is one smaller.
        self.grid = tuple(length - 1 + patch_size % 2 for length in backbone.grids[0])
        self.anomaly_map = AnomalyMap(self.grid, size_crop, sigma).to(self.device)
        self.trained: Trained | None = None
        # The arguments again, as JSON knows them: a saved model is built anew from them.
        self.settings = {
            "percentage_coreset": list(self.percentages),
            "k": k,
            "image_score": image_score,
            "num_reweight": num_reweight,
            "size_resize": list(size_resize),
            "size_crop": list(size_crop),
            "interpolation": interpolation,
            "flip": list(flip),
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "layer_weights": None if layer_weights is None else list(layer_weights),
            "sigma": sigma,
            "seed": seed,
            "precision": precision,
        }

    @property
    def coreset(self) -> Coreset | None:
        """What `fit` selected; None before."""
        if self.trained is None:
            return None
        trained = self.trained
        order = EmbeddingOrder(trained.origins.images, trained.origins.flips)
        origins = Origins.locate(
            trained.coreset.indices, self.grid, order, tuple(trained.names), self.flip
        )
        return replace(trained.coreset, origins=origins, patches=trained.patches)

    @property
    def thresholds(self) -> Thresholds:
        """From which scores on an image and a pixel are anomalous, as far as `fit` could tell."""
        return Thresholds(None, None) if self.trained is None else self.trained.thresholds

    @property
    def patches_per_image(self) -> int:
        """How many patches an image has: h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def augmentation(self) -> int:
        """How many images are learned of each training image: itself and its flips."""
        return 1 + len(self.flip)

    def num_patches(self, num_images: int) -> int:
        """Return how many training patches so many images have, their flips counted."""
        return num_images * self.augmentation * self.patches_per_image

    def fit(self, images: Iterable, names: Sequence[str] = ()) -> "PatchCore":
        """Learn what is normal.

        Args:
            images: Normal images of any size, or a loader of batches of them: arrays (H, W, 3)
                uint8 RGB, PIL images or tensors, as `patchcore.images.each_image` takes them.
            names: What each image is called, for explanations; may be left out.

        Returns:
            Itself.

        Raises:
            PatchCoreError: no image, something else than images, or fewer patches than the
                percentage needs.
        """
        crops = [self.crop(image) for image in each_image(images)]
        if names and len(names) != len(crops):
            raise PatchCoreError(f"expected {len(crops)} names, found {len(names)}")
        collected, versions = OriginsOfBatches(), []

        def batches() -> Iterator[np.ndarray]:
            for first in range(0, len(crops), self.batch_size):
                batch = np.stack(crops[first : first + self.batch_size])
                for flip, version in enumerate(self.augment(batch)):
                    collected.add(first, len(version), flip)
                    versions.append(version)
                    yield version

        embeddings = self.embed_all(batches(), len(crops) * self.augmentation)
        coreset, origins = self.select(embeddings), collected.finish()
        places = locate(coreset.indices, self.grid)
        *_, held_out = held_out_scores(self, embeddings, origins, self.seed)
        self.trained = Trained(
            coreset=coreset,
            origins=origins,
            held_out=held_out,
            thresholds=choose_thresholds(held_out, BestThresholds()),
            names=tuple(names),
            patches=cut_patches(np.concatenate(versions), places, self.grid),
        )
        return self

    def predict(self, images: Iterable) -> Prediction:
        """Judge images by the coreset of the largest percentage.

        Args:
            images: Of any size, in the forms that `fit` takes.

        Returns:
            The prediction for all of them.

        Raises:
            PatchCoreError: nothing has been fitted or loaded, or there is no image.
        """
        if self.coreset is None:
            raise PatchCoreError("expected a fitted PatchCore: call fit or load first")
        crops = (self.crop(image) for image in each_image(images))

        def batches() -> Iterator[np.ndarray]:
            while batch := list(islice(crops, self.batch_size)):
                yield np.stack(batch)

        return self.judge(batches(), self.coreset)

    def judge(self, batches: Iterable[np.ndarray], coreset: Coreset) -> Prediction:
        """Judge batches by a coreset's largest percentage.

        Args:
            batches: Each (B, *size_crop, 3) uint8 RGB, as `crop` gives them.
            coreset: As `select` gives it.

        Raises:
            PatchCoreError: there is no image.
        """
        collector = Collector()
        for batch in batches:
            embeddings = self.embed(batch)
            *_, of_largest = self.nearest(embeddings, coreset)
            collector.add(self.score(embeddings, of_largest, coreset))
        return collector.finish()

    def save(
        self, folder: str | Path, *, dtype: str = "float32", faiss_index: bool = False
    ) -> None:
        """Write what was fitted to a folder, from which `load` builds the same model again.

        Args:
            folder: Made where it is missing; a model that was there is replaced.
            dtype: Of the stored embeddings, ``float32`` or ``float16``.
            faiss_index: Also write the embeddings as a flat faiss index, for other programs.

        Raises:
            PatchCoreError: nothing has been fitted, or the folder cannot be written.
        """
        if self.trained is None:
            raise PatchCoreError("expected a fitted PatchCore to save: call fit first")
        storage.write_folder(Path(folder), self, self.trained, dtype=dtype, faiss_index=faiss_index)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        backbone: str | Backbone | None = None,
        weights: str | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
    ) -> "PatchCore":
        """Build a model from a folder that `save` wrote; nothing in it is executed.

        The same scores come out, to the last bit on the same device with batches of the same size.

        Args:
            folder: With ``model.json``.
            backbone: In place of the recorded one: its name, or the network itself. Needed where
                the model was trained with a network of the user's own, since code is not imported
                because a file names it.
            weights: In place of the recorded words: ``default``, ``random`` or a file. They must
                be the same weights.
            device: Where it is to compute.
            batch_size: Images at a time.

        Raises:
            PatchCoreError: the folder holds no trained model, or one that does not fit this
                program, its own files, or the backbone's weights.
        """
        folder = Path(folder)
        record = storage.read_record(folder)
        with storage.checked(folder):
            network = storage.read_backbone(record, backbone, weights)
            arguments = storage.read_settings(record)
            model = cls(network, **arguments, device=device, batch_size=batch_size)
            model.trained = storage.read_trained(folder, record, model.device)
        return model

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one image: (H, W, 3) uint8 to (*size_crop, 3) uint8."""
        return self.preprocess.crop_image(image)

    def augment(self, batch: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a batch (B, H, W, 3) as it is, then flipped in each way of ``flip``."""
        yield batch
        for direction in self.flip:
            yield np.ascontiguousarray(np.flip(batch, FLIPS[direction]))

    @torch.inference_mode()
    def embed(self, batch: np.ndarray) -> torch.Tensor:
        """Embed a batch's patches.

        Args:
            batch: (B, *size_crop, 3) uint8 RGB, as `crop` gives them.

        Returns:
            (B, h, w, D) float32 on the device.
        """
        images = self.preprocess.normalise(_upload(batch, self.device))
        with float32_products(self._precision.tensor_float):
            maps = self.backbone(images.to(self._precision.dtype))
        with float32_products():
            return self.patch_embedding([layer_map.float() for layer_map in maps.values()])

    @torch.inference_mode()
    def embed_all(
        self,
        batches: Iterable[np.ndarray],
        num_images: int,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Embed the patches of all training images.

        Args:
            batches: Each (B, *size_crop, 3) uint8 RGB; num_images in all.
            num_images: So that the memory is taken once.
            dtype: In which they are kept.

        Returns:
            (N, D) of that type on the device, N = num_images * h * w.
        """
        if num_images < 1:
            raise PatchCoreError("expected at least one training image, found none")
        shape = num_images, *self.grid, self.patch_embedding.embed_dim
        embeddings = torch.empty(shape, dtype=dtype, device=self.device)
        done = 0
        for batch in batches:
            embeddings[done : done + len(batch)] = self.embed(batch)
            done += len(batch)
        if done != num_images:
            raise PatchCoreError(f"expected {num_images} training images, found {done}")
        return embeddings.flatten(0, 2)

    def sizes_of_coresets(self, num_patches: int) -> tuple[int, ...]:
        """Return each percentage's number of patches: int(N * percentage), as in the paper's code.

        Raises:
            PatchCoreError: one has no patch at all, or fewer than k.
        """
        sizes = tuple(int(num_patches * percentage) for percentage in self.percentages)
        if sizes[0] < max(self.k, 1):
            raise PatchCoreError(
                f"expected at least k = {self.k} patches in the coreset, found {sizes[0]}: "
                f"{self.percentages[0]:g} of {num_patches} training patches (percentage_coreset, k)"
            )
        return sizes

    @torch.inference_mode()
    def select(
        self,
        embeddings: torch.Tensor,
        seed: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Coreset:
        """Select the coreset.

        Args:
            embeddings: (N, D) float32 of all training patches.
            seed: Of the selection; None for the model's.
            progress: Called with the number of patches selected so far.

        Raises:
            PatchCoreError: a percentage of N is no patch at all, or fewer than k.
        """
        seed = self.seed if seed is None else seed
        sizes = self.sizes_of_coresets(len(embeddings))
        indices = greedy_coreset(embeddings, sizes[-1], seed=seed, progress=progress)
        return Coreset(indices.cpu().numpy(), sizes, MemoryBank(embeddings[indices]), seed)

    @torch.inference_mode()
    def nearest(self, embeddings: torch.Tensor, coreset: Coreset) -> Iterator[Neighbours]:
        """Find each patch's nearest coreset patches, for each percentage.

        Args:
            embeddings: (B, h, w, D), as `embed` gives them.
            coreset: As `select` gives it.

        Yields:
            For each percentage, ascending, its neighbours.
        """
        shape = *embeddings.shape[:3], self.k
        found = coreset.bank.search_prefixes(embeddings.flatten(0, 2), self.k, coreset.sizes)
        for size, (distance, index) in zip(coreset.sizes, found, strict=True):
            yield Neighbours(distance.view(shape), index.view(shape), size)

    @torch.inference_mode()
    @float32_products()
    def score(self, embeddings: torch.Tensor, neighbours: Neighbours, coreset: Coreset) -> Scores:
        """Turn distances into scores and maps.

        Args:
            embeddings: (B, h, w, D), as `embed` gives them.
            neighbours: Theirs, as `nearest` gives them.
            coreset: The one that was searched.
        """
        scores = patch_scores(neighbours.distance)  # (B, h, w)
        maps = self.anomaly_map(scores)  # (B, H, W)
        if self.image_score == "max_patch":
            score = max_scores(scores)
        elif self.image_score == "max_map":
            score = max_scores(maps)
        else:
            bank = coreset.bank.embeddings[: neighbours.size]
            nearest = neighbours.nearest[..., 0]
            score = reweighted_scores(scores, embeddings, nearest, bank, self.num_reweight)
        return Scores(score, maps, neighbours.distance, neighbours.nearest)

    def embedded(self, embeddings: torch.Tensor) -> Callable[[np.ndarray], torch.Tensor]:
        """Return what gives single images' embeddings (b, h, w, D) float32 out of all (N, D)."""
        by_image = embeddings.view(-1, *self.grid, embeddings.shape[1])
        return lambda numbers: by_image[_upload(numbers, embeddings.device)].float()


def _upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to the device; to a GPU while the processor goes on to the next one."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # pageable memory would be waited for
    return tensor.to(device, non_blocking=True)


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
