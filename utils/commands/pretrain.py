"""`main.py pretrain`: train the backbone that ships with the code, from formulas alone."""

import copy
import itertools
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.contrib.logging import logging_redirect_tqdm

from datasets.formulas import Scene, TexturePool, draw_sheet, make_scene
from patchcore.backbone import Backbone
from patchcore.formulanet import FORMULANET, LAYERS, WEIGHTS_FILE, FormulaNet
from patchcore.patch_embedding import PatchEmbedding
from patchcore.precision import float32_products, warn_if_emulated
from patchcore.preprocess import Preprocess
from patchcore.weights import DEFAULT, digest, load_backbone, read_state
from utils.commands.trial import (
    Trial,
    check_categories,
    make_trials,
    mean_score,
    measure_backbone,
    read_photograph_trial,
)
from utils.errors import UsageError
from utils.flags import parse_flags
from utils.machine import describe_machine, package_versions, source_commit
from utils.pipeline.models import choose_device
from utils.plots.training import draw_training
from utils.pretrain_options import PretrainOptions
from utils.pretraining.batch import Batch
from utils.pretraining.card import Measured, Measurement, model_card
from utils.pretraining.loop import RANDOM, Progress, Recipe, Training
from utils.pretraining.objective import Objective
from utils.pretraining.schedule import Budget
from utils.progress import show_progress
from utils.results import ResultFolder

DESCRIPTION = """Train formulanet, the backbone that ships with the code, on pictures by formula.

It may be stopped at any time and goes on from its last checkpoint when called again; with a larger
budget, a finished training goes on too. At its end it writes the weights (give them to --weights),
a model card beside them, and pictures of the curves and the classes."""
PANELS = {
    "Loss": {"loss": "all parts, three maps"},
    "Places that tell their class": {"accuracy_1": "layer2", "accuracy_2": "layer3"},
    "Damage farther than what is sound": {"order": "of all pairs"},
}
# Fewer than the 1024 of an evaluation: neighbours are found sooner, and are the same.
EMBED_DIM = 256
WEIGHTS_NAME = "formulanet.safetensors"

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_flags(
        arguments, PretrainOptions(), command="pretrain", description=DESCRIPTION, epilog=epilog
    )
    check_categories(options.categories)
    # Mistakes in them are told before the training, not after it.
    photographs = [read_photograph_trial(folder) for folder in options.photographs]
    names = [trial.name for trial in photographs]
    for name in names:
        if names.count(name) > 1:  # one row of the card for both
            raise UsageError(
                f"expected folders that differ in their last three names, found {name} twice "
                "(--photographs)"
            )
    start = _first_network(options.weights)
    pretrain(
        options.whole_budget,
        options.recipe(digest(start) if start else RANDOM),
        ResultFolder(options.path_result),
        device=choose_device(options.device),
        precision=options.precision,
        num_workers=options.workers,
        categories=options.categories,
        photographs=photographs,
        start=start,
    )


