"""A trained model as a folder of plain files: they hold no code, and nothing is executed.

    model.json          format, settings, backbone, training images, thresholds, digests
    model.safetensors   coreset embeddings, indices, origins and crops; the projection; scores
    index.faiss         the embeddings as a flat faiss index for other programs, on request

Other files that somebody adds to the folder stay in it when the model is saved again.

The weights of the backbone are not included: they are loaded by name, and must have the recorded
digest. `patchcore.loading` reads the folder.
"""

import hashlib
import json
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import faiss
import numpy as np
import torch
from safetensors.torch import save

from patchcore.backbone import Backbone
from patchcore.context import TrainedContext
from patchcore.coreset import PROJECTION_DIM, projection
from patchcore.distances import BLOCK_ROWS
from patchcore.embedder import grid_of, num_banks_of
from patchcore.errors import PatchCoreError
from patchcore.folder_swap import replace_folder
from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.record import FORMAT, FORMAT_VERSION, RECORD, record_digest
from patchcore.settings import PER_LAYER, STORED_DTYPES, Settings
from patchcore.thresholds import Thresholds
from patchcore.trained import Extension, Trained

TENSORS, INDEX = "model.safetensors", "index.faiss"
# A model's own files. A new model replaces all of them, also by none.
OWN_FILES = (RECORD, TENSORS, INDEX)
DTYPES = {name: getattr(torch, name) for name in STORED_DTYPES}
# Largest error of a stored embedding as a share of its length: twice the rounding of float16.
MAX_ROUNDING = 2.0**-10
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
ORIGINS = ("image", "version", "row", "column")
# The arrays of `HeldOutScores`, by the ends of their names in the file of tensors.
SCORES = {"images": "image_scores", "pixels": "pixel_scores", "numbers": "images"}


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

    Other files in the folder of the former model are kept. A link to a folder stays a link.

    Args:
        folder: Created with its parents.
        trained: What was learned.
        settings: Settings of the method, with the percentages of this coreset.
        backbone: The network.
        dtype: ``float32``, or ``float16``, which halves the file and rounds the embeddings to 3
            digits.
        faiss_index: Whether to write ``index.faiss`` for other programs.

    Raises:
        PatchCoreError: the folder cannot be written, is the current one, or holds something else
            than a trained model; or the embeddings exceed the range of the type.
    """
    if dtype not in DTYPES:
        raise PatchCoreError(f"expected dtype {' or '.join(DTYPES)}, found {dtype!r}")
    try:
        _check_folder(folder)
        contents = _contents(trained, settings, backbone, dtype, faiss_index)
        replace_folder(folder, contents, own=OWN_FILES)
    except OSError as error:
        raise PatchCoreError(
            f"cannot write the trained model {folder}: {error.strerror or error}"
        ) from error


def _contents(
    trained: Trained, settings: Settings, backbone: Backbone, dtype: str, faiss_index: bool
) -> dict[str, bytes]:
    """Return the bytes of each of the model's files, by name; the record comes last."""
    contents = {TENSORS: save(_tensors(trained, DTYPES[dtype]))}
    if faiss_index:
        contents[INDEX] = _index(trained, settings)
    record = _record(trained, settings, backbone, dtype)
    record["digests"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    record["digest"] = record_digest(record)
    contents[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    return contents


def _index(trained: Trained, settings: Settings) -> bytes:
    """Return the embeddings as a flat faiss index."""
    if settings.banks == PER_LAYER:
        raise PatchCoreError(
            "expected no faiss index with banks per_layer, since it holds one bank "
            "(save_index, banks)"
        )
    if trained.context is not None:
        raise PatchCoreError(
            "expected no faiss index with a context, since it holds one bank (save_index, context)"
        )
    embeddings = trained.coreset.bank.embeddings
    index = faiss.IndexFlatL2(embeddings.shape[1])
    index.add(embeddings.cpu().numpy())
    return faiss.serialize_index(index).tobytes()


def _tensors(trained: Trained, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    coreset = trained.coreset
    embeddings = coreset.bank.embeddings
    arrays = {"indices": coreset.indices}
    arrays |= {f"origin_{name}": getattr(coreset.origins, name) for name in ORIGINS}
    if coreset.patches is not None:
        arrays["patches"] = coreset.patches
    if coreset.bank.area is not None and coreset.bank.area.places.features is not None:
        arrays["image_features"] = coreset.bank.area.places.features.cpu().numpy()
    if trained.held_out is not None:
        arrays |= _scores_arrays("held_out", trained.held_out)
        arrays["held_out_pixel_rates"] = PIXEL_RATES
    if trained.mask is not None:
        arrays["ignored"] = trained.mask.pixels.astype(np.uint8)
    if trained.extension is not None:
        arrays |= _scores_arrays("joined", trained.extension.scores)
    tensors = {name: torch.from_numpy(np.require(a, None, "CW")) for name, a in arrays.items()}
    tensors["embeddings"] = _in_type(embeddings, dtype)
    if trained.context is not None:
        tensors["context_embeddings"] = _in_type(trained.context.bank.embeddings, dtype)
    if embeddings.shape[1] != PROJECTION_DIM:  # the projection of the selection
        tensors["projection"] = projection(embeddings.shape[1], PROJECTION_DIM, coreset.seed)
    return tensors


def _in_type(embeddings: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return embeddings (M, D) in a type, on the CPU, if it holds them to 3 digits."""
    stored = embeddings.to("cpu", dtype).contiguous()
    if dtype == embeddings.dtype:
        return stored
    wrong = 0
    for given, rounded in zip(embeddings.split(BLOCK_ROWS), stored.split(BLOCK_ROWS), strict=True):
        exact = given.to("cpu", torch.float64)
        error = torch.linalg.vector_norm(rounded - exact, dim=1)
        limit = MAX_ROUNDING * torch.linalg.vector_norm(exact, dim=1)
        wrong += int((~(error <= limit)).sum())  # not >, since an error may be undefined
    if wrong:
        name = str(dtype).removeprefix("torch.")
        raise PatchCoreError(
            f"expected embeddings that {name} holds to 3 digits, found {wrong} of {len(stored)} "
            "that are too large or too small for it: store them as float32 (dtype, trained_dtype)"
        )
    return stored


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
            "weights_digest": backbone.digest(),
            "licence": backbone.licence,
            "layers": list(backbone.layers),
            "layout": backbone.layout,
        },
        "settings": settings.as_json(),
        "grid": list(grid),
        "coreset_size": len(coreset.bank),
        "coreset_sizes": list(coreset.sizes),
        "num_banks": num_banks_of(len(backbone.layers), settings),
        "covering_radii": [one.radius for one in coreset.coverage],
        "proven_factors": [one.factor for one in coreset.coverage],
        "embed_dim": coreset.bank.embeddings.shape[1],
        "dtype": dtype,
        "training_images": list(coreset.origins.names),
        "patch_pixels": None if patches is None else list(patches.shape[1:3]),
        "ignore_mask_size": None if trained.mask is None else list(trained.mask.size),
        "thresholds": _thresholds_record(thresholds),
        "joined": _extension_record(trained.extension),
        "context": _context_record(trained.context),
        "f1_max": asdict(trained.best),
        "value_range": trained.value_range,
        "versions": _versions(),
    }


def _thresholds_record(thresholds: Thresholds) -> dict[str, object]:
    pairs = (("image", thresholds.image), ("pixel", thresholds.pixel))
    return {kind: None if one is None else asdict(one) for kind, one in pairs}


def _extension_record(extension: Extension | None) -> dict[str, object] | None:
    if extension is None:
        return None
    numbers = {"num_images": extension.num_images, "num_added": extension.num_added}
    return numbers | {"thresholds": _thresholds_record(extension.thresholds)}


def _context_record(context: TrainedContext | None) -> dict[str, object] | None:
    if context is None:
        return None
    normal = [[asdict(own), asdict(small)] for own, small in context.pairs]
    return {"coreset_sizes": list(context.sizes), "normal": normal}


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _scores_arrays(kind: str, scores: HeldOutScores) -> dict[str, np.ndarray]:
    return {f"{kind}_{name}": getattr(scores, field) for name, field in SCORES.items()}


def _check_folder(folder: Path) -> None:
    """Check that a model may be written to a folder."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise PatchCoreError(f"expected a folder for the trained model, found a file: {existing}")
    if existing != folder:
        return
    if folder.samefile("."):  # this process would be left in a removed folder
        raise PatchCoreError(
            "expected another folder than the current one, which cannot be replaced, found "
            f"{folder}"
        )
    if not (folder / RECORD).is_file() and any(folder.iterdir()):
        raise PatchCoreError(
            f"expected a new folder or a trained model's, found files without {RECORD} in "
            f"{folder}: move them, or give another folder"
        )
