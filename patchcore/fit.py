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

from patchcore.certificate import Cover
from patchcore.context import Context, TrainedContext
from patchcore.coreset import Selection, select_sizes
from patchcore.embedder import Embedder
from patchcore.engine import EmbeddingRequest, Engine, LocalEngine
from patchcore.ensemble import NUM_SAMPLES, NormalScores, draw_sample, normal_scores
from patchcore.errors import PatchCoreError
from patchcore.explain import cut_size
from patchcore.greedy import centre
from patchcore.held_out import Folds, HeldOutCollector, HeldOutScores
from patchcore.judged_patches import judged_patches, num_judged_patches
from patchcore.memory_bank import Bank, Coreset, make_bank
from patchcore.memory_plan import GIGABYTE, MemoryPlan, Needs
from patchcore.observer import NO_OBSERVER, Observer
from patchcore.origins import EmbeddingOrder, Origins
from patchcore.passes import (
    EmbeddingRows,
    PatchCutter,
    Patches,
    TrainingImages,
)
from patchcore.scoring import Scorer

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


@dataclass(frozen=True)
class FitRequest:
    """Results to compute in a fit.

    Attributes:
        percentages: Shares of the training patches to select, ascending, in (0, 1].
        seeds: Seeds of the selections, without duplicates.
        held_out: Whether to score held-out images, for thresholds.
        patches: Whether to keep the crops of the coreset's patches.
        normal: Whether to measure the scores of training patches, for ensembles.
        memory_budget: Gigabytes for embeddings, selections and coresets; 0 for
            most of what is free.
    """

    percentages: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    held_out: bool = True
    patches: bool = True
    normal: bool = False
    memory_budget: float = 0.0


def coreset_sizes(num_patches: int, percentages: Sequence[float], k: int) -> tuple[int, ...]:
    """Return the coreset size of each percentage: int(N * percentage), as in the paper's code.

    Raises:
        PatchCoreError: a size is smaller than k.
    """
    sizes = tuple(int(num_patches * percentage) for percentage in percentages)
    if sizes[0] < max(k, 1):
        raise PatchCoreError(
            f"expected at least k = {k} patches in the coreset, found {sizes[0]}: "
            f"{percentages[0]:g} of {num_patches} training patches (percentage_coreset, k)"
        )
    return sizes


