import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.pretraining.batch import Batch
from utils.pretraining.dense import DenseObjective, Weights

CHANNELS, CLASSES = (3, 4, 5), 6


def make(weights=None):
    torch.manual_seed(0)
    return DenseObjective(CHANNELS, CLASSES, weights or Weights())


def make_maps(seed=0, images=2, side=8):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand(images, c, side >> level, side >> level, generator=generator)
        for level, c in enumerate(CHANNELS)
    ]


def make_batch(seed=0, images=2, layers=3, side=8):
    generator = torch.Generator().manual_seed(seed)
    shares = torch.softmax(4 * torch.randn(images, layers, side, side, generator=generator), 1)
    places = torch.rand(images, 2, side, side, generator=generator) - 0.5
    places[:, :, : side // 2] = math.nan
    return Batch(
        torch.zeros(images, 4 * side, 4 * side, 3, dtype=torch.uint8),
        torch.randint(CLASSES, (images, layers), generator=generator),
        shares,
        places,
        torch.rand(images, side, side, generator=generator),
    )


def slow_texture_loss(objective, values, batch, offset, smoothing):
    """Cell by cell: the cross entropy with the shares as the wanted probabilities."""
    losses = []
    for image in range(len(values)):
        for row in range(offset[0], values.shape[2], 4):
            for column in range(offset[1], values.shape[3], 4):
                logits = objective.heads[0](values[image, :, row, column])[:CLASSES]
                wanted = torch.full((CLASSES,), smoothing / CLASSES)
                for layer, index in enumerate(batch.classes[image]):
                    wanted[index] += (1 - smoothing) * batch.shares[image, layer, row, column]
                losses.append(-(wanted * torch.log_softmax(logits, 0)).sum())
    return torch.stack(losses).mean().item()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.floats(0, 0.5))
def test_texture_is_the_cross_entropy_with_a_cells_shares(seed, offset, smoothing):
    objective = make(Weights(damage=0, place=0, smoothing=smoothing, levels=(1, 0, 0)))
    maps, batch = make_maps(seed), make_batch(seed)
    loss, _ = objective(maps, batch, offset[0] + 4 * offset[1])
    slow = slow_texture_loss(objective, maps[0], batch, offset, smoothing)
    assert float(loss) == pytest.approx(slow, rel=1e-4)


def test_a_head_that_knows_has_no_loss_and_full_accuracy():
    objective = make(Weights(smoothing=0, levels=(1, 0, 0)))
    batch = make_batch(layers=1)
    batch.shares[:], batch.places[:], batch.damaged[:] = 1, 0.25, 1
    batch.classes[:] = 2
    with torch.no_grad():
        head = objective.heads[0]
        head.weight.zero_()
        head.bias.zero_()
        head.bias[2], head.bias[-3], head.bias[-2:] = 40, 40, 0.25
    loss, report = objective(make_maps(), batch)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert report["accuracy_0"] == 1
    batch.classes[:] = 3
    assert objective(make_maps(), batch)[1]["accuracy_0"] == 0


def test_coarser_maps_are_asked_for_the_mean_of_their_cells():
    coarse = make(Weights(damage=0, place=0, levels=(0, 0, 1)))
    batch, maps = make_batch(), make_maps()
    shares = torch.nn.functional.avg_pool2d(batch.shares, 4)
    single = DenseObjective((5,), CLASSES, Weights(damage=0, place=0, levels=(1,)))
    single.heads[0] = coarse.heads[2]
    pooled = Batch(
        batch.images,
        batch.classes,
        shares,
        batch.places[:, :, ::4, ::4],
        batch.damaged[:, ::4, ::4],
    )
    assert float(coarse(maps, batch)[0]) == pytest.approx(float(single([maps[2]], pooled)[0]))


def test_each_part_counts_as_its_weight_says():
    parts = {}
    for name in ("texture", "damage", "place"):
        weights = dict.fromkeys(("texture", "damage", "place"), 0.0) | {name: 1.0}
        parts[name] = float(make(Weights(**weights))(make_maps(), make_batch())[0])
        assert parts[name] > 0
    together = float(make(Weights(2, 3, 0.25))(make_maps(), make_batch())[0])
    expected = 2 * parts["texture"] + 3 * parts["damage"] + 0.25 * parts["place"]
    assert together == pytest.approx(expected, rel=1e-5)


def test_without_shapes_there_is_no_place_to_tell_and_gradients_are_finite():
    objective, batch, maps = make(), make_batch(), make_maps()
    batch.places[:] = math.nan
    loss, report = objective([values.requires_grad_() for values in maps], batch)
    loss.backward()
    assert report["place_0"] == 0
    assert all(values.grad.isfinite().all() for values in maps)
