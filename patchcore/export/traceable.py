"""A trained PatchCore as one module that exporters can trace: no step depends on input values.

The search of `MemoryBank` skips rows depending on the data. Here all distances are computed, a part
of the bank at a time. Scores and maps equal those of `PatchCore` up to rounding.
"""

import copy

import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from patchcore.backbone import Backbone
from patchcore.embedder import layer_maps
from patchcore.errors import PatchCoreError, first_line
from patchcore.memory_bank import Coreset, torch_nearest
from patchcore.model import PatchCore
from patchcore.scoring import IMAGE_SCORES, ScoredPatches, patch_scores
from patchcore.settings import Settings

# Floats of a block of distances for each image: 16 MB.
BLOCK_FLOATS = 1 << 22
# Candidates in addition to the k nearest. In float32, |c|^2 - 2 x c may order nearly equal
# distances wrongly; the true distances of a few more candidates correct that.
SPARE = 3
# Settings with steps that depend on the values of an image, and why they cannot be exported.
NOT_EXPORTABLE = {
    "context": "the file holds one memory bank",
    "foreground": "which patches belong to the object depends on the image",
    "search_radius": "the file searches the whole memory bank",
    "retrieve_images": "which part of the memory bank is searched depends on the image",
}


class TraceablePatchCore(nn.Module):
    """Maps images to scores and anomaly maps, with the memory bank inside.

    Attributes:
        size: (H, W) in pixels of the images.

    Args:
        model: A model on the CPU, in float32. It is not changed.
        coreset: The coreset to search.

    Raises:
        PatchCoreError: the model is not on the CPU or not in float32, or a step of its backbone
            depends on input values.
    """

    def __init__(self, model: PatchCore, coreset: Coreset):
        super().__init__()
        _check(model)
        self.size = model.preprocess.size_crop
        self.num_patches = model.embedder.patches_per_image
        self.k = model.scorer.k
        self._metric = model.scorer.metric
        self._top_counts = model.scorer.top_counts
        self._image_score = IMAGE_SCORES[model.scorer.image_score]
        self._normalise = model.preprocess.normalise
        self.network = trace(model.backbone)
        self._tiling = model.embedder.tiling
        self._scales = model.embedder.scales
        self.patch_embedding = copy.deepcopy(model.embedder.patch_embedding)
        self.anomaly_map = copy.deepcopy(model.scorer.anomaly_map)
        num_banks = self._metric.num_banks
        embeddings = coreset.bank.embeddings
        banks = [embeddings[bank::num_banks] for bank in range(num_banks)]
        # Centred vectors are shorter, so fewer digits are lost in their products.
        centres = [bank.mean(0) for bank in banks]
        self.register_buffer("centre", torch.cat(centres))  # (L * D,)
        self.banks = nn.ModuleList(
            TraceableBank(bank - centre, self.k, self.num_patches)
            for bank, centre in zip(banks, centres, strict=True)
        )
        if model.scorer.image_score == "reweighted":
            # The b nearest coreset patches of each coreset patch: no search at run time.
            count = min(model.scorer.num_reweight, len(embeddings))
            neighbours = torch_nearest(embeddings, embeddings, count)
            self.register_buffer("neighbourhoods", neighbours)  # (M, b)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict images.

        Args:
            images: (B, 3, H, W) uint8 RGB, resized and cropped.

        Returns:
            ``score`` (B,) and ``anomaly_map`` (B, H, W), float32, in the unit of the distance.
        """
        normalised = self._normalise(images.permute(0, 2, 3, 1))  # (B, 3, H, W) float32
        maps = layer_maps(self.network, normalised, self._tiling, self._scales)
        embeddings = self.patch_embedding(maps)  # (B, h, w, L * D)
        height, width = embeddings.shape[1:3]
        points = self._metric.points(embeddings)
        queries = points.flatten(0, 2) - self.centre  # (B * h * w, L * D)
        parts = zip(self.banks, self._metric.parts(queries), strict=True)
        found = [bank(part) for bank, part in parts]
        euclidean = torch.cat([distances for distances, _ in found], dim=1)  # (B * h * w, L * k)
        scores = patch_scores(self._metric.distances(euclidean)).view(-1, height, width)
        maps = self.anomaly_map(scores)
        patches = ScoredPatches(
            self.anomaly_map.judged_scores(scores),
            maps,
            queries.view(-1, height, width, queries.shape[1]),
            found[0][1].view(-1, height, width),
            self.banks[0].bank,
            self._neighbours,
            self._metric,
            self._top_counts,
        )
        return self._image_score(patches), maps

    def _neighbours(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the coreset patches (B, b) nearest to coreset patches (B,)."""
        return self.neighbourhoods.index_select(0, rows)


