"""A trained model as a folder of plain files: they hold no code, and nothing is executed.

    model.json          format, settings, backbone, training images, thresholds, digests
    model.safetensors   coreset embeddings, indices, origins and crops; the projection; scores
    index.faiss         the embeddings as a flat faiss index for other programs, on request

Other files that somebody adds to the folder stay in it when the model is saved again.

The weights of the backbone are not included: they are loaded by name, and must have the recorded
digest.
"""

import copy
import hashlib
import json
import logging
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

from patchcore.augment import versions_of
from patchcore.backbone import Backbone
from patchcore.certificate import Coverage
from patchcore.context import TrainedContext
from patchcore.coreset import PROJECTION_DIM, projection
from patchcore.distances import BLOCK_ROWS
from patchcore.embedder import grid_of, num_banks_of
from patchcore.ensemble import NormalScores
from patchcore.errors import PatchCoreError
from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.ignored import IgnoreMask
from patchcore.layout import Layout
from patchcore.memory_bank import Coreset, make_bank
from patchcore.nearby import Places, SearchArea
from patchcore.network_input import NetworkInput
from patchcore.origins import Origins
from patchcore.record import FORMAT, FORMAT_VERSION, RECORD, record_digest
from patchcore.settings import PER_LAYER, STORED_DTYPES, Settings, is_own_network
from patchcore.thresholds import BestThresholds, Threshold, Thresholds
from patchcore.trained import Extension, Trained
from patchcore.weights import load_backbone_for

log = logging.getLogger(__name__)

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

log = logging.getLogger(__name__)


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
        _replace_folder(Path(os.path.realpath(folder)), contents)
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


def _read_thresholds(record: Mapping) -> Thresholds:
    kinds = (record[kind] for kind in ("image", "pixel"))
    return Thresholds(*(None if kind is None else Threshold(**kind) for kind in kinds))


def _scores_arrays(kind: str, scores: HeldOutScores) -> dict[str, np.ndarray]:
    return {f"{kind}_{name}": getattr(scores, field) for name, field in SCORES.items()}


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
            f"expected a new folder or a trained model's, found other files in {folder}"
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
    if former.exists():
        _remove_former(former, folder)


def _remove_former(former: Path, folder: Path) -> None:
    """Remove the former model; what else is in its folder moves to the new one."""
    try:
        for path in list(former.iterdir()):
            if path.name in OWN_FILES:
                path.unlink()
            else:
                path.rename(folder / path.name)
        former.rmdir()
    except OSError as error:
        log.warning(
            "the trained model %s is written, but files of the former one are left in %s: %s",
            folder,
            former,
            error.strerror or error,
        )
