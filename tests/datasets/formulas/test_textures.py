import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.formulas.dial import NUDGE, SIBLINGS, Dial
from datasets.formulas.families import FAMILIES
from datasets.formulas.noise import band_noise, fractal_noise, value_noise
from datasets.formulas.textures import Texture, TexturePool

SIZE = 64
seeds = st.integers(0, 2**31)


class TestDial:
    @given(seeds, st.integers(0, 500), st.integers(1, SIBLINGS - 1))
    def test_siblings_choose_the_same_and_take_nearly_the_same_amounts(self, seed, group, member):
        first, sibling = Dial(seed, group * SIBLINGS), Dial(seed, group * SIBLINGS + member)
        assert first.choose("abcdef") == sibling.choose("abcdef")
        assert first.chance(0.5) == sibling.chance(0.5)
        assert first.whole(1, 9) == sibling.whole(1, 9)
        assert first.generator().random() == sibling.generator().random()
        ours, theirs = (
            np.array([dial.between(0, 1) for _ in range(20)]) for dial in (first, sibling)
        )
        assert np.abs(ours - theirs).max() <= NUDGE
        assert (ours != theirs).any()

    @given(seeds, st.integers(0, 5000))
    def test_amounts_keep_to_their_range(self, seed, index):
        dial = Dial(seed, index)
        assert all(2 <= dial.between(2, 3) <= 3 for _ in range(30))
        assert all(1 - 1e-9 <= dial.scale(1, 8) <= 8 + 1e-9 for _ in range(30))
        assert all(1 <= dial.whole(1, 3) <= 3 for _ in range(30))

    def test_strangers_differ(self):
        amounts = {round(Dial(0, SIBLINGS * group).between(0, 1), 6) for group in range(50)}
        assert len(amounts) == 50


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: value_noise(rng, 256, 3),
        lambda rng: value_noise(rng, 256, 12, stretch=2, angle=0.6),
        lambda rng: fractal_noise(rng, 256, 12, octaves=3),
        lambda rng: band_noise(rng, 256, 9, width=0.2, aspect=1, angle=0),
    ],
)
def test_noise_has_mean_0_and_deviation_about_1(draw):
    fields = np.stack([draw(np.random.default_rng(seed)) for seed in range(8)])
    assert abs(fields.mean()) < 0.1
    assert 0.75 < fields.std() < 1.3


def test_noise_is_as_coarse_as_its_cell():
    """Neighbouring pixels differ less, the larger the cells."""
    steps = [
        np.abs(np.diff(value_noise(np.random.default_rng(0), 256, cell))).mean()
        for cell in (2, 6, 20, 60)
    ]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 10 * steps[-1]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_family_draws_tones_from_0_to_1(family):
    for index in range(0, 40, SIBLINGS):
        tone = family(Dial(3, index))(np.random.default_rng(index), SIZE)
        assert tone.shape == (SIZE, SIZE)
        assert np.isfinite(tone).all()
        assert tone.min() > -1e-3
        assert tone.max() < 1 + 1e-3


class TestTexture:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 300), st.integers(0, 50))
    def test_the_same_numbers_give_the_same_picture(self, index, variant):
        first, again = (Texture(1, index).picture(variant, SIZE) for _ in range(2))
        assert first.dtype == np.uint8
        assert first.shape == (SIZE, SIZE, 3)
        assert (first == again).all()

    def test_another_seed_class_or_variant_gives_another(self):
        pictures = [
            Texture(seed, index).picture(variant, SIZE)
            for seed, index, variant in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 4, 0), (0, 0, 1))
        ]
        for other in pictures[1:]:
            assert np.abs(pictures[0].astype(int) - other).mean() > 1

    def test_every_family_has_its_classes(self):
        names = [Texture(0, SIBLINGS * group).family for group in range(len(FAMILIES))]
        assert names == [family.__name__ for family in FAMILIES]


class TestPool:
    def test_holds_each_class_in_its_variants_whoever_draws(self):
        pool = TexturePool(2, 9, 2, size=SIZE, num_workers=3)
        assert pool.pictures.shape == (9, 2, SIZE, SIZE, 3)
        for index, variant in ((0, 0), (5, 1), (8, 0)):
            assert (pool.pictures[index, variant] == Texture(2, index).picture(variant, SIZE)).all()

    def test_a_piece_is_cut_from_its_class(self):
        pool = TexturePool(0, 4, 1, size=SIZE)
        pool.pictures[:] = np.arange(0, 200, 50, dtype=np.uint8)[:, None, None, None, None]
        for index in range(4):
            piece = pool.cut(index, 0, np.array([0.3, -1]), 40, turn=0.5, zoom=0.8)
            assert piece.shape == (40, 40, 3)
            assert (piece == 50 * index).all()

    def test_a_piece_unturned_and_unscaled_is_found_in_the_picture(self):
        pool = TexturePool(0, 1, 2, size=SIZE)
        middle = SIZE // 2
        piece = pool.cut(0, 1, np.zeros(2), 16)
        around = pool.pictures[0, 1, middle - 8 : middle + 8, middle - 8 : middle + 8]
        assert (piece == around).all()
        assert (pool.cut(0, 0, np.zeros(2), 16) != piece).any()

    @pytest.mark.parametrize("place", [(-1, -1), (1, -1), (0, 1)])
    def test_a_piece_from_anywhere_stays_inside_the_picture(self, place):
        """What lies outside would be a mirror image: no texture of the class."""
        pool = TexturePool(0, 1, 1, size=SIZE)
        ramp = np.arange(SIZE, dtype=np.uint8) * 2
        pool.pictures[:] = ramp[:, None]  # brighter to the right, so that a mirror is seen
        piece = pool.cut(0, 0, np.array(place, float), 16)[..., 0].astype(int)
        assert (np.diff(piece, axis=1) == 2).all()