def pretrain(
    budget: Budget,
    recipe: Recipe,
    folder: ResultFolder,
    *,
    device: torch.device,
    precision: str = "float32",
    num_workers: int = 1,
    categories: Sequence[str] = (),
    photographs: Sequence[Trial] = (),
    start: FormulaNet | None = None,
) -> None:
    """Train, from a checkpoint where there is one, and write weights, card and pictures.

    Args:
        budget: How much to train in all.
        recipe: What else decides the result.
        folder: Where everything is written.
        device: Where to compute.
        precision: In which the network computes: ``float32`` or ``bfloat16``.
        num_workers: Processes that make the pictures; 0 for none.
        categories: Procedural categories to measure on; none for all.
        photographs: What else to measure on.
        start: Has the network's first weights; None to draw them.
    """
    warn_if_emulated(precision, device)
    torch.manual_seed(recipe.seed)
    network = FormulaNet()
    untrained = copy.deepcopy(network)
    if start is not None:
        network.load_state_dict(start.state_dict())
    objective = Objective(
        network.channels,
        recipe.num_classes,
        PatchEmbedding(network.channels, embed_dim=EMBED_DIM),
        recipe.pictures_per_product,
        recipe.recall,
    )
    normalise = Preprocess().normalise
    training = Training(network, objective, normalise, recipe, device, precision)
    if training.resume(folder.path, budget):
        _say_where(training.progress)
    log.info("drawing %d classes of textures", recipe.num_classes)
    # The threads share the cores: none of OpenCV's own on top of them.
    cv2.setNumThreads(1)
    pool = TexturePool(
        recipe.seed,
        recipe.num_classes,
        recipe.variants,
        num_workers=max(num_workers, 1),
        kept_in=folder.path,
    )
    folder.write_picture("classes.png", draw_sheet(pool, recipe.seed))
    _train(training, budget, pool, folder, num_workers)
    weights = folder.write_bytes(WEIGHTS_NAME, save(_halved(training.averaged.cpu())))
    folder.write_picture("curves.png", _draw_curves(training.progress))
    # As a user will load it: from the file, in its rounding.
    trained = load_backbone(FORMULANET, LAYERS, str(weights))
    networks = {"untrained": Backbone(untrained, LAYERS), "trained": trained}
    log.info("measuring on procedural categories")
    trials = make_trials(categories or None, num_workers=max(num_workers, 1))
    measurements = [_measure(_protocol(trials), networks, trials, device)]
    if photographs:
        log.info("measuring on photographs of good products, blemished")
        measurements.append(
            _measure(_photograph_protocol(photographs), networks, photographs, device)
        )
    facts = _facts(training.progress, recipe, budget, trained, precision, device)
    folder.write_text("formulanet.md", model_card(facts, measurements))
    log.info("weights and their model card are in %s", folder.path)


def _say_where(progress: Progress) -> None:
    """Say in the log from where a training goes on."""
    schedule, pictures = progress.schedule, progress.pictures
    if schedule.is_over(progress.step):
        log.info("finished at picture %d, nothing is left to train", pictures)
    elif schedule.fall_start < 0:
        log.info("going on from picture %d, before the learning rate falls", pictures)
    else:
        log.info("going on from picture %d, while the learning rate falls", pictures)


def _first_network(weights: str) -> FormulaNet | None:
    """Return a network that has the weights to begin with; None to draw them."""
    if weights == RANDOM:
        return None
    network = FormulaNet()
    state = read_state(WEIGHTS_FILE if weights == DEFAULT else Path(weights))
    Backbone(network, LAYERS).load(state)
    return network


def _train(
    training: Training, budget: Budget, pool: TexturePool, folder: ResultFolder, num_workers: int
) -> None:
    """Run the loop, with its progress on the terminal, and in the log about once a minute."""
    recipe = training.recipe
    batch_size = recipe.batch_size

    def make_batches(first: int, side: int) -> Iterator[Batch]:
        starts = itertools.count(first, batch_size)
        loader = DataLoader(
            _Scenes(pool, recipe, side),
            batch_sampler=(range(start, start + batch_size) for start in starts),
            num_workers=num_workers,
            collate_fn=_to_batch,
            worker_init_fn=_start_worker,
        )
        return iter(loader)

    said = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal said
        bar.update(progress.pictures - bar.n)
        bar.set_postfix_str(_line(progress))
        if time.monotonic() - said > 60:
            said = time.monotonic()
            log.info("%d pictures: %s", progress.pictures, _line(progress))

    with (
        logging_redirect_tqdm(),
        show_progress(budget.pictures, "train", "picture") as bar,
        float32_products(),  # as the model card says, on a GPU too
    ):
        training.run(budget, make_batches, folder.path, on_report=report)


class _Scenes(Dataset):
    """Scenes by number.

    Args:
        pool: The textures.
        recipe: Says how many pictures of a product follow one another.
        side: Of the pictures, in pixels.
    """

    def __init__(self, pool: TexturePool, recipe: Recipe, side: int):
        self._pool, self._recipe, self._side = pool, recipe, side

    def __getitem__(self, index: int) -> Scene:
        product, sight = divmod(index, self._recipe.pictures_per_product)
        return make_scene(self._pool, self._recipe.seed, product, self._side, sight=sight)


