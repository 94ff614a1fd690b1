"""The training loop: one step after another, each the same whether or not it was stopped before.

To the last bit on a CPU; a GPU adds up some gradients in an order that changes.
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from utils.errors import UsageError
from utils.pretraining.batch import Batch
from utils.pretraining.schedule import WARM_UP, Budget, Schedule
from utils.results import replace_file

CHECKPOINT = "checkpoint.pt"
STEADY_CHECKPOINT = "checkpoint_steady.pt"
"""As it was when the learning rate began to fall: a larger budget goes on from here."""

RANDOM = "random"
REPORT_EVERY = 20  # steps

MakeBatches = Callable[[int, int], Iterator[Batch]]
"""(number of the first picture, side in pixels) -> batches without end."""


@dataclass(frozen=True)
class Recipe:
    """What a training's result depends on, beside its budget.

    Attributes:
        seed: Of the classes, the scenes and the first weights.
        start: The digest of the weights that it began with, if they were not drawn by the seed.
        num_classes: Of textures.
        variants: Pictures kept of each class, to cut from.
        side: Of the pictures, in pixels.
        late_side: Of those of the last part, while the learning rate falls: larger, as the
            pictures to judge will be.
        pictures_per_product: How many of a product are in a batch, to be compared.
        batch_size: Pictures in a batch.
        learning_rate: The highest.
        warm_up: Steps in which the network's rate rises. The heads' does in 200: those of weights
            that are trained begin anew, and would lead them astray before they know anything.
        haste: How many times the network's rate the heads' is.
        weight_decay: AdamW's.
        average: How slowly the averaged weights follow: their share kept at each step.
        recall: How much being found counts, beside telling what lies where.
    """

    seed: int = 0
    start: str = RANDOM
    num_classes: int = 720
    variants: int = 4
    side: int = 96
    late_side: int = 112
    pictures_per_product: int = 4
    batch_size: int = 16
    learning_rate: float = 2e-3
    warm_up: int = WARM_UP
    haste: float = 1.0
    weight_decay: float = 0.02
    average: float = 0.998
    recall: float = 1.0


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: Steps done.
        pictures: Pictures seen.
        seconds: Time trained, over all sittings.
        schedule: Where the learning rate is.
        history: A record for every few steps: what the curves show.
    """

    step: int = 0
    pictures: int = 0
    seconds: float = 0.0
    schedule: Schedule = field(default_factory=Schedule)
    history: list[dict[str, float]] = field(default_factory=list)


