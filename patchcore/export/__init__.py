"""A trained PatchCore as one file that runs without this package: ONNX, or torch's own format."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from patchcore.errors import PatchCoreError, first_line
from patchcore.export.formats import FORMATS, INPUT, OUTPUTS, FileFormat, Runner
from patchcore.export.traceable import TraceablePatchCore
from patchcore.images import each_image
from patchcore.memory_bank import Coreset
from patchcore.model import PatchCore
from patchcore.torch_state import torch_defaults
from patchcore.version import VERSION

# Largest difference of a score, or of a map's values, from the model's, relative to the score or
# the map's largest value.
TOLERANCE = 1e-4
# Differences are relative to at least this share of the embeddings' length: a distance of zero has
# no relative error, and rounding errors grow with the length.
MIN_SCORE = 0.1
# Sizes of the batches that are compared, in turn: an exporter may have fixed one size.
BATCH_SIZES = (1, 3)
NUM_NOISE = 4


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: The file.
        num_bytes: Size of the file.
        num_images: Number of images, including noise, on which the outputs were compared.
        difference: The largest difference, relative as described at `TOLERANCE`.
    """

    path: Path
    num_bytes: int
    num_images: int
    difference: float


@torch_defaults()
def export(
    model: PatchCore,
    path: str | Path,
    file_format: str = "onnx",
    *,
    images: Iterable = (),
    percentage: float | None = None,
) -> Exported:
    """Write a model to one file, and compare the outputs of the file with those of the model.

    The input is ``images``, (B, 3, *size_crop) uint8 RGB, already resized and cropped; the outputs
    are ``score`` (B,) and ``anomaly_map`` (B, *size_crop), float32. B is free. The file describes
    its use in its metadata: those of ONNX, or torch's extra file ``metadata.json``.

    Args:
        model: A fitted model on the CPU, in float32.
        path: The file to write. It appears only once it is complete and its outputs were compared.
        file_format: ``onnx``, or ``torch`` for `torch.export.load`.
        images: Images of any size to compare on, in the forms that `PatchCore.fit` takes. An image
            of noise, which has large distances, is added; several if there is no other image.
        percentage: Percentage of the coreset in the file; None for the largest.

    Raises:
        PatchCoreError: the model cannot be written in this format, a package is missing, the file
            cannot be written, or its scores differ from the model's.
    """
    path = Path(path)
    if file_format not in FORMATS:
        raise PatchCoreError(f"expected format {' or '.join(FORMATS)}, found {file_format!r}")
    chosen = FORMATS[file_format]
    if path.suffix != chosen.suffix:
        raise PatchCoreError(
            f"expected a file name that ends with {chosen.suffix} for the format {file_format}, "
            f"found {path.name!r}"
        )
    chosen.check_packages()
    coreset = _coreset(model, percentage)
    traceable = TraceablePatchCore(model, coreset).eval().requires_grad_(False)
    chosen.check_size(traceable)
    crops = [model.crop(image) for image in each_image(images)]
    crops += _noise(model.preprocess.size_crop, 1 if crops else NUM_NOISE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            unproven = Path(folder) / f"model{chosen.suffix}"
            _write(traceable, chosen, unproven, _describe(model, coreset))
            difference = compare(_load(chosen, unproven), model, coreset, crops)
            unproven.replace(path)
    except OSError as error:
        raise PatchCoreError(f"cannot write {path}: {error.strerror or error}") from error
    return Exported(path, path.stat().st_size, len(crops), difference)


def compare(run: Runner, model: PatchCore, coreset: Coreset, crops: Sequence[np.ndarray]) -> float:
    """Compare an exported file with its model.

    Args:
        run: Runs the file.
        model: The model.
        coreset: The coreset in the file.
        crops: Images, each (*size_crop, 3) uint8 RGB.

    Returns:
        The largest relative difference, at most `TOLERANCE`.

    Raises:
        PatchCoreError: the difference is larger, or the file does not run on batches of several
            sizes.
    """
    min_score = MIN_SCORE * float(coreset.bank.embeddings.norm(dim=1).mean())
    differences = []
    for batch in _batches(crops):
        embeddings = model.embedder.embed(batch)
        *_, expected = model.scorer.predict(embeddings, coreset.bank, coreset.sizes)
        try:
            score, anomaly_map = run(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
        # Each runtime has its own exceptions.
        except Exception as error:
            raise PatchCoreError(
                f"the exported file does not run on {len(batch)} images: {first_line(error)}"
            ) from error
        for name, found, wanted in (
            ("score", score, expected.score.numpy()),
            ("anomaly_map", anomaly_map, expected.anomaly_map.numpy()),
        ):
            if found.shape != wanted.shape:
                raise PatchCoreError(
                    f"expected the exported file to give {name} of shape {wanted.shape}, found "
                    f"{found.shape}"
                )
            differences.append(_difference(found, wanted, min_score))
    largest = float(np.max(differences))  # undefined if one is
    if not largest <= TOLERANCE:
        raise PatchCoreError(
            f"expected the scores and maps of the exported file to equal the model's up to "
            f"{TOLERANCE:g}, found a difference of {largest:.2g}; the file was not kept"
        )
    return largest


def _coreset(model: PatchCore, percentage: float | None) -> Coreset:
    """Return a model's coreset of one percentage; None means the largest."""
    if model.coreset is None:
        raise PatchCoreError("expected a fitted PatchCore to export: call fit or load first")
    percentage = model.percentages[-1] if percentage is None else percentage
    if percentage not in model.percentages:
        raise PatchCoreError(
            f"expected one of the model's percentages {', '.join(map(str, model.percentages))}, "
            f"found {percentage:g} (percentage_coreset)"
        )
    return model.coreset.part(model.percentages.index(percentage))


def _write(
    traceable: TraceablePatchCore, chosen: FileFormat, path: Path, description: dict[str, object]
) -> None:
    """Trace the module and write it."""
    try:
        chosen.write(_trace(traceable), path, description)
    except OSError:
        raise
    # Exporters have their own exceptions for what they cannot express.
    except Exception as error:
        raise PatchCoreError(
            f"cannot export this model to {chosen.suffix}: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


def _trace(traceable: TraceablePatchCore) -> ExportedProgram:
    # 2 images, since 0 and 1 would be constants.
    images = torch.zeros(2, 3, *traceable.size, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(
            traceable, (images,), dynamic_shapes=({0: Dim("batch")},), strict=False
        )
    for node in program.graph.nodes:  # keeps paths of this machine out of the file
        node.meta.pop("stack_trace", None)
    return program


def _load(chosen: FileFormat, path: Path) -> Runner:
    try:
        return chosen.load(path)
    # Each runtime has its own exceptions.
    except Exception as error:
        raise PatchCoreError(f"cannot read the exported file: {first_line(error)}") from error


def _noise(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Draw images of noise, each (*size, 3) uint8, the same at every call."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def _batches(crops: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield batches of `BATCH_SIZES` in turn; the last one is filled up with the first images."""
    start, turn = 0, 0
    while start < len(crops) or turn < len(BATCH_SIZES):
        size = BATCH_SIZES[turn % len(BATCH_SIZES)]
        yield np.stack([crops[i % len(crops)] for i in range(start, start + size)])
        start, turn = start + size, turn + 1


def _difference(found: np.ndarray, wanted: np.ndarray, min_score: float) -> float:
    """Return the largest difference of a batch, each image's relative to its largest value."""
    rows, expected = found.reshape(len(found), -1), wanted.reshape(len(wanted), -1)
    size = np.maximum(np.abs(expected).max(1), min_score)
    return float((np.abs(rows - expected).max(1) / size).max())


def _describe(model: PatchCore, coreset: Coreset) -> dict[str, object]:
    """Describe how to use the file, in values that JSON can store."""
    preprocess = model.preprocess
    crop = preprocess.size_crop
    score, anomaly_map = OUTPUTS
    description = {
        "method": "PatchCore (Roth et al. 2022, arXiv 2106.08265)",
        "category": model.trained.category,
        "input": f"{INPUT} (B, 3, {crop[0]}, {crop[1]}) uint8 RGB: {preprocess.describe()}; the "
        f"file itself normalises by mean and std",
        "output": f"{score} (B,) float32; {anomaly_map} (B, {crop[0]}, {crop[1]}) float32; both in "
        "the unit of the distance, 0 for patches of the memory bank" + _describe_ignored(model),
        "mean": preprocess.mean,
        "std": preprocess.std,
        "backbone": model.backbone.name,
        "layers": model.backbone.layers,
        "weights_digest": model.backbone.digest(),
        "licence": model.backbone.licence,
        "num_coreset": len(coreset.bank),
        "patchcore_version": VERSION,
    }
    if len(coreset.bank) == len(model.coreset.bank):  # thresholds are those of the largest coreset
        thresholds = {"image": model.thresholds.image, "pixel": model.thresholds.pixel}
        description |= {f"threshold_{kind}": t.value for kind, t in thresholds.items() if t}
    size = model.coreset.sizes.index(len(coreset.bank))
    return description | model.settings.as_json() | {"percentage_coreset": model.percentages[size]}


def _describe_ignored(model: PatchCore) -> str:
    ignored = model.scorer.ignored
    if ignored is None:
        return ""
    return (
        f"; {ignored.pixels.mean():.1%} of the pixels are ignored, as at training: they are 0 in "
        "the map and take no part in the score"
    )
