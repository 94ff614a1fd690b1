"""Training patches that do not fit into the memory: kept rounded, then learned in parts."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.images import read_image
from datasets.mvtec import read_category
from patchcore import explain
from patchcore.memory_plan import MemoryPlan, Needs, plan_memory
from tests.support import (
    NUM_PATCHES,
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    TEST_TYPES,
    evaluate,
    make_category,
    names,
    one_thread,
    quick,
    read_run,
    read_table,
)
from utils.options import Options, parse_options
from utils.pipeline import fit as training_module
from utils.pipeline.fit import learn
from utils.pipeline.models import make_models
from utils.stopwatch import Stopwatch

# Pictures are wanted in all of these: crops of 64x64, from which pieces of 9x9 are cut.
NEEDS = Needs(image_bytes=3 * 64 * 64, patch_bytes=3 * 9 * 9)
CPU = torch.device("cpu")
PLAIN = "all embeddings in float32, plain greedy selection"
ROUNDED = "all embeddings in float16, plain greedy selection"
IN_PARTS = "not by the plain greedy selection"


def find_budget(wanted: Callable[[MemoryPlan], bool], num_seeds: int = 1, images=NUM_TRAIN) -> str:
    """Return the largest budget, as ``--memory_budget``, by which patches are kept as wanted."""
    for kilobytes in range(10_000, 0, -10):
        budget = kilobytes / 1e6
        if wanted(plan_memory(images, NUM_PATCHES, 64, 0.1, num_seeds, budget, NEEDS)):
            return f"--memory_budget {budget}"
    raise AssertionError("no budget leads to such a plan")


def in_parts_of(images: int) -> Callable[[MemoryPlan], bool]:
    return lambda plan: plan.images_per_part == images


def is_rounded(plan: MemoryPlan) -> bool:
    return plan.dtype == torch.float16 and plan.is_plain


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_category(root)
    return root


class TestLearn:
    """Whatever the plan, the coreset is of the right patches, with their pictures."""

    @pytest.fixture
    def parts(self, data):
        """Return a function from flags to model, category and options."""

        def parts(flags: str):
            words = quick("--path_data", str(data), "--pictures", "all", *flags.split())
            options = parse_options(words, command="", description="", defaults=Options())
            (model,) = make_models(options, CPU).values()
            return model, read_category(data, "widget"), options

        with one_thread():
            yield parts

    def embed(self, model, category) -> tuple[np.ndarray, torch.Tensor]:
        """Return the training images, cropped, and the embeddings of all their patches."""
        images = np.stack([model.crop(read_image(sample.path)) for sample in category.train])
        return images, model.embed(images).flatten(0, 2)

    @pytest.mark.parametrize(
        ("budget", "told", "tolerance"),
        [
            ("", PLAIN, 1e-6),
            (find_budget(is_rounded), ROUNDED, 2e-3),
            (find_budget(in_parts_of(3)), f"3 images at a time.* 2 parts, {IN_PARTS}", 2e-3),
            (find_budget(in_parts_of(1)), f"1 images at a time.* 6 parts, {IN_PARTS}", 2e-3),
        ],
        ids=["plain", "rounded", "two parts", "six parts"],
    )
    def test_every_coreset_patch_is_the_training_patch_that_it_claims(
        self, parts, budget, told, tolerance
    ):
        model, category, options = parts(f"--seed 0 3 --percentage_coreset 0.02 0.1 {budget}")
        learned = learn(model, category, options, Stopwatch())
        assert re.search(told, learned.plan.describe())
        images, embeddings = self.embed(model, category)
        assert [(c.coreset.seed, c.percentage) for c in learned.cells] == [
            (seed, percentage) for seed in (0, 3) for percentage in (0.02, 0.1)
        ]
        for cell in learned.cells:
            indices = cell.coreset.indices
            assert cell.coreset.sizes == (27, 135)
            assert len(set(indices.tolist())) == 135
            torch.testing.assert_close(
                cell.coreset.bank.embeddings, embeddings[indices], rtol=tolerance, atol=tolerance
            )
        first, other = learned.cells[0].coreset, learned.cells[2].coreset
        assert set(first.indices.tolist()) != set(other.indices.tolist())
        expected = explain.cut_patches(
            images, explain.locate(first.indices, model.grid), model.grid
        )
        np.testing.assert_array_equal(learned.coreset_patches, expected)

    def test_parts_cover_the_training_patches_nearly_as_well(self, parts):
        radius = []
        for budget in ("", find_budget(in_parts_of(2))):
            model, category, options = parts(budget)
            learned = learn(model, category, options, Stopwatch())
            _, embeddings = self.embed(model, category)
            bank = learned.cells[0].coreset.bank.embeddings
            radius.append(torch.cdist(embeddings, bank).amin(1).max())
        assert radius[1] < 1.3 * radius[0]

    def test_flipped_images_count_as_images(self, parts):
        budget = find_budget(in_parts_of(4), images=3 * NUM_TRAIN)
        model, category, options = parts(f"--flip vertical horizontal {budget}")
        learned = learn(model, category, options, Stopwatch())
        assert learned.plan.num_images == 3 * NUM_TRAIN
        indices = learned.cells[0].coreset.indices
        assert len(indices) == 3 * NUM_TRAIN * NUM_PATCHES // 10
        assert indices.max() >= 2 * NUM_TRAIN * NUM_PATCHES

    @pytest.mark.parametrize(("seeds", "told"), [("0", PLAIN), ("0 3", ROUNDED)])
    def test_the_coresets_of_all_seeds_count(self, parts, seeds, told):
        budget = find_budget(is_rounded, num_seeds=2)
        model, category, options = parts(f"--seed {seeds} {budget}")
        learned = learn(model, category, options, Stopwatch())
        assert learned.plan.describe() == told

    def test_what_is_free_is_the_budget_where_none_is_given(self, parts, monkeypatch, caplog):
        model, category, options = parts("")
        gigabytes = float(find_budget(is_rounded).split()[1])
        free = gigabytes / training_module.SHARE_OF_FREE_MEMORY * 1.0001
        monkeypatch.setattr(training_module, "free_memory", lambda device: free)
        learned = learn(model, category, options, Stopwatch())
        assert learned.plan.describe() == ROUNDED
        assert f"widget: memory is short: {ROUNDED}" in caplog.text


@pytest.fixture(scope="module", params=["rounded", "parts", "seeds", "ensemble"])
def case(request, data, tmp_path_factory) -> tuple[Path, int, str]:
    """Return a result folder, how many rows it has, and what it says of its memory."""
    layers = "--layers features.3 features.6"
    flags, num_rows, told = {
        "rounded": (find_budget(is_rounded), 2, ROUNDED),
        "parts": (find_budget(in_parts_of(2)), 2, IN_PARTS),
        "seeds": (f"--seed 0 5 {find_budget(in_parts_of(2), num_seeds=2)}", 4, IN_PARTS),
        "ensemble": (
            f"--seed 0 5 --backbone squeezenet1_1 squeezenet1_1 {layers} "
            "--layers features.3 " + find_budget(in_parts_of(2), num_seeds=2),
            12,
            IN_PARTS,
        ),
    }[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return (
        evaluate(data, folder, f"--percentage_coreset 0.02 0.1 --pictures all {flags}"),
        num_rows,
        told,
    )


class TestProgram:
    """The whole run within a budget: it says so, and its results are as good."""

    def test_the_run_says_how_patches_were_kept(self, case):
        folder, _, told = case
        plans = read_run(folder)["memory"]["widget"].values()
        assert all(told in plan for plan in plans)

    def test_results_are_those_of_blatant_defects(self, case):
        folder, num_rows, _ = case
        rows = read_table(folder)
        assert len(rows) == num_rows
        for row in rows:
            assert float(row["image_auroc"]) > 0.9
            assert float(row["pixel_auroc"]) > 0.9
            assert float(row["seconds_select"]) > 0

    def test_pictures_are_drawn(self, case):
        folder, *_ = case
        drawn = names(folder, "localization_*.png")
        assert len(drawn) == 2 * len(TEST_TYPES) * NUM_TEST_PER_TYPE

    def test_without_a_budget_the_run_says_so(self, data, tmp_path):
        folder = evaluate(data, tmp_path)
        assert read_run(folder)["memory"] == {"widget": {"squeezenet1_1": PLAIN}}
