"""Reading of a trained model's folder; every value is checked, and nothing is executed."""

import copy
import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from patchcore.augment import versions_of
from patchcore.backbone import Backbone
from patchcore.certificate import Coverage
from patchcore.context import TrainedContext
from patchcore.embedder import num_banks_of
from patchcore.ensemble import NormalScores
from patchcore.errors import PatchCoreError
from patchcore.held_out import HeldOutScores
from patchcore.ignored import IgnoreMask
from patchcore.layout import Layout
from patchcore.memory_bank import Coreset, make_bank
from patchcore.nearby import Places, SearchArea
from patchcore.network_input import NetworkInput
from patchcore.origins import Origins
from patchcore.record import RECORD
from patchcore.settings import Settings, is_own_network
from patchcore.storage import ORIGINS, SCORES, TENSORS
from patchcore.thresholds import BestThresholds, Threshold, Thresholds
from patchcore.trained import Extension, Trained
from patchcore.weights import load_backbone_for

log = logging.getLogger(__name__)


@contextmanager
def checked(folder: Path) -> Iterator[None]:
    """Raise PatchCoreError for any error that missing or ill-typed entries of a record cause."""
    try:
        yield
    except PatchCoreError:
        raise
    except Exception as error:  # a value of the wrong type may cause an error of any type
        raise PatchCoreError(
            f"expected a complete trained model in {folder}, cannot read its {RECORD} "
            f"({type(error).__name__}: {error})"
        ) from error


def read_backbone(
    record: Mapping, backbone: str | Backbone | None, weights: str | None
) -> Backbone:
    """Load the backbone of a trained model, and check its weights.

    Args:
        record: As `read_record` returns it.
        backbone: Replaces the recorded backbone. Its size and its preprocessing may be others:
            those of the training count.
        weights: Replaces the recorded weights.

    Raises:
        PatchCoreError: the backbone is the user's own network and is not given, it cannot be
            loaded, or its weights differ.
    """
    recorded, settings = record["backbone"], Settings.from_json(record["settings"])
    if backbone is None and (is_own_network(recorded["name"]) or not recorded["name"]):
        found = f"its record names {recorded['name']!r}" if recorded["name"] else "it has no name"
        raise PatchCoreError(
            "expected the backbone to be given, found a model of a network of the user's own "
            f"({found}): code named in a file is never imported, so give the backbone (backbone)"
        )
    if not isinstance(backbone, Backbone):
        backbone = load_backbone_for(
            settings,
            recorded["name"] if backbone is None else backbone,
            recorded["layers"],
            recorded["weights"] if weights is None else weights,
            # Found by a trial run at training; it does not apply to another network.
            layout=recorded["layout"] if backbone in (None, recorded["name"]) else None,
        )
    backbone = backbone.at(settings.size_network)
    if list(backbone.layers) != recorded["layers"]:
        raise PatchCoreError(
            f"expected the layers that the model was trained with, {', '.join(recorded['layers'])}"
            f", found {', '.join(backbone.layers)} (backbone)"
        )
    if backbone.digest() != recorded["weights_digest"]:
        raise PatchCoreError(
            "expected the weights that the model was trained with (digest "
            f"{recorded['weights_digest'][:12]}, then given as {recorded['weights']!r}), found "
            f"different weights (digest {backbone.digest()[:12]}): give the original weights "
            "(weights), or train again"
        )
    return _with_input(backbone, Layout.from_record(recorded["layout"]).input)


def _with_input(backbone: Backbone, trained_with: NetworkInput) -> Backbone:
    """Return a backbone for which images are prepared as at training."""
    if backbone.input == trained_with:
        return backbone
    log.warning(
        "images are prepared as at training, with %s; the backbone that was given has %s",
        trained_with,
        backbone.input,
    )
    result = copy.copy(backbone)
    result.input = trained_with
    return result


def read_trained(folder: Path, record: Mapping, device: torch.device) -> Trained:
    """Read what was learned, and check that the files belong to the record.

    Raises:
        PatchCoreError: a file is missing, damaged, of another model, or does not fit the record.
    """
    tensors = load(_read_checked(folder / TENSORS, record["digests"][TENSORS]))
    _check_shapes(record, tensors, folder)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if "embeddings" not in name}
    settings = Settings.from_json(record["settings"])
    num_banks = num_banks_of(len(record["backbone"]["layers"]), settings)
    if record["num_banks"] != num_banks:
        raise PatchCoreError(
            f"expected {num_banks} memory banks in {folder / RECORD}, found {record['num_banks']}"
        )
    origins = Origins(
        tuple(record["training_images"]),
        versions_of(record["settings"]["augment"]),
        *(arrays[f"origin_{name}"] for name in ORIGINS),
    )
    _check_numbers(record, arrays, origins, folder)
    features = tensors["image_features"].to(device) if "image_features" in tensors else None
    places = Places.of_patches(arrays["indices"], tuple(record["grid"]), device, features)
    area = SearchArea.of(settings, places)
    coreset = Coreset(
        arrays["indices"],
        tuple(record["coreset_sizes"]),
        make_bank(tensors["embeddings"].float().to(device), num_banks, area),
        record["settings"]["seed"],
        origins,
        arrays.get("patches"),
        _read_coverage(record),
    )
    return Trained(
        coreset=coreset,
        held_out=_read_scores("held_out", arrays) if "held_out_images" in arrays else None,
        thresholds=_read_thresholds(record["thresholds"]),
        best=BestThresholds(**record["f1_max"]),
        category=record["category"],
        value_range=record["value_range"],
        mask=_read_mask(record, arrays),
        extension=_read_extension(record, arrays),
        context=_read_context(record, settings, tensors, num_banks, device),
    )


