"""A trained model as a folder of plain files: no code in them, nothing that is executed.

    model.json          format, settings, backbone, training images, thresholds, digests
    model.safetensors   coreset embeddings and indices, the selection's projection, scores
    patches.jpg         what the coreset's patches look like (a mosaic, in order of selection)
    index.faiss         the embeddings as a flat faiss index for other programs, if asked for

The backbone's weights are not in it: they are loaded by their name, and their digest must be the
one that was trained with.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import faiss
import torch
from safetensors.torch import load, save

from patchcore.backbone import Backbone
from patchcore.coreset import PROJECTION_DIM, projection
from patchcore.embedded_origins import Origins
from patchcore.errors import PatchCoreError
from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.mosaic import decode_mosaic, encode_mosaic
from patchcore.thresholds import BestThresholds, Threshold, Thresholds
from patchcore.trained import Trained
from patchcore.weights import digest, load_backbone

if TYPE_CHECKING:
    from patchcore.model import PatchCore

RECORD, TENSORS, PATCHES, INDEX = "model.json", "model.safetensors", "patches.jpg", "index.faiss"
FORMAT, FORMAT_VERSION = "patchcore", 1
DTYPES = {"float32": torch.float32, "float16": torch.float16}
PACKAGES = ("torch", "torchvision", "numpy", "faiss-gpu", "faiss-cpu", "opencv-python-headless")


def write_folder(
    folder: Path,
    model: "PatchCore",
    trained: Trained,
    *,
    percentages: Sequence[float] | None = None,
    dtype: str = "float32",
    faiss_index: bool = False,
) -> None:
    """Write a trained model; what was there under this name is replaced when all is written.

    Args:
        folder: Made with its parents.
        model: The method that it was trained with.
        trained: What was learned.
        percentages: Those of its coreset; None for all of the model's.
        dtype: ``float32``, or ``float16``, which halves the file and rounds the embeddings to 3
            digits.
        faiss_index: Whether other programs want ``index.faiss``.

    Raises:
        PatchCoreError: the folder cannot be written, or is something else than a trained model.
    """
    if dtype not in DTYPES:
        raise PatchCoreError(f"expected dtype {' or '.join(DTYPES)}, found {dtype!r}")
    if folder.exists() and not (folder / RECORD).is_file() and any(folder.iterdir()):
        raise PatchCoreError(
            f"expected a new folder or a trained model's, found other files in {folder}"
        )
    contents = {TENSORS: save(_tensors(trained, DTYPES[dtype]))}
    if trained.patches is not None:
        contents[PATCHES] = encode_mosaic(trained.patches)
    if faiss_index:
        index = faiss.IndexFlatL2(trained.coreset.bank.embeddings.shape[1])
        index.add(trained.coreset.bank.embeddings.cpu().numpy())
        contents[INDEX] = faiss.serialize_index(index).tobytes()
    record = _record(model, trained, percentages or model.percentages, dtype)
    record["digests"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    try:
        _replace_folder(folder, contents)
    except OSError as error:
        raise PatchCoreError(
            f"cannot write the trained model {folder}: {error.strerror or error}"
        ) from error


def read_record(folder: Path) -> dict:
    """Read ``model.json``.

    Raises:
        PatchCoreError: there is none, or it is not one of this format and version.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PatchCoreError(
            f"expected a trained model's folder, cannot read {path}: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise PatchCoreError(
            f"expected a trained model's record, found no JSON in {path}"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise PatchCoreError(f"expected a trained PatchCore model, found another record: {path}")
    if record.get("format_version") != FORMAT_VERSION:
        raise PatchCoreError(
            f"expected format_version {FORMAT_VERSION} in {path}, found "
            f"{record.get('format_version')!r}: train again, or use the program's version that "
            "wrote it"
        )
    return record


@contextmanager
def checked(folder: Path) -> Iterator[None]:
    """Turn what a record with missing or strange entries causes into one error.

    Raises:
        PatchCoreError: as said.
    """
    try:
        yield
    except PatchCoreError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise PatchCoreError(
            f"expected a complete trained model in {folder}, cannot make sense of its {RECORD} "
            f"({type(error).__name__}: {error})"
        ) from error


def read_backbone(
    record: Mapping, backbone: str | Backbone | None, weights: str | None
) -> Backbone:
    """Load the network that a model was trained with, and check its weights.

    Args:
        record: As `read_record` gives it.
        backbone: In place of the recorded one.
        weights: In place of the recorded words.

    Raises:
        PatchCoreError: it is a network of the user's own and none was given, it cannot be loaded,
            or its weights are others.
    """
    recorded = record["backbone"]
    if backbone is None and (":" in recorded["name"] or not recorded["name"]):
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
        )
    if weights_digest(backbone) != recorded["weights_digest"]:
        raise PatchCoreError(
            "expected the weights that the model was trained with (digest "
            f"{recorded['weights_digest'][:12]}, then given as {recorded['weights']!r}), found "
            f"others (digest {weights_digest(backbone)[:12]}): give them (weights), or train again"
        )
    return backbone


