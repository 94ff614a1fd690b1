"""A training goes on after any stop as if it had not been stopped."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from patchcore.patch_embedding import PatchEmbedding
from tests.support import one_thread
from utils.errors import UsageError
from utils.pretraining.batch import Batch
from utils.pretraining.loop import CHECKPOINT, STEADY_CHECKPOINT, Recipe, Training
from utils.pretraining.objective import Objective
from utils.pretraining.schedule import Budget

RECIPE = Recipe(
    num_classes=4,
    side=16,
    late_side=32,
    pictures_per_product=2,
    batch_size=4,
    learning_rate=0.02,
)
BUDGET = Budget(pictures=160)


class Small(nn.Module):
    """Two maps, the second half as large."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images):
        fine = self.first(images)
        return fine, self.second(fine)


def picture(index, side):
    """One class per picture, which its colour gives away."""
    generator = torch.Generator().manual_seed(index)
    kind = int(torch.randint(4, (1,), generator=generator))
    image = torch.randint(0, 60, (side, side, 3), generator=generator, dtype=torch.uint8)
    image[..., kind % 3] += 60 * (1 + kind // 3)
    return image, kind


def make_batches(first, side, batch_size=RECIPE.batch_size):
    for start in itertools.count(first, batch_size):
        pictures = [picture(index, side) for index in range(start, start + batch_size)]
        cells = side // 4
        damaged = torch.zeros(batch_size, cells, cells)
        damaged[::2, 0, 0] = 1  # a cell of each second picture
        yield Batch(
            torch.stack([image for image, _ in pictures]),
            torch.tensor([[kind] for _, kind in pictures]),
            torch.ones(batch_size, 1, cells, cells),
            torch.full((batch_size, 2, cells, cells), torch.nan),
            damaged,
        )


def make_training(recipe=RECIPE, device="cpu"):
    torch.manual_seed(recipe.seed)
    network = Small()
    objective = Objective(
        (6, 8),
        recipe.num_classes,
        PatchEmbedding((6, 8), embed_dim=16),
        recipe.pictures_per_product,
        recipe.recall,
    )
    return Training(
        network,
        objective,
        lambda images: images.permute(0, 3, 1, 2).float() / 128 - 1,
        recipe,
        torch.device(device),
    )


def run(folder, budget=BUDGET, *, resume=False, stop_at=None, recipe=RECIPE, save_every=1e9):
    training = make_training(recipe)
    assert training.resume(folder, budget) == resume

    def batches(first, side):
        for batch in make_batches(first, side, recipe.batch_size):
            if stop_at is not None and training.progress.step >= stop_at:
                raise KeyboardInterrupt
            yield batch

    with one_thread():
        training.run(budget, batches, folder, save_every=save_every)
    return training


def assert_equal(first, second):
    for name in ("network", "averaged", "objective"):
        one, other = getattr(first, name).state_dict(), getattr(second, name).state_dict()
        assert list(one) == list(other)
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert first.progress.step == second.progress.step
    assert first.progress.pictures == second.progress.pictures
    assert first.progress.schedule == second.progress.schedule


def test_learns_what_the_pictures_show(tmp_path):
    recipe = replace(RECIPE, batch_size=16, late_side=16)
    training = run(tmp_path, Budget(pictures=2560), recipe=recipe)
    first, last = training.progress.history[0], training.progress.history[-1]
    assert last["accuracy_1"] > 0.9
    assert last["loss"] < first["loss"]


def test_the_budget_is_kept_and_the_last_half_has_larger_pictures(tmp_path):
    seen = []
    training = make_training()

    def batches(first, side):
        for batch in make_batches(first, side):
            seen.append((training.progress.pictures, tuple(batch.images.shape[:3])))
            yield batch

    with one_thread():
        training.run(BUDGET, batches, tmp_path)
    assert seen[:20] == [(4 * step, (4, 16, 16)) for step in range(20)]
    assert seen[20:] == [(4 * step, (4, 32, 32)) for step in range(20, 40)]
    assert (training.progress.step, training.progress.pictures) == (40, 160)


@pytest.mark.parametrize("stop_at", [1, 17, 19, 20, 21, 39])
def test_stopped_anywhere_it_goes_on_as_if_it_had_not(tmp_path, stop_at):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop_at=stop_at, save_every=0)
    assert_equal(whole, run(tmp_path / "stopped", resume=True))


def test_a_larger_budget_goes_on_as_if_it_had_been_given_at_once(tmp_path):
    for name in ("at_once", "in_two"):
        (tmp_path / name).mkdir()
    at_once = run(tmp_path / "at_once", Budget(pictures=320))
    run(tmp_path / "in_two", BUDGET)
    in_two = run(tmp_path / "in_two", Budget(pictures=320), resume=True)
    assert_equal(at_once, in_two)


def test_a_finished_training_is_not_trained_again(tmp_path):
    finished = run(tmp_path)
    assert_equal(finished, run(tmp_path, resume=True, stop_at=0))


def test_the_averaged_weights_follow_the_others(tmp_path):
    training = run(tmp_path, Budget(pictures=400))
    followed = training.network.state_dict()
    start = make_training().network.state_dict()
    for name, value in training.averaged.state_dict().items():
        if value.dtype.is_floating_point:
            left = (value - followed[name]).norm()
            assert 0 < left < (start[name] - followed[name]).norm()


def test_another_recipe_is_refused(tmp_path):
    run(tmp_path)
    other = replace(RECIPE, learning_rate=0.01, num_classes=4)
    with pytest.raises(UsageError, match=r"another recipe \(learning_rate\).*--path_result"):
        run(tmp_path, recipe=other)


@pytest.mark.parametrize("name", [CHECKPOINT, STEADY_CHECKPOINT])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    run(tmp_path)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UsageError, match=rf"damaged file: .*{name}"):
        run(tmp_path, Budget(pictures=320))


@pytest.mark.gpu
def test_on_a_gpu_it_learns_and_goes_on(tmp_path):
    recipe = replace(RECIPE, batch_size=16, late_side=16)
    for total in (1280, 2560):
        training = make_training(recipe, "cuda")
        training.resume(tmp_path, Budget(pictures=total))
        batches = partial(make_batches, batch_size=recipe.batch_size)
        training.run(Budget(pictures=total), batches, tmp_path)
    assert training.progress.history[-1]["accuracy_1"] > 0.9
    # On the GPU they would be waited for at every step.
    steps = [state["step"] for state in training._optimiser.state_dict()["state"].values()]
    assert not any(step.is_cuda for step in steps)
