"""One pass where all embeddings fit, two where only projections and coresets do."""

import pytest

from patchcore import PatchCoreError
from patchcore.lower_bounds import FLOATS_PER_ROW
from patchcore.memory_plan import MemoryPlan, Needs, plan_memory

# 100 images of 10 patches of 200 numbers; coresets of 100 patches.
SMALL = Needs(100, 10, 200, (100,))
SELECTING = (1000 * 128 + 2 * 1000) * 4
BANK = 100 * (200 + FLOATS_PER_ROW) * 4
EMBEDDINGS = 1000 * 200 * 4


def test_one_pass_keeps_the_embeddings_beside_the_selection():
    assert SMALL.one_pass() == EMBEDDINGS + SELECTING
    needs = Needs(100, 10, 200, (900,))  # a bank larger than the projections
    assert needs.one_pass() == EMBEDDINGS + 9 * BANK


def test_two_passes_keep_the_projections_then_the_rows():
    assert SMALL.two_passes() == SELECTING
    needs = Needs(100, 10, 200, (400,), fold_sizes=(300, 200), scored_patches=50)
    rows = 950 * 200 * 4
    assert needs.two_passes() == rows + 4 * BANK + 3 * BANK
    # No more rows than there are patches.
    needs = Needs(100, 10, 200, (400,), fold_sizes=(300, 300), scored_patches=500)
    assert needs.two_passes() == EMBEDDINGS + 7 * BANK


def test_seeds_images_and_crops_count():
    needs = Needs(100, 10, 200, (100, 100), image_bytes=7, patch_bytes=11)
    assert needs.while_selecting() == (2 * 1000 * 128 + 2 * 1000) * 4
    assert needs.banks() == 2 * BANK + 100 * 11
    assert needs.one_pass() == EMBEDDINGS + 700 + needs.while_selecting()


def test_the_first_way_that_fits_is_taken():
    one, two = SMALL.one_pass() / 1e9, SMALL.two_passes() / 1e9
    assert plan_memory(SMALL, one) == MemoryPlan(1, one)
    assert plan_memory(SMALL, one * 0.999) == MemoryPlan(2, two)
    assert plan_memory(SMALL, two) == MemoryPlan(2, two)
    message = "memory for 100 training images, about 0.00052 GB, found 0.0005 GB.*memory_budget"
    with pytest.raises(PatchCoreError, match=message):
        plan_memory(SMALL, 0.0005)


def test_10_000_images_need_4_gb_of_projections_and_3_3_gb_of_bank():
    needs = Needs(10_000, 784, 1024, (784_000,))
    assert needs.while_selecting() / 1e9 == pytest.approx(4.08, abs=0.01)
    assert needs.banks() / 1e9 == pytest.approx(3.42, abs=0.01)
    assert needs.one_pass() / 1e9 == pytest.approx(36.2, abs=0.1)
    assert needs.two_passes() / 1e9 == pytest.approx(6.63, abs=0.01)
