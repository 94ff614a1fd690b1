"""One pass where all embeddings fit, two where only projections and coresets do."""

import pytest
import torch

from patchcore import PatchCoreError
from patchcore.engine import LocalEngine
from patchcore.lower_bounds import FLOATS_PER_ROW
from patchcore.memory_needs import memory_needs
from patchcore.memory_plan import MemoryPlan, Needs, plan_memory
from patchcore.training_patches import FitRequest, TrainingPatches
from tests.patchcore.test_slow_twin import make_model, two_layers

# 100 images of 10 patches of 200 numbers; coresets of 100 patches.
SMALL = Needs(100, 10, 200, (100,))
SELECTING = (1000 * 128 + 2 * 1000) * 4
BANK = 100 * (200 + FLOATS_PER_ROW) * 4
EMBEDDINGS = 1000 * 200 * 4


def test_one_pass_keeps_the_embeddings_beside_the_selection():
    assert SMALL.one_pass() == EMBEDDINGS + SELECTING
    needs = Needs(100, 10, 200, (900,))  # a bank larger than the projections
    assert needs.one_pass() == EMBEDDINGS + 9 * BANK


@pytest.mark.parametrize(("share", "passes"), [(1.001, 1), (0.999, 2)])
def test_without_a_budget_70_percent_of_the_free_memory_are_used(monkeypatch, share, passes):
    free = share * SMALL.one_pass() / 1e9 / 0.7
    monkeypatch.setattr("patchcore.engine.free_memory", lambda device: free)
    assert LocalEngine().plan(SMALL, 0, torch.device("cpu")).passes == passes


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


def test_a_bank_of_each_layer_has_a_part_of_each_embedding():
    sizes = {"fold_sizes": (30, 30, 20, 20), "patch_bytes": 11, "num_banks": 2}
    needs = Needs(100, 10, 200, (100, 100), **sizes)
    rows = 2 * 100 + 2 * 30
    assert needs.banks() == rows * (100 + FLOATS_PER_ROW) * 4 + 2 * 100 * 11


@pytest.mark.parametrize(("banks", "count"), [("joined", 1), ("per_layer", 2)])
def test_the_needs_of_a_model_count_its_seeds_and_banks(banks, count):
    model = make_model(two_layers(), 32, banks=banks, embed_dim=160, image_score="max_patch")
    request = FitRequest((0.1, 0.2), seeds=(0, 1, 2))
    needs = memory_needs(TrainingPatches.of(model.embedder, model.scorer, 6, 4, request))
    patches = 6 * needs.patches_per_image
    assert needs.num_patches == patches
    assert needs.coreset_sizes == (int(0.2 * patches),) * (3 * count)
    assert needs.num_banks == count
    assert needs.image_bytes == 3 * 32 * 32


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (MemoryPlan(1, 0.5), "all embeddings kept, about 0.5 GB"),
        (MemoryPlan(2, 12.0), "projections kept, embedded twice, about 12 GB"),
        (
            MemoryPlan(2, 3.0, 1, 2.0),
            "projections kept, embedded twice in 1 shard of 2 CPU, about 3 GB",
        ),
        (MemoryPlan(1, 3.0, 4, 0.5), "all embeddings kept in 4 shards of 0.5 CPU, about 3 GB"),
    ],
)
def test_a_plan_in_words(plan, text):
    assert plan.describe() == text


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