def _start_worker(number: int) -> None:
    """Leave Ctrl-C to the main process, which ends its workers, and all cores but one to others."""
    if hasattr(os, "setsid"):
        os.setsid()
    cv2.setNumThreads(1)


def _to_batch(scenes: Sequence[Scene]) -> Batch:
    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(scene, name) for scene in scenes]))

    return Batch(*map(stack, ("image", "classes", "shares", "places", "damaged")))


def _line(progress: Progress) -> str:
    last = progress.history[-1]
    return (
        f"loss {last['loss']:.2f}, classes known {100 * last['accuracy_1']:.1f} % at layer2, "
        f"{100 * last['accuracy_2']:.1f} % at layer3, {100 * last['order']:.1f} % of damage farther"
    )


def _draw_curves(progress: Progress) -> np.ndarray:
    title = f"Training formulanet: {progress.pictures:,} pictures"
    fall = progress.schedule.fall_start
    seen = [record["pictures"] for record in progress.history if record["step"] <= fall]
    return draw_training(progress.history, PANELS, title=title, mark=seen[-1] if seen else None)


def _halved(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights in float16: their rounding is far below what training leaves undecided."""
    state = network.state_dict()
    return {
        name: value.half().contiguous()
        for name, value in state.items()
        if value.dtype.is_floating_point
    }


def _measure(
    protocol: str,
    networks: Mapping[str, Backbone],
    trials: Sequence[Trial],
    device: torch.device,
) -> Measurement:
    measured = []
    for name, backbone in networks.items():
        scores = measure_backbone(backbone, trials, device=device)
        mean = mean_score(scores)
        pairs = {trial: (score.image, score.pixel) for trial, score in scores.items()}
        measured.append(Measured(name, pairs, (mean.image, mean.pixel)))
        log.info("%s: mean image AUROC %.4f, pixel AUROC %.4f", name, mean.image, mean.pixel)
    return Measurement(protocol, measured)


def _facts(
    progress: Progress,
    recipe: Recipe,
    budget: Budget,
    trained: Backbone,
    precision: str,
    device: torch.device,
) -> Mapping[str, object]:
    """Return what the card says of the training, by name."""
    count = sum(parameter.numel() for parameter in FormulaNet().parameters())
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return {
        "command": f"`{shlex.join(['python', Path(sys.argv[0]).name, *sys.argv[1:]])}`",
        "parameters": f"{count:,}",
        "digest of the weights that PatchCore reads": f"`{trained.weights_digest}`",
        "budget": budget,
        "pictures seen": f"{progress.pictures:,}",
        "steps": f"{progress.step:,}",
        "time": f"{progress.seconds / 60:.0f} minutes, over all sittings",
        "learning rate fell from step": f"{progress.schedule.fall_start:,}",
        **{f"recipe: {name}": value for name, value in asdict(recipe).items()},
        "precision": precision,
        "machine": describe_machine(device),
        "versions": versions,
        "commit": source_commit(),
        "finished": time.strftime("%Y-%m-%d"),
    }


def _protocol(trials: Sequence[Trial]) -> str:
    count = sum(len(trial.test) for trial in trials)
    return (
        f"Image / pixel AUROC in per cent of PatchCore with `--backbone {FORMULANET}` and 1 % of "
        f"the patches on procedural categories (`datasets/synthetic`, seeds that neither training "
        f"nor demo draws; recipes were chosen by them): {len(trials[0].train)} good pictures to "
        f"learn in each of {len(trials)} categories, {count} to judge in all. Their generator "
        f"shares no code with the training's pictures."
    )


def _photograph_protocol(trials: Sequence[Trial]) -> str:
    learnt, held_out = (sum(len(getattr(t, name)) for t in trials) for name in ("train", "test"))
    return (
        f"The same on photographs of good products, {learnt} to learn and {held_out} to judge: of "
        f"those that were held out each as it is, and with two blemishes by formula "
        f"(`datasets/synthetic/blemishes.py`), each in a picture of its own."
    )
