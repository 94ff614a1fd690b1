"""The fit: training images -> coresets with their origins, and scores of held-out images.

The library, the commands and the benchmarks all call `fit`. Embeddings that do not fit into memory
are computed twice: the selections need only their projections (128 numbers a patch), and the second
pass keeps only the rows of selected patches. Both ways give the same results to the last bit.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from patchcore.certificate import Coverage
from patchcore.context import Context, TrainedContext
from patchcore.coreset import alternate, select_sizes
from patchcore.embedder import Embedder
from patchcore.engine import Engine, LocalEngine
from patchcore.ensemble import NormalScores, normal_scores
from patchcore.errors import PatchCoreError
from patchcore.folds import make_folds, score_folds
from patchcore.greedy import centre
from patchcore.held_out import HeldOutScores
from patchcore.judged_patches import num_judged_patches
from patchcore.memory_bank import Coreset
from patchcore.memory_needs import memory_needs
from patchcore.memory_plan import GIGABYTE, MemoryPlan
from patchcore.observer import NO_OBSERVER, Observer
from patchcore.origins import Origins
from patchcore.passes import PatchCropper, Patches, TrainingImages
from patchcore.scoring import Scorer
from patchcore.torch_state import torch_defaults
from patchcore.training_patches import FitRequest, TrainingPatches, coreset_sizes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """Result of a fit.

    Attributes:
        percentages: Shares of the training patches that are not ignored, ascending.
        coresets: Coreset of each seed, for all percentages. Only the first keeps patches' crops.
        held_out: For each percentage, scores of training images by coresets selected without them,
            with the first seed; None if there are too few images or they were not requested.
        normal: By seed, for each percentage, the scores of training patches; empty if not
            requested.
        plan: How the embeddings were kept.
        copies: (N,) int64, the group of copies of each training image; None if held-out scores were
            not requested.
        context: Result for smaller copies of the images; None without these.
    """

    percentages: tuple[float, ...]
    coresets: dict[int, Coreset]
    held_out: tuple[HeldOutScores | None, ...]
    normal: dict[int, list[NormalScores]]
    plan: MemoryPlan
    copies: np.ndarray | None = None
    context: "FitResult | None" = None

    @property
    def first(self) -> Coreset:
        """The coreset of the first seed."""
        return next(iter(self.coresets.values()))

    def context_of(self, seed: int) -> TrainedContext | None:
        """Return what a seed has learned of smaller copies of the images; None without these."""
        if self.context is None:
            return None
        coreset = self.context.coresets[seed]
        pairs = zip(self.normal[seed], self.context.normal[seed], strict=True)
        return TrainedContext(coreset.bank, coreset.sizes, tuple(pairs))

    def of_first_seed(self) -> "FitResult":
        """Return the result of the first seed alone."""
        coreset, small = self.first, self.context
        return replace(
            self,
            coresets={coreset.seed: coreset},
            normal={seed: self.normal[seed] for seed in self.normal if seed == coreset.seed},
            context=None if small is None else small.of_first_seed(),
        )

    def with_context(self, context: "FitResult") -> "FitResult":
        """Add the result for smaller copies of the images, and join the held-out scores."""
        result = replace(self, context=context)
        trained = result.context_of(next(iter(self.coresets)))
        pairs = zip(self.held_out, context.held_out, strict=True)
        held_out = (trained.join_held_out(part, *pair) for part, pair in enumerate(pairs))
        return replace(result, held_out=tuple(held_out))


@torch_defaults()
@torch.inference_mode()
def fit(
    embedder: Embedder,
    scorer: Scorer,
    images: TrainingImages,
    request: FitRequest,
    observer: Observer = NO_OBSERVER,
    engine: Engine | None = None,
    context: Context | None = None,
) -> FitResult:
    """Learn what is normal.

    Args:
        embedder: Embeds the training images.
        scorer: Scores held-out images.
        images: The training images.
        request: Results to compute.
        observer: Observes the stages.
        engine: Where the patches are embedded and selected; None for this process.
        context: Embeds and scores smaller copies of the images, for a second bank; None for none.

    Raises:
        PatchCoreError: there is no image; a percentage of the patches is too few for the
            scores; the memory is too small; or an image has changed between the two passes.
    """
    if not len(images):
        raise PatchCoreError("expected at least one training image, found none")
    engine = engine or LocalEngine()
    check_sizes(embedder, scorer, context, len(images), request.percentages)
    if context is not None:
        request = replace(request, normal=True)  # to join scores of different units
    size = len(images), images.batch_size
    training = TrainingPatches.of(embedder, scorer, *size, request)
    large = _fit_bank(training, images, observer, engine)
    if context is None:
        return large
    budget = request.memory_budget
    if budget:  # the first coresets are kept meanwhile
        kept = sum(coreset.bank.embeddings.nbytes for coreset in large.coresets.values())
        budget = max(budget - kept / GIGABYTE, 1e-9)
    request = replace(request, patches=False, memory_budget=budget)
    training = TrainingPatches.of(context.embedder, context.scorer, *size, request)
    small = _fit_bank(training, context.images(images), observer, engine, large.copies)
    return large.with_context(small)


def check_sizes(
    embedder: Embedder,
    scorer: Scorer,
    context: Context | None,
    num_images: int,
    percentages: Sequence[float],
) -> None:
    """Raise PatchCoreError if a percentage of the training patches is too few for the scores."""
    coreset_sizes(num_judged_patches(embedder, scorer, num_images), percentages, scorer)
    if context is None:
        return
    num_small = num_judged_patches(context.embedder, context.scorer, num_images)
    try:
        coreset_sizes(num_small, percentages, scorer)
    except PatchCoreError as error:
        raise PatchCoreError(f"in the smaller images (context): {error}") from error


def _fit_bank(
    training: TrainingPatches,
    images: TrainingImages,
    observer: Observer,
    engine: Engine,
    copies: np.ndarray | None = None,
) -> FitResult:
    """Fit one bank, or those of all layers, to images of one size.

    Args:
        training: The training patches.
        images: The training images.
        observer: As for `fit`.
        engine: As for `fit`.
        copies: (N,) int64, the group of copies of each image; None to find copies.
    """
    request, device = training.request, training.embedder.device
    plan = engine.plan(memory_needs(training), request.memory_budget, device)
    if plan.passes > 1:
        log.info("memory is short: %s", plan.describe())
    else:
        log.debug(
            "%s; %d patches, coresets of %s", plan.describe(), training.num_judged, training.sizes
        )
    with closing(engine.embed(training, images, plan, observer)) as patches:
        if request.held_out and copies is None:
            copies = training.order.groups_of_copies(patches.digests)
        return _learn(training, patches, copies, tuple(images.names), plan, observer)


def _learn(
    training: TrainingPatches,
    patches: Patches,
    copies: np.ndarray | None,
    names: tuple[str, ...],
    plan: MemoryPlan,
    observer: Observer,
) -> FitResult:
    """Select coresets among embedded patches, and score held-out images."""
    embedder, scorer, request = training.embedder, training.scorer, training.request
    first_seed = request.seeds[0]
    samples, folds = training.samples(), make_folds(training, copies)
    selected, coverage = _select_coresets(training, patches, observer)
    fold_selections = [fold.select(patches, first_seed) for fold in folds]
    patches.free_projections()

    cropper = PatchCropper(selected[first_seed], embedder) if request.patches else None
    scored = [fold.patches.ravel() for fold in folds]
    needed = np.concatenate([*selected.values(), *fold_selections, *scored, *samples.values()])
    rows, features = patches.rows(needed, cropper), patches.features
    coresets = {
        seed: Coreset(
            indices,
            tuple(scorer.metric.num_banks * size for size in training.sizes),
            scorer.make_bank(rows.take(indices), indices, features),
            seed,
            Origins.locate(indices, embedder.grid, training.order, names, embedder.versions),
            cropper.patches if cropper is not None and seed == first_seed else None,
            coverage[seed],
        )
        for seed, indices in selected.items()
    }
    _log_widened(coresets[first_seed], scorer)
    held_out = score_folds(training, folds, fold_selections, rows, features)
    normal = {}
    for seed, sample in samples.items():
        with observer.stage("normalise", seed):
            normal[seed] = normal_scores(rows.take(sample), sample, coresets[seed], scorer)
    return FitResult(request.percentages, coresets, held_out, normal, plan, copies)


def _select_coresets(
    training: TrainingPatches, patches: Patches, observer: Observer
) -> tuple[dict[int, np.ndarray], dict[int, tuple[Coverage, ...]]]:
    """Select the largest coreset of each seed from its projections, which are centred in place.

    Returns:
        The selected patches of each seed; how well each size covers all patches, in the first bank.
    """
    selected, coverage = {}, {}
    for seed in training.request.seeds:
        found = []
        for shards in patches.shards(seed, training.judged):
            with observer.selection(seed, training.sizes) as progress:
                centre(shards, seed)
                found.append(select_sizes(shards, training.sizes, seed=seed, progress=progress))
        selected[seed] = alternate(found, training.judged)
        coverage[seed] = found[0].coverage
    return selected, coverage


def _log_widened(coreset: Coreset, scorer: Scorer) -> None:
    """Report positions that are compared with patches beyond the search radius."""
    for size in coreset.sizes:
        area = coreset.bank.first(size).area
        count = 0 if area is None else area.num_widened(scorer.grid, scorer.k)
        if count:
            log.info(
                "%d of %d positions have fewer than k = %d of %d coreset patches within the search "
                "radius %d; these use the smallest radius with k patches (--search_radius, "
                "--percentage_coreset)",
                count,
                scorer.grid[0] * scorer.grid[1],
                scorer.k,
                size,
                area.radius,
            )