class Training:
    """A network, its heads, its averaged weights and its optimiser, from checkpoint to checkpoint.

    Args:
        network: Gives (B, 3, H, W) float32 -> the maps that the objective takes.
        objective: (maps, batch, step) -> the loss, and by name what the progress shows.
        normalise: (B, H, W, 3) uint8 -> (B, 3, H, W) float32.
        recipe: The rest.
        device: Where to compute.
        precision: In which the maps are computed: ``float32`` or ``bfloat16``.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: nn.Module,
        normalise: Callable[[torch.Tensor], torch.Tensor],
        recipe: Recipe,
        device: torch.device,
        precision: str = "float32",
    ):
        self.network = network.to(device, memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network)
        self.objective = objective.to(device)
        self.recipe = recipe
        self.progress = Progress()
        # How many times as long a step takes while the learning rate falls.
        self._slowdown = recipe.late_side**2 / recipe.side**2
        self._normalise = normalise
        self._device = device
        self._precision = precision
        self._optimiser = torch.optim.AdamW(
            [
                {
                    "params": list(self.network.parameters()),
                    "warm_up": recipe.warm_up,
                    "highest": recipe.learning_rate,
                },
                {
                    "params": list(self.objective.parameters()),
                    "warm_up": WARM_UP,
                    "highest": recipe.learning_rate * recipe.haste,
                },
            ],
            weight_decay=recipe.weight_decay,
        )

    def run(
        self,
        budget: Budget,
        make_batches: MakeBatches,
        folder: Path,
        *,
        on_report: Callable[[Progress], None] = lambda progress: None,
        save_every: float = 20.0,
    ) -> None:
        """Train until the budget is used up, from wherever the training is.

        Args:
            budget: How much in all, earlier sittings included.
            make_batches: Makes the pictures.
            folder: For the checkpoints.
            on_report: Called after every few steps.
            save_every: Seconds between checkpoints.
        """
        saved = last = time.monotonic()
        batches, drawn_side = None, None
        while not self.progress.schedule.is_over(self.progress.step):
            falling = self.progress.schedule.fall_start >= 0
            side = self.recipe.late_side if falling else self.recipe.side
            if side != drawn_side:
                batches = make_batches(self.progress.pictures, side)
                drawn_side = side
            self._step(next(batches))
            now = time.monotonic()
            self.progress.seconds += now - last
            last = now
            self._advance(budget, folder)
            if self.progress.step % REPORT_EVERY == 0:
                on_report(self.progress)
            if now - saved > save_every:
                self.save(folder / CHECKPOINT)
                saved = now
        self.save(folder / CHECKPOINT)

    def save(self, path: Path) -> None:
        """Write a checkpoint; under its name there is the former or the whole new one."""
        data = io.BytesIO()
        progress = self.progress
        torch.save(
            {
                "recipe": asdict(self.recipe),
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "objective": self.objective.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "step": progress.step,
                "pictures": progress.pictures,
                "seconds": progress.seconds,
                "schedule": asdict(progress.schedule),
                "history": progress.history,
            },
            data,
        )
        replace_file(path, data.getvalue())

    def resume(self, folder: Path, budget: Budget) -> bool:
        """Go on from a folder's checkpoint, where there is one.

        A training whose learning rate had begun to fall, ended or not, goes back to where it began
        to, if the budget is so much larger now that it would not have begun yet.

        Returns:
            Whether there was one.

        Raises:
            UsageError: it is damaged, or of another recipe.
        """
        path = folder / CHECKPOINT
        if not path.is_file():
            return False
        state = self._read(path)
        steady = folder / STEADY_CHECKPOINT
        if state["schedule"]["fall_start"] >= 0 and steady.is_file():
            earlier = self._read(steady)
            if not budget.must_fall(earlier["step"], self.recipe.batch_size, earlier["seconds"]):
                state = earlier
        self._load(state)
        return True

    def _step(self, batch: Batch) -> None:
        progress = self.progress
        for group in self._optimiser.param_groups:
            factor = progress.schedule.factor(progress.step, group["warm_up"])
            group["lr"] = group["highest"] * factor
        self.network.train()
        batch = batch.to(self._device)
        half = self._precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            maps = self.network(self._normalise(batch.images))
        loss, report = self.objective(maps, batch, progress.step)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._average()
        progress.step += 1
        progress.pictures += len(batch.images)
        if progress.step % REPORT_EVERY == 0:
            report = {name: float(value) for name, value in report.items()}
            place = {"step": progress.step, "pictures": progress.pictures}
            rate = self._optimiser.param_groups[0]["lr"]
            progress.history.append({**place, "seconds": progress.seconds, "rate": rate, **report})

    @torch.no_grad()
    def _average(self) -> None:
        """Let the averaged weights follow, quickly at first."""
        kept = min(self.recipe.average, (1 + self.progress.step) / (10 + self.progress.step))
        followed = self.network.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(followed[name], 1 - kept)
            else:
                value.copy_(followed[name])

    def _advance(self, budget: Budget, folder: Path) -> None:
        """Begin the fall of the learning rate where it is time for it, and keep what was before."""
        progress = self.progress
        following = progress.schedule.advance(
            budget, progress.step, self.recipe.batch_size, progress.seconds, self._slowdown
        )
        if following != progress.schedule:
            self.save(folder / STEADY_CHECKPOINT)
            progress.schedule = following
            self.save(folder / CHECKPOINT)

    def _read(self, path: Path) -> Mapping[str, object]:
        try:
            # Each value goes to its device as it is loaded. The optimiser's steps stay where they
            # are read: on a GPU it would wait for them at every step.
            state = torch.load(path, map_location="cpu", weights_only=True)
            recipe = state["recipe"]
        # Each reader has errors of its own kind for a file that is not what its name says.
        except Exception as error:
            raise UsageError(
                f"expected a checkpoint of a training, found a damaged file: {path}. Delete it, "
                "or choose another --path_result"
            ) from error
        if recipe != asdict(self.recipe):
            differing = [n for n, v in asdict(self.recipe).items() if recipe.get(n) != v]
            raise UsageError(
                f"expected to go on with the training in {path.parent}, found another recipe "
                f"({', '.join(differing)}). Choose another --path_result"
            )
        return state

    def _load(self, state: Mapping[str, object]) -> None:
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.objective.load_state_dict(state["objective"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(
            state["step"],
            state["pictures"],
            state["seconds"],
            Schedule(**state["schedule"]),
            list(state["history"]),
        )
