"""Blemishes on photographs: repeatable, exactly where the mask says, and of visible size."""

import numpy as np
import pytest

from datasets.synthetic import render
from datasets.synthetic.blemishes import BLEMISHES, SHARE, VISIBLE_CHANGE, blemish


@pytest.fixture(scope="module")
def photo():
    image, _ = render("hex_nut", None, seed=5, size=256)
    return image


@pytest.mark.parametrize("kind", BLEMISHES)
class TestEachKind:
    def test_the_same_seed_gives_the_same_and_another_one_another(self, photo, kind):
        first, mask = blemish(photo, kind, seed=1)
        again, same_mask = blemish(photo, kind, seed=1)
        other, _ = blemish(photo, kind, seed=2)
        assert (first == again).all()
        assert (mask == same_mask).all()
        assert (first != other).any()

    @pytest.mark.parametrize("seed", range(8))
    def test_its_mask_holds_all_that_visibly_changed_and_little_else(self, photo, kind, seed):
        before = photo.copy()
        after, mask = blemish(photo, kind, seed=seed)
        assert after.dtype == np.uint8
        assert after.shape == photo.shape
        assert (photo == before).all(), "the photograph itself was changed"
        change = np.abs(after.astype(int) - photo).mean(2)
        assert mask[change > VISIBLE_CHANGE].all()
        assert (change > VISIBLE_CHANGE)[mask].mean() > 0.5
        assert SHARE[0] < mask.mean() < 2 * SHARE[1]

    def test_lies_where_the_program_looks(self, photo, kind):
        """Its crop is 224 of 256 pixels."""
        inside = 0
        for seed in range(12):
            _, mask = blemish(photo, kind, seed=seed)
            inside += mask[16:-16, 16:-16].any()
        assert inside >= 11

    def test_a_picture_on_which_nothing_can_be_seen(self, kind, monkeypatch):
        monkeypatch.setitem(BLEMISHES, kind, lambda photo, place, rng: photo)
        with pytest.raises(ValueError, match=f"something {kind} can be seen"):
            blemish(np.full((64, 64, 3), 128, np.uint8), kind, seed=0)
