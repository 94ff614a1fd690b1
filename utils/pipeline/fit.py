"""From a category's training images to its coresets."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from datasets.base import Category, Sample
from datasets.images import in_batches, map_ahead, read_image
from patchcore import PatchCore, explain
from patchcore.embedded_origins import Origins, OriginsOfBatches
from patchcore.ensemble import NormalScores, draw_sample, normal_scores
from patchcore.held_out import HeldOutScores, held_out_scores, scores_without_own_patches
from patchcore.memory_bank import Coreset
from patchcore.memory_plan import ComposableSelection, MemoryPlan, Needs, plan_memory
from patchcore.prediction import Collector
from utils.machine import free_memory
from utils.options import Options
from utils.progress import show_progress
from utils.stopwatch import Clock, Stopwatch

# Of the memory that is free: the rest is for the backbone, the pictures and everybody else.
SHARE_OF_FREE_MEMORY = 0.7

log = logging.getLogger(__name__)


@dataclass
class Cell:
    """One seed and percentage: what measuring it needs and collects.

    Attributes:
        coreset: The seed's, for all percentages.
        percentage: This cell's.
        watch: What this cell alone needed.
        normal: How training patches score; None where nothing asks for it.
        collector: Takes the scores, batch by batch.
    """

    coreset: Coreset
    percentage: float
    watch: Stopwatch
    normal: NormalScores | None = None
    collector: Collector = field(default_factory=Collector)


@dataclass(frozen=True)
class Learned:
    """What a category's training images have become.

    Attributes:
        cells: Seed by seed, each with the percentages ascending.
        coreset_patches: (M, ph, pw, 3) uint8, what each patch of the first seed's coreset looks
            like; None where neither pictures nor a trained model are wanted.
        plan: How the embeddings were kept.
        origins: Of the embedded images, by number of the training image.
        held_out: For each percentage of the first seed, how normal images score that the bank has
            not seen; Nones where no trained model is wanted or there are too few images.
    """

    cells: list[Cell]
    coreset_patches: np.ndarray | None
    plan: MemoryPlan
    origins: Origins
    held_out: Sequence[HeldOutScores | None]


def learn(
    model: PatchCore,
    category: Category,
    options: Options,
    shared: Stopwatch,
) -> Learned:
    """Embed a category's training images and select a coreset for each seed.

    Args:
        model: The method, with its backbone.
        category: Its samples.
        options: The run's.
        shared: Counts what all cells need; they have its clock.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for what was asked, or too large for the memory.
    """
    plan = plan_memory(
        num_images=len(category.train) * model.augmentation,
        patches_per_image=model.patches_per_image,
        embed_dim=options.embed_dim,
        largest_percentage=model.percentages[-1],
        num_seeds=len(set(options.seed)),
        budget=options.memory_budget or SHARE_OF_FREE_MEMORY * free_memory(model.device),
        needs=_needs(model, options),
    )
    if plan.dtype != torch.float32:
        log.warning("%s: memory is short: %s", category.name, plan.describe())
    if plan.is_plain:
        return _learn_at_once(model, category, options, plan, shared)
    return _learn_in_parts(model, category, options, plan, shared)


def _needs(model: PatchCore, options: Options) -> Needs:
    """Return what is kept beside embeddings, in the memory that holds them."""
    held_out = options.needs_held_out_scores
    if model.device.type != "cpu" or not _keeps_images(options):
        return Needs(held_out=held_out)  # images stay in the host's memory
    height, width = model.preprocess.size_crop
    piece = explain.cut_size(model.grid, (height, width))
    return Needs(3 * height * width, 3 * piece[0] * piece[1], held_out)


def _keeps_images(options: Options) -> bool:
    """Tell whether pictures or a trained model need the cropped training images."""
    return options.pictures != "none" or options.saves_models


def _learn_at_once(
    model: PatchCore,
    category: Category,
    options: Options,
    plan: MemoryPlan,
    shared: Stopwatch,
) -> Learned:
    collected = OriginsOfBatches()
    embeddings, images = _embed(
        model, category, 0, category.train, options, plan, shared, collected
    )
    origins = collected.finish()
    cells = []
    for seed in dict.fromkeys(options.seed):
        of_seed = _select(model, category, embeddings, seed, shared.clock)
        if len(options.backbone) > 1:
            sample = draw_sample(len(embeddings), seed)
            queries = embeddings[torch.from_numpy(sample).to(embeddings.device)].float()
            _normalise(of_seed, queries, sample, model.k)
        cells.extend(of_seed)
    patches = None
    if images is not None:
        patches = _cut(model, images, cells[0].coreset.indices)
    held_out: Sequence[HeldOutScores | None] = [None] * len(model.percentages)
    if options.needs_held_out_scores:
        held_out = held_out_scores(model, embeddings, origins, cells[0].coreset.seed)
    return Learned(cells, patches, plan, origins, held_out)


def _learn_in_parts(
    model: PatchCore,
    category: Category,
    options: Options,
    plan: MemoryPlan,
    shared: Stopwatch,
) -> Learned:
    """Select from the selections of a few images at a time."""
    num_patches = plan.num_images * model.patches_per_image
    sizes = model.sizes_of_coresets(num_patches)
    seeds = list(dict.fromkeys(options.seed))
    selections = {seed: ComposableSelection(num_patches, sizes, seed) for seed in seeds}
    samples = {seed: np.sort(draw_sample(num_patches, seed)) for seed in seeds}
    queries: dict[int, list[torch.Tensor]] = {seed: [] for seed in seeds}
    watch = Stopwatch(shared.clock)
    patches: list[np.ndarray] = []
    first = 0
    per_part = max(1, plan.images_per_part // model.augmentation)
    collected = OriginsOfBatches()
    for part in range(0, len(category.train), per_part):
        samples_of_part = category.train[part : part + per_part]
        embeddings, images = _embed(
            model, category, part, samples_of_part, options, plan, shared, collected
        )
        for seed in seeds:
            with watch.stage("select"):
                candidates = selections[seed].add(embeddings, first)
            if images is not None and seed == seeds[0]:
                patches.append(_cut(model, images, candidates))
            within = samples[seed] - first
            within = within[(within >= 0) & (within < len(embeddings))]
            queries[seed].append(embeddings[torch.from_numpy(within).to(embeddings.device)])
        first += len(embeddings)
        del embeddings, images  # before the next part, or the last selection, needs the room
    cells = []
    taken = None
    for seed in seeds:
        with watch.stage("select"):
            coreset, order = selections[seed].finish()
        taken = order if taken is None else taken
        of_seed = [Cell(coreset, p, Stopwatch(shared.clock)) for p in model.percentages]
        if len(options.backbone) > 1:
            _normalise(of_seed, torch.cat(queries[seed]).float(), samples[seed], model.k)
        cells.extend(of_seed)
    for cell in cells:  # one selection served all seeds and percentages, part by part
        cell.watch.add("select", watch.seconds["select"] / len(seeds))
    origins = collected.finish()
    held_out: Sequence[HeldOutScores | None] = [None] * len(model.percentages)
    if options.needs_held_out_scores:
        embed = _embed_again(model, category, origins)
        held_out = scores_without_own_patches(model, cells[0].coreset, origins, embed)
    kept = np.concatenate(patches)[taken] if patches else None
    return Learned(cells, kept, plan, origins, held_out)


def _embed_again(
    model: PatchCore, category: Category, origins: Origins
) -> Callable[[np.ndarray], torch.Tensor]:
    """Return what reads and embeds single training images, where their embeddings were not kept."""

    def embed(numbers: np.ndarray) -> torch.Tensor:
        samples = [category.train[number] for number in origins.images[numbers]]
        return model.embed(np.stack([model.crop(read_image(sample.path)) for sample in samples]))

    return embed


def _embed(
    model: PatchCore,
    category: Category,
    first: int,
    samples: Sequence[Sample],
    options: Options,
    plan: MemoryPlan,
    shared: Stopwatch,
    collected: OriginsOfBatches,
) -> tuple[torch.Tensor, np.ndarray | None]:
    """Embed images, of which the first has the number ``first``, and collect their origins.

    Returns:
        (n, D), and the cropped images (B, H, W, 3) where pictures or a trained model need them.
    """
    kept: list[np.ndarray] = []
    keeps = _keeps_images(options)

    def batches() -> Iterator[np.ndarray]:
        number = first
        crops = map_ahead(
            lambda sample: model.crop(read_image(sample.path)),
            samples,
            num_workers=options.threads,
            ahead=2 * options.batch_size + options.threads,
        )
        for batch in shared.iterate("read", in_batches(crops, options.batch_size)):
            for flip, version in enumerate(model.augment(np.stack(batch))):
                collected.add(number, len(version), flip)
                if keeps:
                    kept.append(version)
                bar.update(len(version))
                yield version
            number += len(batch)

    total = len(samples) * model.augmentation
    with show_progress(total, f"{category.name}: embed", "image") as bar, shared.stage("embed"):
        embeddings = model.embed_all(batches(), total, plan.dtype)
    return embeddings, np.concatenate(kept) if kept else None


def _select(
    model: PatchCore,
    category: Category,
    embeddings: torch.Tensor,
    seed: int,
    clock: Clock,
) -> list[Cell]:
    """Select one seed's coreset; return a cell for each percentage."""
    sizes = model.sizes_of_coresets(len(embeddings))
    watches = [Stopwatch(clock) for _ in sizes]
    waiting, start = list(zip(sizes, watches, strict=True)), watches[0].mark()
    with show_progress(sizes[-1], f"{category.name}: select", "patch") as bar:

        def on_progress(done: int) -> None:
            bar.update(done - bar.n)
            # A percentage's time is that when its own part of the coreset was complete.
            while waiting and done >= waiting[0][0]:
                watch = waiting.pop(0)[1]
                watch.add_between("select", start, watch.mark())

        coreset = model.select(embeddings, seed, on_progress)
    return [Cell(coreset, p, w) for p, w in zip(model.percentages, watches, strict=True)]


def _normalise(cells: Sequence[Cell], queries: torch.Tensor, sample: np.ndarray, k: int) -> None:
    """Measure how training patches score by each percentage of one seed."""
    start = cells[0].watch.mark()
    found = normal_scores(queries, sample, cells[0].coreset, k)
    stop = cells[0].watch.mark()
    for cell, normal in zip(cells, found, strict=True):
        cell.normal = normal
        cell.watch.add_between("normalise", start, stop)


def _cut(model: PatchCore, images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return explain.cut_patches(images, explain.locate(indices, model.grid), model.grid)