class TraceableBank(nn.Module):
    """A bank that is searched in full.

    Attributes:
        bank: (M, D).

    Args:
        embeddings: (M, D), centred.
        k: Number of neighbours.
        num_patches: Number of patches of an image.
    """

    def __init__(self, embeddings: torch.Tensor, k: int, num_patches: int):
        super().__init__()
        self.k, self.num_patches = k, num_patches
        self.register_buffer("bank", embeddings)  # (M, D)
        self.register_buffer("squares", self.bank.square().sum(1))  # (M,)

    def forward(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (Q, k) Euclidean distances, ascending, and (Q,) index of the nearest."""
        candidates = self._candidates(queries)  # (Q, k + SPARE)
        # From the differences, since |x|^2 - 2 x c + |c|^2 loses the digits of small distances.
        distances = torch.stack(
            [
                torch.linalg.vector_norm(self.bank.index_select(0, column) - queries, dim=1)
                for column in candidates.unbind(1)
            ],
            dim=1,
        )
        found, order = distances.topk(self.k, dim=1, largest=False)  # ascending
        return found, candidates.gather(1, order[:, :1])[:, 0]

    def _candidates(self, queries: torch.Tensor) -> torch.Tensor:
        """Return (Q, c) rows of the bank, the nearest up to rounding."""
        count = min(self.k + SPARE, len(self.bank))
        rows = max(count, BLOCK_FLOATS // self.num_patches)
        values, indices = [], []
        for start in range(0, len(self.bank), rows):
            part, squares = self.bank[start : start + rows], self.squares[start : start + rows]
            # Without the query's own square, which is the same for all candidates.
            partial = torch.addmm(squares, queries, part.T, alpha=-2)  # (Q, rows)
            found = partial.topk(min(count, len(part)), dim=1, largest=False)
            values.append(found.values)
            indices.append(found.indices + start)
        if len(values) == 1:
            return indices[0]
        best = torch.cat(values, dim=1).topk(count, dim=1, largest=False).indices
        return torch.cat(indices, dim=1).gather(1, best)


def trace(backbone: Backbone) -> fx.GraphModule:
    """Trace a backbone up to its last layer.

    `Backbone` ends the forward pass by an exception, which exporters do not support.

    Args:
        backbone: On the CPU, in float32. It is not changed.

    Returns:
        A module from (B, 3, H, W) float32 to a tuple of the layers' maps.

    Raises:
        PatchCoreError: a step of the network depends on input values.
    """
    # Contiguous weights: channels-last weights would be exported as views of others.
    backbone = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    backbone.requires_grad_(False)

    def maps(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(backbone.maps(images))

    # Symbolic sizes, so that a reshape by the batch size does not fix it. The batch size is 2,
    # since 0 and 1 would be constants.
    images = torch.zeros(2, 3, *backbone.size)
    try:
        with torch.no_grad():
            return make_fx(maps, tracing_mode="symbolic", _allow_non_fake_inputs=True)(images)
    # A user's network may raise any exception on tensors without values.
    except Exception as error:
        raise PatchCoreError(
            "cannot export this backbone: a step depends on the values of its input "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


def _check(model: PatchCore) -> None:
    if model.device.type != "cpu":
        raise PatchCoreError(
            f"expected a model on the CPU to export, found one on {model.device} (device); the "
            "exported file runs anywhere"
        )
    _check_exportable(model.settings)
    precision = model.settings.precision
    if precision != "float32":
        raise PatchCoreError(
            f"expected a model in float32 to export, found {precision} (precision): other programs "
            "do not reproduce its rounding"
        )


def _check_exportable(settings: Settings) -> None:
    """Raise PatchCoreError for a setting with steps that an exported file cannot express."""
    for name, reason in NOT_EXPORTABLE.items():
        value = getattr(settings, name)
        if value != type(settings).__dataclass_fields__[name].default:
            raise PatchCoreError(
                f"expected a model without {name} to export, found {value} ({name}): {reason}"
            )
