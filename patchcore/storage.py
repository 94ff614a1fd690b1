"""A trained model as a folder of plain files: they hold no code, and nothing is executed.

    model.json          format, settings, backbone, training images, thresholds, digests
    model.safetensors   coreset embeddings, indices, origins and crops; the projection; scores
    index.faiss         the embeddings as a flat faiss index for other programs, on request

The weights of the backbone are not included: they are loaded by name, and must have the recorded
digest.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import faiss
import numpy as np
import torch
from safetensors.torch import load, save

from patchcore.backbone import Backbone
from patchcore.coreset import PROJECTION_DIM, projection
from patchcore.embedder import grid_of
from patchcore.errors import PatchCoreError
from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.ignored import IgnoreMask
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.origins import Origins
from patchcore.record import FORMAT, FORMAT_VERSION, RECORD, record_digest
from patchcore.settings import STORED_DTYPES, Settings
from patchcore.thresholds import BestThresholds, Threshold, Thresholds
from patchcore.trained import Trained
from patchcore.weights import digest, is_own_network, load_backbone

TENSORS, INDEX = "model.safetensors", "index.faiss"
DTYPES = {name: getattr(torch, name) for name in STORED_DTYPES}
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "faiss-gpu",
    "faiss-cpu",
    "opencv-python-headless",
)
# The arrays of `Origins`, by their names in the file of tensors.
ORIGINS = ("image", "flip", "row", "column")


def write_folder(
    folder: Path,
    trained: Trained,
    settings: Settings,
    backbone: Backbone,
    *,
    dtype: str = "float32",
    faiss_index: bool = False,
) -> None:
    """Write a trained model; a former model under this name is replaced once all is written.

    Args:
        folder: Created with its parents.
        trained: What was learned.
        settings: Settings of the method, with the percentages of this coreset.
        backbone: The network.
        dtype: ``float32``, or ``float16``, which halves the file and rounds the embeddings to 3
            digits.
        faiss_index: Whether to write ``index.faiss`` for other programs.

    Raises:
        PatchCoreError: the folder cannot be written, or holds something else than a trained model.
    """
    if dtype not in DTYPES:
        raise PatchCoreError(f"expected dtype {' or '.join(DTYPES)}, found {dtype!r}")
    if folder.exists() and not (folder / RECORD).is_file() and any(folder.iterdir()):
        raise PatchCoreError(
            f"expected a new folder or a trained model's, found other files in {folder}"
        )
    contents = {TENSORS: save(_tensors(trained, DTYPES[dtype]))}
    if faiss_index:
        index = faiss.IndexFlatL2(trained.coreset.bank.embeddings.shape[1])
        index.add(trained.coreset.bank.embeddings.cpu().numpy())
        contents[INDEX] = faiss.serialize_index(index).tobytes()
    record = _record(trained, settings, backbone, dtype)
    record["digests"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    record["digest"] = record_digest(record)
    contents[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    try:
        _replace_folder(folder, contents)
    except OSError as error:
        raise PatchCoreError(
            f"cannot write the trained model {folder}: {error.strerror or error}"
        ) from error


@contextmanager
def checked(folder: Path) -> Iterator[None]:
    """Raise PatchCoreError for any error that missing or ill-typed entries of a record cause."""
    try:
        yield
    except PatchCoreError:
        raise
    except Exception as error:  # a value of the wrong type may cause an error of any type
        raise PatchCoreError(
            f"expected a complete trained model in {folder}, cannot make sense of its {RECORD} "
            f"({type(error).__name__}: {error})"
        ) from error


def read_backbone(
    record: Mapping, backbone: str | Backbone | None, weights: str | None
) -> Backbone:
    """Load the backbone of a trained model, and check its weights.

    Args:
        record: As `read_record` returns it.
        backbone: Replaces the recorded backbone.
        weights: Replaces the recorded weights.

    Raises:
        PatchCoreError: the backbone is the user's own network and is not given, it cannot be
            loaded, or its weights differ.
    """
    recorded = record["backbone"]
    if backbone is None and (is_own_network(recorded["name"]) or not recorded["name"]):
        found = f"its record names {recorded['name']!r}" if recorded["name"] else "it has no name"
        raise PatchCoreError(
            "expected the backbone to be given (backbone): the model was trained with a network of "
            f"the user's own ({found}), and no code is imported because a file says so"
        )
    if not isinstance(backbone, Backbone):
        settings = record["settings"]
        backbone = load_backbone(
            recorded["name"] if backbone is None else backbone,
            recorded["layers"],
            recorded["weights"] if weights is None else weights,
            size=tuple(settings["size_crop"]),
            seed=settings["seed"],
            norm_tokens=settings["norm_tokens"],
            # Found by a trial run at training; it does not apply to another network.
            layout=recorded["layout"] if backbone in (None, recorded["name"]) else None,
        )
    if list(backbone.layers) != recorded["layers"]:
        raise PatchCoreError(
            f"expected the layers that the model was trained with, {', '.join(recorded['layers'])}"
            f", found {', '.join(backbone.layers)} (backbone)"
        )
    if weights_digest(backbone) != recorded["weights_digest"]:
        raise PatchCoreError(
            "expected the weights that the model was trained with (digest "
            f"{recorded['weights_digest'][:12]}, then given as {recorded['weights']!r}), found "
            f"others (digest {weights_digest(backbone)[:12]}): give them (weights), or train again"
        )
    return backbone


def read_trained(folder: Path, record: Mapping, device: torch.device) -> Trained:
    """Read what was learned, and check that the files belong to the record.

    Raises:
        PatchCoreError: a file is missing, damaged, of another model, or does not fit the record.
    """
    tensors = load(_read_checked(folder / TENSORS, record["digests"][TENSORS]))
    size = record["coreset_size"]
    expected = {"embeddings": (size, record["embed_dim"]), "indices": (size,)}
    expected |= {f"origin_{name}": (size,) for name in ORIGINS}
    if record["ignore_mask_size"] is not None:
        expected["ignored"] = tuple(record["settings"]["size_crop"])
    if record["patch_pixels"] is not None:
        expected["patches"] = (size, *record["patch_pixels"], 3)
    if "held_out_images" in tensors:
        expected["held_out_numbers"] = tuple(tensors["held_out_images"].shape)
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != shape:
            raise PatchCoreError(f"expected {name} {shape} in {folder / TENSORS}, found {found}")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name != "embeddings"}
    origins = Origins(
        tuple(record["training_images"]),
        ("", *record["settings"]["flip"]),
        *(arrays[f"origin_{name}"] for name in ORIGINS),
    )
    _check_numbers(record, arrays, origins, folder)
    coreset = Coreset(
        arrays["indices"],
        tuple(record["coreset_sizes"]),
        MemoryBank(tensors["embeddings"].float().to(device)),
        record["settings"]["seed"],
        origins,
        arrays.get("patches"),
    )
    held_out = None
    if "held_out_images" in arrays:
        held_out = HeldOutScores(
            arrays["held_out_images"], arrays["held_out_pixels"], arrays["held_out_numbers"]
        )
    thresholds = (_read_threshold(record["thresholds"][kind]) for kind in ("image", "pixel"))
    return Trained(
        coreset=coreset,
        held_out=held_out,
        thresholds=Thresholds(*thresholds),
        best=BestThresholds(**record["f1_max"]),
        category=record["category"],
        value_range=record["value_range"],
        mask=_read_mask(record, arrays),
    )


def weights_digest(backbone: Backbone) -> str:
    """Return the digest of the backbone's weights; compute it if it was not at loading."""
    return backbone.weights_digest or digest(backbone.network)


