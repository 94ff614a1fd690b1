import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.formulas import damage, draw_sheet, make_scene
from datasets.formulas.noise import axes
from datasets.formulas.scenes import MAX_LAYERS, STRIDE, photograph
from datasets.formulas.shapes import OUTLINES
from datasets.formulas.textures import TexturePool

SIZE = 64
CELLS = SIZE // STRIDE


@pytest.fixture(scope="module")
def pool():
    return TexturePool(0, 12, 1, size=96)


@pytest.fixture(scope="module")
def scenes(pool):
    return [make_scene(pool, 0, index, SIZE) for index in range(60)]


@pytest.fixture(scope="module")
def products(pool):
    return [[make_scene(pool, 0, p, SIZE, sight=s) for s in range(4)] for p in range(40)]


class TestScene:
    def test_the_same_number_gives_the_same_in_any_order(self, pool, scenes):
        for index in (7, 3, 59, 0):
            again = make_scene(pool, 0, index, SIZE)
            for name in ("image", "classes", "shares", "places", "damaged"):
                assert np.array_equal(
                    getattr(again, name), getattr(scenes[index], name), equal_nan=name == "places"
                )

    def test_another_number_or_seed_gives_another(self, pool, scenes):
        assert (scenes[0].image != scenes[1].image).any()
        assert (make_scene(pool, 1, 0, SIZE).image != scenes[0].image).any()

    def test_shapes_and_types(self, scenes):
        scene = scenes[0]
        assert (scene.image.shape, scene.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (scene.classes.shape, scene.classes.dtype) == ((MAX_LAYERS,), np.int64)
        assert (scene.shares.shape, scene.shares.dtype) == ((MAX_LAYERS, CELLS, CELLS), np.float32)
        assert (scene.places.shape, scene.places.dtype) == ((2, CELLS, CELLS), np.float32)
        assert (scene.damaged.shape, scene.damaged.dtype) == ((CELLS, CELLS), np.float32)

    def test_layers_share_out_every_cell(self, scenes):
        for scene in scenes:
            np.testing.assert_allclose(scene.shares.sum(axis=0), 1, atol=1e-5)
            assert scene.shares.min() >= 0

    def test_a_cells_class_is_one_of_the_pool(self, pool, scenes):
        shown = [scene.classes[scene.shares.max(axis=(1, 2)) > 0] for scene in scenes]
        assert set(np.concatenate(shown)) <= set(range(pool.num_classes))
        assert len(set(np.concatenate(shown))) == pool.num_classes

    def test_places_are_known_on_shapes_and_nowhere_else(self, scenes):
        for scene in scenes:
            known = ~np.isnan(scene.places[0])
            assert (known == ~np.isnan(scene.places[1])).all()
            assert not known[scene.shares[0] == 1].any()
            assert known[scene.shares[0] == 0].all()

    def test_some_are_damaged_and_some_are_not(self, scenes):
        damaged = [scene.damaged.max() > 0 for scene in scenes]
        assert 0.4 < np.mean(damaged) < 0.9


class TestProduct:
    """Pictures of one product differ as those of a category do."""

    def test_all_show_the_same_classes(self, products):
        for sights in products:
            assert all((scene.classes == sights[0].classes).all() for scene in sights)

    def test_most_lie_nearly_in_the_same_place(self, products):
        """A fifth is laid down in any direction."""
        agreement = [
            np.mean([(s.shares.argmax(0) == sights[0].shares.argmax(0)).mean() for s in sights[1:]])
            for sights in products
        ]
        assert np.quantile(agreement, 0.4) > 0.9
        assert min(agreement) < 0.9

    def test_sound_places_are_more_alike_than_those_of_other_products(self, products):
        def difference(first, second):
            sound = (first.damaged == 0) & (second.damaged == 0)
            pixels = np.abs(first.image.astype(int) - second.image)
            cells = pixels.reshape(CELLS, STRIDE, CELLS, STRIDE, 3).mean(axis=(1, 3, 4))
            return cells[sound].mean()

        same = [difference(sights[0], sights[1]) for sights in products]
        other = [difference(a[0], b[0]) for a, b in zip(products[1:], products[:-1], strict=True)]
        assert np.median(same) < 0.5 * np.median(other)

    def test_no_two_are_equal_and_some_are_damaged(self, products):
        for sights in products:
            assert len({scene.image.tobytes() for scene in sights}) == len(sights)
        damaged = [[scene.damaged.max() > 0 for scene in sights] for sights in products]
        assert 0.4 < np.mean(damaged) < 0.9
        assert np.mean([0 < sum(flags) < 4 for flags in damaged]) > 0.5


@pytest.mark.parametrize("change", dict.fromkeys(damage.CHANGES), ids=lambda c: c.__name__)
def test_damage_stays_within_its_mask(change, monkeypatch):
    monkeypatch.setattr(damage, "CHANGES", (change,))
    seen = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        picture = np.random.default_rng(99 + seed).random((SIZE, SIZE, 3), np.float32)
        damaged, mask = damage.apply(picture, rng)
        difference = np.abs(damaged - picture).mean(axis=2)
        assert damaged.dtype == np.float32
        assert (difference[~mask] <= damage.VISIBLE_CHANGE + 1e-6).all()
        assert (difference[mask] > damage.VISIBLE_CHANGE - 1e-6).all()
        seen += mask.any()
    assert seen >= 5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_damage_is_small_beside_the_picture(seed):
    area = damage.area(np.random.default_rng(seed), SIZE)
    assert area.shape == (SIZE, SIZE)
    assert area.min() >= 0
    assert area.max() <= 1
    assert area.mean() < 0.3


@pytest.mark.parametrize("outline", OUTLINES, ids=lambda outline: outline.__name__)
def test_outlines_have_an_inside_and_an_outside(outline):
    x, y = axes(96)
    for seed in range(6):
        distance = outline(x / 30, y / 30, np.random.default_rng(seed))
        assert distance.shape == (96, 96)
        assert 0.01 < (distance < 0).mean() < 0.9
        # A distance grows by one unit per unit; those of irregular outlines come near it.
        steps = np.hypot(*np.gradient(distance)) * 30
        assert 0.4 < np.median(steps) < 2


def test_a_photograph_keeps_the_scene():
    scene = np.zeros((SIZE, SIZE, 3), np.float32)
    scene[:, SIZE // 2 :] = 0.8
    for seed in range(10):
        plan, rng = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        image = photograph(scene, plan, rng).astype(int)
        assert image[:, :20].mean() < 20
        assert image[:, -20:].mean() > 90


def test_the_sheet_shows_every_family_and_marks_damage(pool):
    sheet = draw_sheet(pool, 0)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (384, 864, 3)
    red = (sheet == (255, 40, 40)).all(axis=2)
    assert red[288:].any()
    assert not red[:288].any()