def _read_coverage(record: Mapping) -> tuple[Coverage, ...]:
    radii = record["covering_radii"]
    factors = record.get("proven_factors", [None] * len(radii))  # of older models, unknown
    return tuple(Coverage(*pair) for pair in zip(radii, factors, strict=True))


def _read_extension(record: Mapping, arrays: Mapping[str, np.ndarray]) -> Extension | None:
    """Return the scores of the images that were added last; None if none were."""
    joined = record["joined"]
    if joined is None:
        return None
    thresholds, scores = _read_thresholds(joined["thresholds"]), _read_scores("joined", arrays)
    return Extension(joined["num_images"], joined["num_added"], scores, thresholds)


def _read_context(
    record: Mapping,
    settings: Settings,
    tensors: Mapping[str, torch.Tensor],
    num_banks: int,
    device: torch.device,
) -> TrainedContext | None:
    """Return what was learned of smaller images; None without a context."""
    context = record["context"]
    if (context is None) == bool(settings.context):
        raise PatchCoreError(
            f"expected a context as the settings say, {settings.context:g}, found "
            f"{'none' if context is None else 'one'} in {RECORD}"
        )
    if context is None:
        return None
    pairs = [(NormalScores(**own), NormalScores(**small)) for own, small in context["normal"]]
    sizes = tuple(context["coreset_sizes"])
    if any(type(size) is not int or size < 1 for size in sizes) or list(sizes) != sorted(sizes):
        raise PatchCoreError(
            f"expected ascending coreset sizes in {RECORD}, found {sizes} (context)"
        )
    if len(pairs) != len(sizes) or not all(
        math.isfinite(one.mean) and 0 < one.std < math.inf for pair in pairs for one in pair
    ):
        raise PatchCoreError(f"expected finite scores of normal patches in {RECORD} (context)")
    bank = make_bank(tensors["context_embeddings"].float().to(device), num_banks)
    return TrainedContext(bank, sizes, tuple(pairs))


def _read_mask(record: Mapping, arrays: Mapping[str, np.ndarray]) -> IgnoreMask | None:
    size = record["ignore_mask_size"]
    return None if size is None else IgnoreMask(arrays["ignored"].astype(bool), tuple(size))


def _read_thresholds(record: Mapping) -> Thresholds:
    kinds = (record[kind] for kind in ("image", "pixel"))
    return Thresholds(*(None if kind is None else Threshold(**kind) for kind in kinds))


def _read_scores(kind: str, arrays: Mapping[str, np.ndarray]) -> HeldOutScores:
    fields = {field: arrays[f"{kind}_{name}"] for name, field in SCORES.items()}
    return HeldOutScores(**fields)


def _read_checked(path: Path, expected: str) -> bytes:
    """Read a file and check its digest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PatchCoreError(f"cannot read {path}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise PatchCoreError(
            f"expected the file that belongs to {path.parent / RECORD}, found a damaged or "
            f"different file: {path}"
        )
    return data


def _check_shapes(record: Mapping, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that all tensors are there, in the shapes that the record says."""
    size = record["coreset_size"]
    expected = {"embeddings": (size, record["embed_dim"]), "indices": (size,)}
    expected |= {f"origin_{name}": (size,) for name in ORIGINS}
    if record["ignore_mask_size"] is not None:
        expected["ignored"] = tuple(record["settings"]["size_crop"])
    if record["settings"]["retrieve_images"]:
        versions = versions_of(record["settings"]["augment"])
        num_embedded = len(record["training_images"]) * len(versions)
        length = record["num_banks"] * record["embed_dim"]
        expected["image_features"] = (num_embedded, length)
    if record["patch_pixels"] is not None:
        expected["patches"] = (size, *record["patch_pixels"], 3)
    if record["context"] is not None:
        rows = record["context"]["coreset_sizes"][-1]
        expected["context_embeddings"] = (rows, record["embed_dim"])
    for kind in ("held_out", "joined"):
        if f"{kind}_images" in tensors:
            expected[f"{kind}_numbers"] = tuple(tensors[f"{kind}_images"].shape)
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != shape:
            raise PatchCoreError(f"expected {name} {shape} in {folder / TENSORS}, found {found}")


def _check_numbers(
    record: Mapping, arrays: Mapping[str, np.ndarray], origins: Origins, folder: Path
) -> None:
    """Check that coreset patches and held-out scores belong to named training images."""
    grid, names = record["grid"], record["training_images"]
    num_embedded = len(names) * len(origins.versions)
    limits = {
        "indices of training patches": (arrays["indices"], num_embedded * math.prod(grid)),
        "training images": (origins.image, len(names)),
        "versions": (origins.version, len(origins.versions)),
        "rows": (origins.row, grid[0]),
        "columns": (origins.column, grid[1]),
    }
    if "held_out_numbers" in arrays:
        limits["training images of held-out scores"] = (arrays["held_out_numbers"], len(names))
    if "joined_numbers" in arrays:
        num_joined = record["joined"]["num_images"]
        limits["images of the scores of joined images"] = (arrays["joined_numbers"], num_joined)
    for what, (numbers, limit) in limits.items():
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= limit:
            raise PatchCoreError(
                f"expected {what} below {limit} in {folder / TENSORS}, found {low} to {high}"
            )
