"""The nearest neighbours that training asks for are those that PatchCore would find."""

import math

import numpy as np
import pytest
import torch

from patchcore.patch_embedding import PatchEmbedding
from utils.pretraining import recall as recall_module
from utils.pretraining.batch import Batch
from utils.pretraining.recall import MARGIN, RecallObjective, _ask, _draw, _kinds, _ranking_loss

CHANNELS, PICTURES, SIDE = (6, 8), 3, 12


def make_objective():
    return RecallObjective(PatchEmbedding(CHANNELS, embed_dim=16), PICTURES)


def make_maps(images=2 * PICTURES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand(images, c, SIDE >> level, SIDE >> level, generator=generator)
        for level, c in enumerate(CHANNELS)
    ]


def make_batch(damaged):
    images = len(damaged)
    return Batch(
        torch.zeros(images, 4 * SIDE, 4 * SIDE, 3, dtype=torch.uint8),
        torch.zeros(images, 1, dtype=torch.int64),
        torch.ones(images, 1, SIDE, SIDE),
        torch.full((images, 2, SIDE, SIDE), torch.nan),
        damaged,
    )


def make_damage(images=2 * PICTURES):
    """A damaged cell in each picture but the first of each product."""
    damaged = torch.zeros(images, SIDE, SIDE)
    for image in range(images):
        if image % PICTURES:
            damaged[image, 2 + image, 5] = 1
    return damaged


def test_cells_near_damage_are_neither_damaged_nor_sound():
    damaged = torch.zeros(1, SIDE, SIDE)
    damaged[0, 5, 6], damaged[0, 5, 7] = 1, 0.1  # the second one only a little
    bad, sound = (kind.view(SIDE, SIDE) for kind in _kinds(make_batch(damaged)))
    assert bad.nonzero().tolist() == [[5, 6]]
    rows, columns = np.mgrid[:SIDE, :SIDE]
    away = np.maximum(abs(rows - 5), np.minimum(abs(columns - 6), abs(columns - 7)))
    assert (sound.numpy() == (away > MARGIN)).all()


@pytest.mark.parametrize("seed", range(5))
def test_each_patch_is_compared_with_the_nearest_sound_one_of_other_pictures(seed):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(PICTURES, 20, 4, generator=generator)
    damaged = torch.rand(PICTURES, 20, generator=generator) < 0.3
    sound = ~damaged & (torch.rand(PICTURES, 20, generator=generator) < 0.8)
    asked = _ask(embeddings, damaged, sound, generator)
    assert len(asked.patch) == int(damaged.sum() + sound.sum())  # fewer than would be too many
    assert (asked.is_damaged == damaged.flatten()[asked.patch]).all()
    flat = embeddings.flatten(0, 1)
    for patch, nearest in zip(asked.patch.tolist(), asked.nearest.tolist(), strict=True):
        distances = (flat - flat[patch]).norm(dim=1)
        distances[~sound.flatten()] = math.inf
        own = patch // 20 * 20
        distances[own : own + 20] = math.inf
        assert distances[nearest] == distances.min() < math.inf


def test_where_damage_covers_the_other_pictures_nothing_is_asked():
    embeddings = torch.randn(2, 5, 4)
    damaged = torch.tensor([[False] * 5, [True] * 5])
    asked = _ask(embeddings, damaged, ~damaged, torch.Generator())
    assert (asked.patch // 5 == 1).all()  # only the second one has something to be compared with
    assert (asked.nearest // 5 == 0).all()


def test_no_more_patches_are_asked_than_wanted_and_each_once(monkeypatch):
    monkeypatch.setattr(recall_module, "ASKED", 7)
    wanted = torch.arange(30) % 3 == 0
    for step in range(20):
        drawn = _draw(wanted, torch.Generator().manual_seed(step)).tolist()
        assert len(set(drawn)) == len(drawn) == 7
        assert all(number % 3 == 0 for number in drawn)
    assert sorted(_draw(wanted[:9], torch.Generator()).tolist()) == [0, 3, 6]


def test_the_loss_falls_as_damage_moves_away_and_not_with_what_is_near():
    sound = torch.tensor([-1.0, -0.5, 0.0])
    losses = [float(_ranking_loss(torch.tensor([d]), sound)) for d in (-1.0, 0.0, 1.0, 3.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-4
    nearer = float(_ranking_loss(torch.tensor([0.0]), torch.tensor([-1.0, -0.9, 0.0])))
    farther = float(_ranking_loss(torch.tensor([0.0]), torch.tensor([-1.0, -0.5, 0.4])))
    assert abs(nearer - losses[1]) < 0.15 < farther - losses[1]


def test_damage_that_stands_out_has_no_loss_and_hidden_damage_has():
    objective = make_objective()
    damaged = make_damage()
    maps = [torch.zeros(len(damaged), c, SIDE >> i, SIDE >> i) for i, c in enumerate(CHANNELS)]
    hidden, report = objective(maps, make_batch(damaged))
    assert report["order"] == 0  # all equal: no damaged patch lies farther
    maps[0][:] = 9 * damaged[:, None]
    seen, report = objective(maps, make_batch(damaged))
    assert report["order"] == 1
    assert float(seen) < 1e-3
    assert float(hidden) > 1


def test_products_are_not_compared_with_each_other():
    """Another product, however odd, changes nothing but the mean."""
    objective = make_objective()
    maps, damaged = make_maps(), make_damage()
    alone, _ = objective([values[:PICTURES] for values in maps], make_batch(damaged[:PICTURES]))
    for values in maps:
        values[PICTURES:] = 0
    damaged[PICTURES:] = 0  # and nothing to be asked of it
    both, _ = objective(maps, make_batch(damaged))
    assert float(both) == pytest.approx(float(alone), rel=1e-5)


def test_without_damage_there_is_no_loss_and_gradients_are_finite():
    objective = make_objective()
    maps = [values.requires_grad_() for values in make_maps()]
    loss, report = objective(maps, make_batch(torch.zeros(2 * PICTURES, SIDE, SIDE)))
    loss.backward()
    assert float(loss) == report["recall"] == 0
    assert all(values.grad.isfinite().all() for values in maps)


def test_a_step_asks_the_same_again_and_another_step_others(monkeypatch):
    monkeypatch.setattr(recall_module, "ASKED", 5)
    objective, maps, batch = make_objective(), make_maps(), None
    batch = make_batch(make_damage())
    losses = [float(objective(maps, batch, step)[0]) for step in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_following_the_gradient_makes_damage_stand_out():
    objective = make_objective()
    maps = [values.requires_grad_() for values in make_maps()]
    batch = make_batch(make_damage())
    optimiser = torch.optim.Adam(maps, 0.02)
    losses = []
    for step in range(40):
        loss, report = objective(maps, batch, step)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]
    assert report["order"] > 0.95