def memory_needs(
    embedder: Embedder, scorer: Scorer, num_images: int, batch_size: int, request: FitRequest
) -> Needs:
    """Return what a fit to ``num_images`` different images keeps in memory, before it is made.

    Raises:
        PatchCoreError: a percentage of the patches is fewer than k.
    """
    order = EmbeddingOrder.of(num_images, len(embedder.versions), batch_size)
    num_patches = num_judged_patches(embedder, scorer, num_images)
    sizes = coreset_sizes(num_patches, request.percentages, scorer.k)
    judged = judged_patches(embedder, scorer, order)
    folds = _make_folds(embedder, scorer, order, request, np.arange(num_images), judged)
    return _needs(embedder, request, len(order), sizes, folds)


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
        PatchCoreError: there is no image; a percentage of the patches is fewer than k; the
            memory is too small; or an image has changed between the two passes.
    """
    if not len(images):
        raise PatchCoreError("expected at least one training image, found none")
    engine = engine or LocalEngine()
    check_sizes(embedder, scorer, context, len(images), request.percentages)
    if context is None:
        return _fit_bank(embedder, scorer, images, request, observer, engine)
    request = replace(request, normal=True)  # to join scores of different units
    large = _fit_bank(embedder, scorer, images, request, observer, engine)
    budget = request.memory_budget
    if budget:  # the first coresets are kept meanwhile
        kept = sum(coreset.bank.embeddings.nbytes for coreset in large.coresets.values())
        budget = max(budget - kept / GIGABYTE, 1e-9)
    small = _fit_bank(
        context.embedder,
        context.scorer,
        context.images(images),
        replace(request, patches=False, memory_budget=budget),
        observer,
        engine,
        large.copies,
    )
    return large.with_context(small)


def check_sizes(
    embedder: Embedder,
    scorer: Scorer,
    context: Context | None,
    num_images: int,
    percentages: Sequence[float],
) -> None:
    """Raise PatchCoreError if a percentage of the training patches is fewer than k."""
    coreset_sizes(num_judged_patches(embedder, scorer, num_images), percentages, scorer.k)
    if context is None:
        return
    num_small = num_judged_patches(context.embedder, context.scorer, num_images)
    try:
        coreset_sizes(num_small, percentages, scorer.k)
    except PatchCoreError as error:
        raise PatchCoreError(f"in the smaller images (context): {error}") from error


def _fit_bank(
    embedder: Embedder,
    scorer: Scorer,
    images: TrainingImages,
    request: FitRequest,
    observer: Observer,
    engine: Engine,
    copies: np.ndarray | None = None,
) -> FitResult:
    """Fit one bank, or those of all layers, to images of one size.

    Args:
        embedder: As for `fit`, like the others.
        scorer: Scores held-out images.
        images: The training images.
        request: Results to compute.
        observer: Observes the stages.
        engine: Where the patches are embedded and selected.
        copies: (N,) int64, the group of copies of each image; None to find copies.
    """
    order = EmbeddingOrder.of(len(images), len(embedder.versions), images.batch_size)
    num_patches = num_judged_patches(embedder, scorer, len(images))
    sizes = coreset_sizes(num_patches, request.percentages, scorer.k)
    judged = judged_patches(embedder, scorer, order)
    # The plan counts on different images: copies are known after the first pass.
    folds = _make_folds(embedder, scorer, order, request, np.arange(len(images)), judged)
    needs = _needs(embedder, request, len(order), sizes, folds)
    plan = engine.plan(needs, request.memory_budget, embedder.device)
    if plan.passes > 1:
        log.info("memory is short: %s", plan.describe())
    else:
        log.debug("%s; %d patches, coresets of %s", plan.describe(), num_patches, sizes)

    embedding = EmbeddingRequest(
        embedder,
        scorer,
        images,
        judged,
        request.seeds,
        observer,
        plan,
        with_digests=request.held_out,
        keep_images=request.patches,
    )
    with closing(engine.embed(embedding)) as patches:
        return _learn(patches, embedding, request, order, copies)


def _learn(
    patches: Patches,
    embedding: EmbeddingRequest,
    request: FitRequest,
    order: EmbeddingOrder,
    copies: np.ndarray | None,
) -> FitResult:
    """Select coresets among embedded patches, and score held-out images."""
    embedder, scorer, judged = embedding.embedder, embedding.scorer, embedding.judged
    observer, names = embedding.observer, tuple(embedding.images.names)
    num_images = len(embedding.images)
    num_patches = num_judged_patches(embedder, scorer, num_images)
    sizes = coreset_sizes(num_patches, request.percentages, scorer.k)
    first_seed = request.seeds[0]
    samples = _draw_samples(num_patches, judged, request.seeds if request.normal else ())
    if request.held_out and copies is None:
        copies = order.groups_of_copies(patches.digests)
    folds = _make_folds(embedder, scorer, order, request, copies, judged)
    selected, covers = _select_coresets(patches, request.seeds, sizes, judged, observer)
    fold_selections = _select_folds(patches, first_seed, folds)
    patches.free_projections()

    cutter = PatchCutter(selected[first_seed], embedder) if request.patches else None
    scored = [fold.patches for fold in folds]
    needed = np.concatenate([*selected.values(), *fold_selections, *scored, *samples.values()])
    rows, features = patches.rows(needed, cutter), patches.features
    coresets = {
        seed: Coreset(
            indices,
            tuple(scorer.metric.num_banks * size for size in sizes),
            _make_bank(rows, indices, scorer, features),
            seed,
            Origins.locate(indices, embedder.grid, order, names, embedder.versions),
            cutter.patches if cutter is not None and seed == first_seed else None,
            covers[seed],
        )
        for seed, indices in selected.items()
    }
    _log_widened(coresets[first_seed], scorer)
    held_out = _score_held_out(embedder, scorer, rows, features, folds, fold_selections, len(sizes))
    normal = {}
    for seed, sample in samples.items():
        with observer.stage("normalise", seed):
            normal[seed] = normal_scores(rows.take(sample), sample, coresets[seed], scorer)
    return FitResult(request.percentages, coresets, held_out, normal, embedding.plan, copies)


@dataclass(frozen=True)
class _Fold:
    """Fold of images that are scored by a coreset of the other folds.

    Attributes:
        images: (n,) int64, training images to score.
        patches: (n * h * w,) int64, the numbers of their patches.
        candidates: (N,) bool, the judged patches of the other folds.
        sizes: Coreset sizes of the percentages, ascending, of each bank.
    """

    images: np.ndarray
    patches: np.ndarray
    candidates: torch.Tensor
    sizes: tuple[int, ...]


def _draw_samples(
    num_patches: int, judged: torch.Tensor | None, seeds: Sequence[int]
) -> dict[int, np.ndarray]:
    """Return the numbers of the training patches for `normal_scores`, by seed."""
    samples = {seed: draw_sample(num_patches, seed) for seed in seeds}
    if judged is None:
        return samples
    numbers = np.flatnonzero(judged.cpu().numpy())
    return {seed: numbers[sample] for seed, sample in samples.items()}


def _select_coresets(
    patches: Patches,
    seeds: Sequence[int],
    sizes: Sequence[int],
    judged: torch.Tensor | None,
    observer: Observer,
) -> tuple[dict[int, np.ndarray], dict[int, tuple[Cover, ...]]]:
    """Select the largest coreset of each seed from its projections, which are centred in place.

    Returns:
        The selected patches of each seed; how well each size covers all patches, in the first bank.
    """
    selected, covers = {}, {}
    for seed in seeds:
        found = []
        for shards in patches.shards(seed, judged):
            with observer.selection(seed, sizes) as progress:
                centre(shards, seed)
                found.append(select_sizes(shards, sizes, seed=seed, progress=progress))
        selected[seed] = _in_turn(found, judged)
        covers[seed] = found[0].covers
    return selected, covers


def _select_folds(patches: Patches, seed: int, folds: Sequence[_Fold]) -> list[np.ndarray]:
    """Select the largest coreset of the other folds, for each fold."""
    selections = []
    for fold in folds:
        banks = patches.shards(seed, fold.candidates)
        found = [select_sizes(shards, fold.sizes, seed=seed) for shards in banks]
        selections.append(_in_turn(found, fold.candidates))
    return selections


def _in_turn(selections: Sequence[Selection], candidates: torch.Tensor | None) -> np.ndarray:
    """Return the patches (M,) of each of L banks in turn, (M * L,), as `LayeredBank` has them.

    Args:
        selections: The selection of each bank, by number of the candidate.
        candidates: (N,) bool, the patches to select from; None for all.
    """
    numbers = np.stack([selection.numbers for selection in selections], axis=1).ravel()
    return numbers if candidates is None else np.flatnonzero(candidates.cpu().numpy())[numbers]


def _make_bank(
    rows: EmbeddingRows, indices: np.ndarray, scorer: Scorer, features: torch.Tensor | None
) -> Bank:
    """Return the bank of selected patches (M * L,), those of the banks in turn."""
    num_banks = scorer.metric.num_banks
    points = scorer.metric.points(rows.take(indices))
    area = scorer.area_of(indices, features, points.device)
    if num_banks == 1:
        return make_bank(points, area=area)
    bank_of_row = torch.arange(len(points), device=points.device) % num_banks
    parts = torch.stack(scorer.metric.parts(points), dim=1)  # (M * L, L, D)
    return make_bank(parts[torch.arange(len(points)), bank_of_row], num_banks, area)


def _log_widened(coreset: Coreset, scorer: Scorer) -> None:
    """Report positions that are compared with patches beyond the search radius."""
    for size in coreset.sizes:
        area = coreset.bank.first(size).area
        count = 0 if area is None else area.num_widened(scorer.grid, scorer.k)
        if count:
            log.info(
                "%d of %d positions have fewer than k = %d of %d coreset patches within the search "
                "radius %d and use the smallest one with k (--search_radius, "
                "--percentage_coreset)",
                count,
                scorer.grid[0] * scorer.grid[1],
                scorer.k,
                size,
                area.radius,
            )


def _make_folds(
    embedder: Embedder,
    scorer: Scorer,
    order: EmbeddingOrder,
    request: FitRequest,
    groups: np.ndarray | None,
    judged: torch.Tensor | None,
) -> list[_Fold]:
    """Return the folds to score; none if the other folds have too few patches.

    ``groups`` (N,) int64 is the group of copies of each training image; ``judged`` tells which
    training patches are not ignored, None if none is.
    """
    if not request.held_out:
        return []
    per_image = embedder.patches_per_image
    folds = Folds(groups, request.seeds[0])
    unchanged = np.flatnonzero(order.versions == 0)  # (num_images,) in the order of embedding
    made = []
    for number in folds.needed():
        others = folds.fold_of_image[order.images] != number
        candidates = torch.from_numpy(np.repeat(others, per_image)).to(embedder.device)
        if judged is not None:
            candidates &= judged
        try:
            sizes = coreset_sizes(int(candidates.sum()), request.percentages, scorer.k)
        except PatchCoreError:
            return []
        images = folds.scored_images(number)
        patches = unchanged[images][:, None] * per_image + np.arange(per_image)
        made.append(_Fold(images, patches.ravel(), candidates, sizes))
    return made


def _needs(
    embedder: Embedder,
    request: FitRequest,
    num_embedded: int,
    sizes: Sequence[int],
    folds: Sequence[_Fold],
) -> Needs:
    """Return what the fit keeps in memory."""
    size = embedder.preprocess.size_crop
    piece = cut_size(embedder.grid, size)
    # Images and their crops stay in the host's memory; for a GPU, the plan covers its own memory.
    keeps_images = request.patches and embedder.device.type == "cpu"
    sampled = NUM_SAMPLES * len(request.seeds) if request.normal else 0
    return Needs(
        num_images=num_embedded,
        patches_per_image=embedder.patches_per_image,
        embed_dim=embedder.embed_dim,
        coreset_sizes=(sizes[-1],) * (len(request.seeds) * embedder.num_banks),
        fold_sizes=tuple(fold.sizes[-1] for fold in folds for _ in range(embedder.num_banks)),
        scored_patches=sum(len(fold.patches) for fold in folds) + sampled,
        image_bytes=3 * size[0] * size[1] if keeps_images else 0,
        patch_bytes=3 * piece[0] * piece[1] if keeps_images else 0,
        num_banks=embedder.num_banks,
    )


def _score_held_out(
    embedder: Embedder,
    scorer: Scorer,
    rows: EmbeddingRows,
    features: torch.Tensor | None,
    folds: Sequence[_Fold],
    selections: Sequence[np.ndarray],
    num_percentages: int,
) -> tuple[HeldOutScores | None, ...]:
    """Score the images of each fold by the coreset of the other folds."""
    collector = HeldOutCollector(scorer, embedder.preprocess.size_crop, num_percentages)
    for fold, indices in zip(folds, selections, strict=True):
        patches_of = fold.patches.reshape(len(fold.images), -1)

        def embeddings_of(batch: slice, patches_of: np.ndarray = patches_of) -> torch.Tensor:
            taken = rows.take(patches_of[batch].ravel())
            return taken.view(-1, *embedder.grid, taken.shape[1])

        bank = _make_bank(rows, indices, scorer, features)
        sizes = [scorer.metric.num_banks * size for size in fold.sizes]
        collector.add(bank, sizes, fold.images, embeddings_of)
    return collector.finish()