def _read_mask(record: Mapping, arrays: Mapping[str, np.ndarray]) -> IgnoreMask | None:
    size = record["ignore_mask_size"]
    return None if size is None else IgnoreMask(arrays["ignored"].astype(bool), tuple(size))


def _tensors(trained: Trained, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    coreset = trained.coreset
    embeddings = coreset.bank.embeddings
    arrays = {"indices": coreset.indices}
    arrays |= {f"origin_{name}": getattr(coreset.origins, name) for name in ORIGINS}
    if coreset.patches is not None:
        arrays["patches"] = coreset.patches
    if trained.held_out is not None:
        arrays["held_out_images"] = trained.held_out.image_scores
        arrays["held_out_numbers"] = trained.held_out.images
        arrays["held_out_pixels"] = trained.held_out.pixel_scores
        arrays["held_out_pixel_rates"] = PIXEL_RATES
    if trained.mask is not None:
        arrays["ignored"] = trained.mask.pixels.astype(np.uint8)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    tensors["embeddings"] = embeddings.to("cpu", dtype).contiguous()
    if embeddings.shape[1] != PROJECTION_DIM:  # the projection of the selection
        tensors["projection"] = projection(embeddings.shape[1], PROJECTION_DIM, coreset.seed)
    return tensors


def _record(
    trained: Trained, settings: Settings, backbone: Backbone, dtype: str
) -> dict[str, object]:
    coreset, thresholds = trained.coreset, trained.thresholds
    grid = grid_of(backbone, settings)
    patches = coreset.patches
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "category": trained.category,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "backbone": {
            "name": backbone.name,
            "weights": backbone.weights,
            "weights_digest": weights_digest(backbone),
            "licence": backbone.licence,
            "layers": list(backbone.layers),
            "layout": backbone.layout,
        },
        "settings": settings.as_json(),
        "grid": list(grid),
        "coreset_size": len(coreset.bank),
        "coreset_sizes": list(coreset.sizes),
        "embed_dim": coreset.bank.embeddings.shape[1],
        "dtype": dtype,
        "training_images": list(coreset.origins.names),
        "patch_pixels": None if patches is None else list(patches.shape[1:3]),
        "ignore_mask_size": None if trained.mask is None else list(trained.mask.size),
        "thresholds": {
            kind: None if threshold is None else asdict(threshold)
            for kind, threshold in (("image", thresholds.image), ("pixel", thresholds.pixel))
        },
        "f1_max": asdict(trained.best),
        "value_range": trained.value_range,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _read_threshold(record: Mapping | None) -> Threshold | None:
    return None if record is None else Threshold(**record)


def _read_checked(path: Path, expected: str) -> bytes:
    """Read a file and check its digest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PatchCoreError(f"cannot read {path}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise PatchCoreError(
            f"expected the file that belongs to {path.parent / RECORD}, found a damaged or "
            f"another one: {path}"
        )
    return data


def _check_numbers(
    record: Mapping, arrays: Mapping[str, np.ndarray], origins: Origins, folder: Path
) -> None:
    """Check that coreset patches and held-out scores belong to named training images."""
    grid, names = record["grid"], record["training_images"]
    num_embedded = len(names) * len(origins.flips)
    limits = {
        "indices of training patches": (arrays["indices"], num_embedded * math.prod(grid)),
        "training images": (origins.image, len(names)),
        "flips": (origins.flip, len(origins.flips)),
        "rows": (origins.row, grid[0]),
        "columns": (origins.column, grid[1]),
    }
    if "held_out_numbers" in arrays:
        limits["training images of held-out scores"] = (arrays["held_out_numbers"], len(names))
    for what, (numbers, limit) in limits.items():
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= limit:
            raise PatchCoreError(
                f"expected {what} below {limit} in {folder / TENSORS}, found {low} to {high}"
            )


def _replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder under a temporary name, then rename it over the former one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    former = folder.with_name(f".{folder.name}.{os.getpid()}.former")
    try:
        partial.mkdir()
        for name, data in contents.items():
            (partial / name).write_bytes(data)
        if folder.exists():
            folder.rename(former)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if former.exists() and not folder.exists():
            former.rename(folder)  # restores the former model if the new one could not be renamed
        shutil.rmtree(former, ignore_errors=True)
