import numpy as np
import pytest
import torch

from patchcore import PatchCoreError
from patchcore.coreset import greedy_coreset
from patchcore.memory_plan import ComposableSelection, Needs, plan_memory


def plan(budget, num_images=1000, percentage=0.1, num_seeds=1, **needs):
    return plan_memory(num_images, 784, 1024, percentage, num_seeds, budget, Needs(**needs))


def make_patches(count, dim=32, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def covering_radius(points, chosen):
    """The largest distance of any patch to its nearest selected one: what k-centre minimises."""
    return float(torch.cdist(points, points[torch.as_tensor(chosen)]).amin(1).max())


def test_all_in_float32_where_it_fits():
    found = plan(budget=20)
    assert found.dtype == torch.float32
    assert found.is_plain
    assert "plain greedy" in found.describe()


def test_then_all_in_float16():
    found = plan(budget=3)
    assert found.dtype == torch.float16
    assert found.is_plain


def test_then_in_parts_and_says_that_it_is_another_selection():
    found = plan(budget=1.2)
    assert found.dtype == torch.float16
    assert not found.is_plain
    assert 0 < found.images_per_part < 1000
    assert "not by the plain greedy selection" in found.describe()


def test_less_memory_means_smaller_parts():
    sizes = [plan(budget).images_per_part for budget in (1.9, 1.6, 1.4, 1.2, 1.0)]
    # Two parts, three, three, four, five: no smaller than must be, and equal.
    assert sizes == [500, 334, 334, 250, 200]


def test_what_does_not_fit_at_once_is_not_taken_at_once():
    """Parts need no room for held-out scores; all images in one part would be no part."""
    for budget in np.arange(1, 4, 0.05):
        found = plan(budget, held_out=True)
        assert found.is_plain == (found.images_per_part == 1000)
        if found.is_plain:  # then so much must be there: float16, both coresets, the projections
            assert budget > 0.784 * (2.048 + 0.1 * 1.75 * 4 * 1.09 + 2.5 * 0.512) - 0.01


@pytest.mark.parametrize(
    "needs", [{"image_bytes": 3 * 224 * 224}, {"patch_bytes": 3 * 16 * 16}, {"held_out": True}]
)
def test_what_is_kept_beside_embeddings_takes_room_from_them(needs):
    def least_budget(wanted, **needs):
        """The least of these budgets, in gigabytes, that allows a plan."""
        for budget in np.arange(0.5, 6, 0.01):
            try:
                if wanted(plan(budget, **needs)):
                    return budget
            except PatchCoreError:
                continue
        raise AssertionError

    def is_plain(found):
        return found.is_plain

    def is_in_parts(found):
        return not found.is_plain and found.images_per_part >= 100

    if "patch_bytes" in needs:  # of candidates, which only parts leave
        assert least_budget(is_plain, **needs) == least_budget(is_plain)
        room = 2 * 0.1 * 784_000 * needs["patch_bytes"] / 1e9
        found = least_budget(is_in_parts, **needs) - least_budget(is_in_parts)
    elif "image_bytes" in needs:
        room = 1000 * needs["image_bytes"] / 1e9
        found = least_budget(is_plain, **needs) - least_budget(is_plain)
    else:
        # One coreset of three quarters of the images, and so much of two projections more.
        others = 0.75 * 0.1 * 784_000 * (1024 + 66) * 4
        room = (others + 784_000 * ((1 + 2 * 0.75) * 128 - 260) * 4) / 1e9
        found = least_budget(is_plain, **needs) - least_budget(is_plain)
    assert found == pytest.approx(room, abs=0.011)


def test_more_seeds_need_more_memory():
    assert plan(1.6, num_seeds=2).images_per_part < plan(1.6).images_per_part


def test_ten_thousand_images_fit_a_machine_of_24_gigabytes():
    found = plan(budget=15, num_images=10_000)
    patches = found.images_per_part * 784
    candidates = 2 * 0.1 * 10_000 * 784
    assert (patches + candidates) * 1024 * 2 < 15e9


def test_says_how_much_is_needed_where_not_even_the_coreset_fits():
    with pytest.raises(
        PatchCoreError, match=r"coresets of 1000 images, about 0\.41 GB, found 0\.1"
    ):
        plan(budget=0.1)


def select_in_parts(patches, num_parts, size, seed=0):
    selection = ComposableSelection(len(patches), [size // 2, size], seed)
    first, candidates = 0, []
    for part in patches.chunk(num_parts):
        candidates.append(selection.add(part, first) + first)
        first += len(part)
    coreset, order = selection.finish()
    return coreset, order, np.concatenate(candidates)


@pytest.mark.parametrize("num_parts", [1, 3, 7])
def test_selects_different_patches_of_the_right_number(num_parts):
    patches = make_patches(900)
    coreset, order, candidates = select_in_parts(patches, num_parts, 90)
    assert len(set(coreset.indices.tolist())) == 90
    assert coreset.sizes == (45, 90)
    np.testing.assert_array_equal(candidates[order], coreset.indices)
    torch.testing.assert_close(coreset.bank.embeddings, patches[torch.from_numpy(coreset.indices)])


def test_covers_the_patches_nearly_as_well_as_the_plain_selection():
    patches = make_patches(3000, dim=6)
    plain = covering_radius(patches, greedy_coreset(patches, 150))
    in_parts = covering_radius(patches, select_in_parts(patches, 6, 150)[0].indices)
    at_random = covering_radius(patches, np.random.RandomState(0).choice(3000, 150, replace=False))
    assert in_parts < 1.15 * plain < at_random


def test_takes_float16():
    patches = make_patches(600).half()
    coreset, *_ = select_in_parts(patches, 3, 60)
    assert coreset.bank.embeddings.dtype == torch.float32
    rounded = greedy_coreset(patches.float(), 60).tolist()
    assert greedy_coreset(patches, 60).tolist() == rounded