def read_settings(record: Mapping) -> dict[str, object]:
    """Return the arguments of the method: tuples where JSON has lists."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in record["settings"].items()
    }


def read_trained(folder: Path, record: Mapping, device: torch.device) -> Trained:
    """Read what was learned, and check that the files are those that were written.

    Raises:
        PatchCoreError: a file is missing, damaged, from another model, or does not fit the record.
    """
    tensors = load(_read_checked(folder / TENSORS, record["digests"][TENSORS]))
    size, dim = record["coreset_size"], record["embed_dim"]
    expected = {
        "embeddings": (size, dim),
        "indices": (size,),
        "origin_images": (record["num_embedded"],),
        "origin_flips": (record["num_embedded"],),
    }
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != shape:
            raise PatchCoreError(f"expected {name} {shape} in {folder / TENSORS}, found {found}")
    bank = MemoryBank(tensors["embeddings"].float().to(device))
    coreset = Coreset(
        tensors["indices"].numpy(), tuple(record["coreset_sizes"]), bank, record["settings"]["seed"]
    )
    _check_numbers(record, tensors, folder)
    held_out = None
    if "held_out_images" in tensors:
        held_out = HeldOutScores(
            tensors["held_out_images"].numpy(), tensors["held_out_pixels"].numpy()
        )
    patches = None
    if PATCHES in record["digests"]:
        data = _read_checked(folder / PATCHES, record["digests"][PATCHES])
        patches = decode_mosaic(data, size, tuple(record["patch_pixels"]))
    return Trained(
        coreset=coreset,
        origins=Origins(tensors["origin_images"].numpy(), tensors["origin_flips"].numpy()),
        held_out=held_out,
        thresholds=Thresholds(
            *(_read_threshold(record["thresholds"][kind]) for kind in ("image", "pixel"))
        ),
        names=tuple(record["training_images"]),
        best=BestThresholds(**record["f1_max"]),
        patches=patches,
        category=record["category"],
    )


def weights_digest(backbone: Backbone) -> str:
    """Return the digest of a backbone's weights; taken now where nobody did when they came."""
    return backbone.weights_digest or digest(backbone.network)


def _tensors(trained: Trained, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    coreset = trained.coreset
    embeddings = coreset.bank.embeddings
    tensors = {
        "embeddings": embeddings.to("cpu", dtype),
        "indices": torch.from_numpy(coreset.indices),
        "origin_images": torch.from_numpy(trained.origins.images),
        "origin_flips": torch.from_numpy(trained.origins.flips),
    }
    if embeddings.shape[1] != PROJECTION_DIM:  # which the selection was made by
        tensors["projection"] = projection(embeddings.shape[1], PROJECTION_DIM, coreset.seed)
    if trained.held_out is not None:
        tensors["held_out_images"] = torch.from_numpy(trained.held_out.image_scores)
        tensors["held_out_pixels"] = torch.from_numpy(trained.held_out.pixel_scores)
        tensors["held_out_pixel_rates"] = torch.from_numpy(PIXEL_RATES)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _record(
    model: "PatchCore", trained: Trained, percentages: Sequence[float], dtype: str
) -> dict[str, object]:
    backbone = model.backbone
    coreset = trained.coreset
    patches = trained.patches
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "category": trained.category,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "backbone": {
            "name": backbone.name,
            "weights": backbone.weights,
            "weights_digest": weights_digest(backbone),
            "layers": list(backbone.layers),
            "channels": list(backbone.channels),
            "grids": [list(grid) for grid in backbone.grids],
        },
        "settings": model.settings | {"percentage_coreset": list(percentages)},
        "grid": list(model.grid),
        "coreset_size": len(coreset.bank),
        "coreset_sizes": list(coreset.sizes),
        "embed_dim": coreset.bank.embeddings.shape[1],
        "dtype": dtype,
        "num_embedded": len(trained.origins),
        "training_images": list(trained.names),
        "patch_pixels": None if patches is None else list(patches.shape[1:3]),
        "thresholds": {
            kind: None if threshold is None else asdict(threshold)
            for kind, threshold in (
                ("image", trained.thresholds.image),
                ("pixel", trained.thresholds.pixel),
            )
        },
        "f1_max": asdict(trained.best),
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
    """Read a file whose content was written together with the record."""
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


def _check_numbers(record: Mapping, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that every coreset patch is one of an embedded image, and that image one by name."""
    num_patches = record["num_embedded"] * math.prod(record["grid"])
    indices, images = tensors["indices"], tensors["origin_images"]
    if not (int(indices.min()) >= 0 and int(indices.max()) < num_patches):
        raise PatchCoreError(
            f"expected indices of training patches below {num_patches} in {folder / TENSORS}, "
            f"found {int(indices.min())} to {int(indices.max())}"
        )
    names = len(record["training_images"])
    if int(images.min()) < 0 or (names and int(images.max()) >= names):
        raise PatchCoreError(
            f"expected training images below {names} in {folder / TENSORS}, found "
            f"{int(images.min())} to {int(images.max())}"
        )


def _replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder under another name, then let it take the place of the former one."""
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
            former.rename(folder)  # nothing is lost where the new one could not take its place
        shutil.rmtree(former, ignore_errors=True)
