"""PatchCore: an Embedder, a Scorer and the result of training, as one model."""

import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from patchcore.backbone import Backbone
from patchcore.context import Context, TrainedContext
from patchcore.embedder import Embedder
from patchcore.engine import Engine
from patchcore.errors import PatchCoreError, first_line
from patchcore.extend import extend
from patchcore.fit import FitRequest, fit
from patchcore.ignored import Cropper, IgnoreMask
from patchcore.images import AnyImage, as_rgb, each_image
from patchcore.loading import checked, read_backbone, read_trained
from patchcore.memory_bank import Coreset
from patchcore.passes import CroppedImages
from patchcore.prediction import Collector, Prediction
from patchcore.preprocess import Preprocess
from patchcore.record import read_record
from patchcore.scoring import Scorer
from patchcore.setting_values import count_of
from patchcore.settings import Settings
from patchcore.storage import write_folder
from patchcore.thresholds import BestThresholds, Thresholds, choose_thresholds
from patchcore.torch_state import torch_defaults
from patchcore.trained import Extension, Trained
from patchcore.weights import DEFAULT, load_backbone_for

DEFAULT_BACKBONE = "wide_resnet50_2"


class PatchCore:
    """Detects anomalies from normal images alone (Roth et al. 2022).

    `fit` and `predict` take images of any size. Several percentages share one selection and one
    search: the coreset of 1 % is a prefix of the coreset of 10 %. Several threads may call
    `predict` at the same time, also of models that share a `Backbone`.

    Attributes:
        settings: Settings of the method.
        embedder: Images to patch embeddings.
        scorer: Patch embeddings to scores and maps.
        mask: Pixels that are neither learned nor judged; None to ignore nothing.
        trained: What `fit` learned or `load` read; None before.
        batch_size: Number of images at a time.

    Args:
        backbone: A `Backbone`, for images of any size that its network takes, or a name that
            `load_backbone` takes: ``formulanet``, a torchvision model, ``timm:NAME`` or
            ``module:factory``.
        layers: Names of the layers to read; empty for the backbone's default: layer2 and layer3
            of a ResNet as in the paper, layer1 to layer3 of formulanet, and of other networks those
            that `patchcore.layer_choice.choose_layers` chooses. A `Backbone` has its own, and
            takes no others.
        weights: ``default``, ``random`` or a file. A `Backbone` has its own.
        device: A torch device, for example ``cpu`` or ``cuda``.
        batch_size: Number of images at a time.
        ignore_mask: (H, W) bool, True where all images are neither learned nor judged; of the
            images' size or aspect ratio. None to ignore nothing.
        **settings: The fields of `patchcore.settings.Settings`, which describes each of them.

    Raises:
        PatchCoreError: an argument cannot be used.
    """

    @torch_defaults()
    def __init__(
        self,
        backbone: str | Backbone = DEFAULT_BACKBONE,
        layers: Sequence[str] = (),
        *,
        weights: str | Path = DEFAULT,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
        ignore_mask: np.ndarray | None = None,
        **settings: object,
    ):
        self.settings = Settings(**settings)
        self.batch_size = count_of("batch_size", batch_size)
        device = _available(device)
        if not isinstance(backbone, Backbone):
            backbone = load_backbone_for(self.settings, backbone, layers, str(weights))
        elif set(layers or backbone.layers) != set(backbone.layers) or weights != DEFAULT:
            raise PatchCoreError(
                "expected neither other layers nor weights with a Backbone, which has its own, "
                f"found layers={layers!r} and weights={str(weights)!r} (layers, weights)"
            )
        self.embedder = Embedder(backbone, self.settings, device)
        self.trained: Trained | None = None
        self.context = Context.of(self.backbone, self.settings, self.device)
        mask = None if ignore_mask is None else IgnoreMask.of(ignore_mask, self.preprocess)
        self._set_mask(mask)

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        settings: Settings,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
        ignore_mask: np.ndarray | None = None,
    ) -> "PatchCore":
        """Return a model of a backbone and settings that exist already."""
        values = {field.name: getattr(settings, field.name) for field in fields(settings)}
        return cls(
            backbone, device=device, batch_size=batch_size, ignore_mask=ignore_mask, **values
        )

    def with_percentages(self, percentages: Sequence[float] | float) -> "PatchCore":
        """Return a model, not fitted, that differs in the coreset percentages alone.

        Raises:
            PatchCoreError: a percentage is out of bounds.
        """
        model = copy.copy(self)  # neither the embedder nor the scorer depends on percentages
        model.settings = replace(self.settings, percentage_coreset=percentages)
        model.trained = None
        return model

    @property
    def backbone(self) -> Backbone:
        """The cut network."""
        return self.embedder.backbone

    @property
    def preprocess(self) -> Preprocess:
        """Resizing, cropping, normalisation."""
        return self.embedder.preprocess

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.embedder.device

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) patches of an image."""
        return self.embedder.grid

    @property
    def percentages(self) -> tuple[float, ...]:
        """Shares of the training patches in the coresets, ascending."""
        return self.settings.percentage_coreset

    @property
    def coreset(self) -> Coreset | None:
        """The selected patches; None before `fit`."""
        return None if self.trained is None else self.trained.coreset

    @property
    def thresholds(self) -> Thresholds:
        """Thresholds of images and pixels; None where unknown."""
        return Thresholds(None, None) if self.trained is None else self.trained.thresholds

    @property
    def cropper(self) -> Cropper:
        """What `crop` needs of this model."""
        return Cropper(self.preprocess, self.mask)

    def crop(self, image: AnyImage) -> np.ndarray:
        """Resize and crop one image.

        Args:
            image: One image of any size, as `patchcore.images.as_rgb` takes it.

        Returns:
            (*size_crop, 3) uint8 RGB.

        Raises:
            PatchCoreError: it is no image, or its aspect ratio differs from that of the mask.
        """
        return self.cropper(as_rgb(image))

    def fit(
        self,
        images: Iterable,
        names: Iterable = (),
        *,
        memory_budget: float = 0.0,
        engine: Engine | None = None,
    ) -> "PatchCore":
        """Learn what is normal.

        Args:
            images: Normal images of any size, or a loader of batches of them: arrays (H, W, 3)
                uint8 RGB, PIL images or tensors, as `patchcore.images.each_image` takes them.
            names: The name of each image, for explanations: a text, or what `str` turns into one,
                such as a path; optional.
            memory_budget: Gigabytes for embeddings and selection; 0 for most of the free memory.
                Embeddings that do not fit are computed twice, with the same result.
            engine: Where patches are embedded and selected, with the same result: None for this
                process, `patchcore.distributed.RayEngine` for several machines.

        Returns:
            This model.

        Raises:
            PatchCoreError: there is no image, something is not an image, the percentage gives
                fewer than k patches (2 for ``reweighted``), the backbone gives features that are
                not finite, or the memory is too small.
        """
        training = self._cropped(images, names)
        request = FitRequest(self.percentages, (self.settings.seed,), memory_budget=memory_budget)
        result = fit(
            self.embedder, self.scorer, training, request, engine=engine, context=self.context
        )
        held_out = result.held_out[-1]
        thresholds = choose_thresholds(held_out, BestThresholds())
        context = result.context_of(self.settings.seed)
        self.trained = Trained(result.first, held_out, thresholds, mask=self.mask, context=context)
        return self

    def extend(self, images: Iterable, names: Iterable = ()) -> Extension:
        """Add new normal images to the model without retraining.

        A patch is added only if it is farther from the coreset than the covering radius. The images
        are scored before they are added. Their scores and the thresholds by them are in
        ``trained.extension``; `thresholds` still gives those of the first training.

        Args:
            images: New normal images, in the forms that `fit` takes. Their embeddings are all kept
                in memory meanwhile.
            names: The name of each image, for explanations: a text, or what `str` turns into one,
                such as a path; optional.

        Returns:
            The number of images and of added patches, the scores and the thresholds.

        Raises:
            PatchCoreError: nothing has been fitted or loaded, there is no image, or the model has
                several percentages, a bank for each layer, or a context.
        """
        if self.trained is None:
            raise PatchCoreError("expected a fitted PatchCore to extend: call fit or load first")
        new = self._cropped(images, names)
        self.trained = extend(self.embedder, self.scorer, self.trained, new)
        return self.trained.extension

    def _cropped(self, images: Iterable, names: Iterable) -> CroppedImages:
        """Return cropped images with their names."""
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise PatchCoreError(f"expected a name of each image, found names={names!r}")
        crops = [self.crop(image) for image in each_image(images)]
        texts = tuple(map(str, names))
        if texts and len(texts) != len(crops):
            raise PatchCoreError(f"expected {len(crops)} names, found {len(texts)}")
        return CroppedImages(crops, texts, self.batch_size)

    def predict(self, images: Iterable) -> Prediction:
        """Predict images by the coreset of the largest percentage.

        Args:
            images: Images of any size, in the forms that `fit` takes.

        Returns:
            The prediction for all of them.

        Raises:
            PatchCoreError: nothing has been fitted or loaded, there is no image, or a score is
                not finite.
        """
        crops = (self.crop(image) for image in each_image(images))

        def batches() -> Iterator[np.ndarray]:
            while batch := list(islice(crops, self.batch_size)):
                yield np.stack(batch)

        return self.predict_crops(batches())

    def predict_crops(self, batches: Iterable[np.ndarray]) -> Prediction:
        """Predict batches of cropped images by the coreset of the largest percentage.

        Args:
            batches: Each (B, *size_crop, 3) uint8 RGB, as `crop` returns them.

        Raises:
            PatchCoreError: nothing has been fitted or loaded, there is no image, a batch has
                another shape or type, or a score is not finite.
        """
        if self.coreset is None:
            raise PatchCoreError("expected a fitted PatchCore: call fit or load first")
        collector = Collector()
        context = None if self.context is None else self.trained.context.part(-1)
        for batch in batches:
            self.preprocess.check_crops(batch)
            collector.add(self._predict_batch(batch, context))
        return collector.finish()

    @torch_defaults()
    def _predict_batch(self, batch: np.ndarray, context: TrainedContext | None) -> Prediction:
        bank = self.coreset.bank
        predictions = self.scorer.predict(self.embedder.embed(batch), bank, [len(bank)])
        if context is not None:
            predictions = self.context.join(predictions, self.context.embed(batch), context)
        (prediction,) = predictions
        return prediction

    @torch_defaults()
    def save(
        self, folder: str | Path, *, dtype: str = "float32", faiss_index: bool = False
    ) -> None:
        """Write the trained model to a folder, from which `load` restores it.

        Args:
            folder: Created if it is missing; a former model in it is replaced.
            dtype: Type of the stored embeddings, ``float32`` or ``float16``.
            faiss_index: Whether to write the embeddings as a flat faiss index as well, for other
                programs.

        Raises:
            PatchCoreError: nothing has been fitted, the folder cannot be written, or the
                embeddings exceed the range of the type.
        """
        if self.trained is None:
            raise PatchCoreError("expected a fitted PatchCore to save: call fit first")
        write_folder(
            Path(folder),
            self.trained,
            self.settings,
            self.backbone,
            dtype=dtype,
            faiss_index=faiss_index,
        )

    @classmethod
    @torch_defaults()
    def load(
        cls,
        folder: str | Path,
        *,
        backbone: str | Backbone | None = None,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
        ignore_mask: np.ndarray | None = None,
    ) -> "PatchCore":
        """Restore a model from a folder that `save` wrote; nothing in it is executed.

        Scores are the same to the last bit on the same device, in batches of the same size.

        Args:
            folder: Folder with ``model.json``.
            backbone: Replaces the recorded backbone: a name, or the network itself. Needed if the
                model was trained with the user's own network, since code named in a file is
                never imported.
            weights: Replaces the recorded weights: ``default``, ``random`` or a file. They must be
                the same weights.
            device: Device of the computation.
            batch_size: Number of images at a time.
            ignore_mask: (H, W) bool, True where images are not judged, in addition to what was
                ignored at training. It does not change the thresholds, and `save` stores it.

        Raises:
            PatchCoreError: the folder holds no trained model, or one that does not fit this
                program, its own files, or the weights of the backbone.
        """
        folder = Path(folder)
        record = read_record(folder)
        with checked(folder):
            file = None if weights is None else str(weights)  # as it is recorded
            network = read_backbone(record, backbone, file)
            settings = Settings.from_json(record["settings"])
            model = cls.of(
                network, settings, device=device, batch_size=batch_size, ignore_mask=ignore_mask
            )
            trained = read_trained(folder, record, model.device)
            mask = model.mask
            if trained.mask is not None:
                mask = trained.mask if mask is None else trained.mask.joined(mask)
                model._set_mask(mask)
            model.trained = replace(trained, mask=mask)  # as `save` writes it again
        return model

    def _set_mask(self, mask: IgnoreMask | None) -> None:
        self.mask = mask
        if self.context is not None:
            self.context = self.context.with_mask(self.settings, mask)
        self.scorer = Scorer.of(self.embedder, self.settings, mask)


def _available(device: str | torch.device) -> torch.device:
    """Return a device on which torch can compute."""
    try:
        found = torch.device(device)
        torch.ones(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError) as error:  # depending on the type of device
        raise PatchCoreError(
            f"expected a device that torch finds, for example cpu or cuda, found {device!r}: "
            f"{first_line(error)} (device)"
        ) from error
    return found


def _with_settings(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature with the settings by name in place of ``**settings``."""
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    return signature.replace(parameters=[*own, *Settings.parameters()])


# For `help` and editors: the settings are declared once, in `Settings`.
PatchCore.__init__.__signature__ = _with_settings(inspect.signature(PatchCore.__init__))
