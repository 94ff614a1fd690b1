"""The second bank of smaller images, against two slow twins and through save, load and commands."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from patchcore import PatchCore, PatchCoreError
from patchcore.context import TrainedContext
from patchcore.context import shrink as shrink_batch
from patchcore.engine import LocalEngine
from patchcore.ensemble import NormalScores
from patchcore.export import export
from patchcore.fit import FitRequest
from patchcore.fit import fit as fit_images
from patchcore.held_out import HeldOutScores
from patchcore.loading import _read_context
from patchcore.passes import CroppedImages
from patchcore.settings import Settings
from tests.patchcore.family_twin import FamilyTwin
from tests.patchcore.test_family import SIDE, TEST, TRAIN, check_round_trip, crop
from tests.patchcore.test_fit import two_passes
from tests.patchcore.test_slow_twin import make_images, make_model, two_layers
from tests.support import call, evaluate, make_category, one_thread, read_maps, read_table

PERCENTAGE = 0.2


@pytest.fixture(autouse=True)
def in_one_thread():
    with one_thread():
        yield


def fit(images=TRAIN, **options) -> PatchCore:
    model = make_model(
        two_layers(), SIDE, percentage_coreset=PERCENTAGE, embed_dim=160, context=0.5, **options
    )
    return model.fit(images)


def shrink(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)


def twins(**options) -> list[FamilyTwin]:
    """Return the twin of the images and that of their smaller copies."""
    crops = [crop(image) for image in TRAIN]
    return [
        FamilyTwin(two_layers(), images, **options) for images in (crops, list(map(shrink, crops)))
    ]


def normal_scores(twin: FamilyTwin, indices: np.ndarray) -> tuple[float, float]:
    """Score each training patch by the coreset without itself; return mean and deviation."""
    patches = torch.cat([features[0].flatten(0, 1) for features in twin.embedded])
    distances = torch.cdist(patches, patches[indices], compute_mode="donot_use_mm_for_euclid_dist")
    itself = torch.arange(len(patches))[:, None] == torch.from_numpy(indices)
    nearest = distances.masked_fill(itself, torch.inf).topk(twin.k, largest=False).values
    scores = nearest.mean(1)
    return float(scores.mean()), float(scores.std(correction=0))


@pytest.mark.parametrize(
    "options", [{}, {"k": 2, "distance": "euclidean"}, {"image_score": "top_share"}], ids=str
)
def test_matches_the_twins(tmp_path, options):
    """Half of the score is the small image's, in the unit of the large one; maps are the large."""
    model = fit(**options)
    large, small = twins(**options)
    plain = make_model(
        two_layers(), SIDE // 2, percentage_coreset=PERCENTAGE, embed_dim=160, **options
    )
    framed = [cv2.copyMakeBorder(shrink(crop(i)), *[4] * 4, cv2.BORDER_REPLICATE) for i in TRAIN]
    indices = model.coreset.indices, plain.fit(framed).coreset.indices
    small.check_selection(indices[1], PERCENTAGE)
    (mean, std), (small_mean, small_std) = map(normal_scores, (large, small), indices)
    found = model.predict(TEST)
    for number, image in enumerate(TEST):
        score, anomaly_map, *_ = large.judge(crop(image), indices[0])
        small_score, *_ = small.judge(shrink(crop(image)), indices[1])
        expected = (score + mean + (small_score - small_mean) / small_std * std) / 2
        assert found.score[number] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(found.anomaly_map[number], anomaly_map, 1e-5, 1e-7)
    check_round_trip(model, tmp_path / "model")


def test_the_large_images_bank_is_the_one_without_a_context():
    found = fit()
    expected = make_model(two_layers(), SIDE, percentage_coreset=PERCENTAGE, embed_dim=160)
    expected.fit(TRAIN)
    np.testing.assert_array_equal(found.coreset.indices, expected.coreset.indices)
    predictions = [model.predict(TEST) for model in (found, expected)]
    np.testing.assert_array_equal(*(one.anomaly_map for one in predictions))
    assert found.thresholds.pixel == expected.thresholds.pixel
    assert found.thresholds.image != expected.thresholds.image


def test_thresholds_are_of_joined_scores():
    """They stay at their nominal rate: new normal images are below, twice as large ones above."""
    model = fit(make_images(40, SIDE))
    threshold = model.thresholds.image
    scores = model.predict(make_images(40, SIDE, seed=9)).score
    assert (scores >= threshold.value).mean() <= 0.1
    held_out = model.trained.held_out
    assert len(held_out.image_scores) == 40
    assert sorted(held_out.images) == list(range(40))
    assert (np.diff(held_out.image_scores) >= 0).all()


def test_joined_scores_of_held_out_images():
    pair = NormalScores(10, 2), NormalScores(1, 0.5)
    context = TrainedContext(None, (1,), (pair,))
    own = HeldOutScores(np.float32([12, 20]), np.float32([7]), np.array([2, 1]))
    small = HeldOutScores(np.float32([1, 2]), np.float32([9]), np.array([1, 2]))
    found = context.join_held_out(0, own, small)
    # Image 1: (20 + 10 + (1 - 1) * 4) / 2; image 2: (12 + 10 + (2 - 1) * 4) / 2.
    np.testing.assert_array_equal(found.image_scores, np.float32([13, 15]))
    np.testing.assert_array_equal(found.images, [2, 1])
    np.testing.assert_array_equal(found.pixel_scores, own.pixel_scores)
    assert context.join_held_out(0, own, None) is context.join_held_out(0, None, small) is None


def test_two_passes_give_the_same(monkeypatch):
    expected = fit()
    two_passes(monkeypatch)
    found = fit()
    np.testing.assert_array_equal(*(model.predict(TEST).score for model in (found, expected)))
    assert found.thresholds == expected.thresholds


def test_ignored_pixels_do_not_count_in_the_small_images_either():
    mask = np.zeros((SIDE + 8, SIDE + 8), bool)  # as the images, with their margin
    mask[:, : SIDE // 2 + 4] = True
    model = make_model(
        two_layers(),
        SIDE,
        percentage_coreset=PERCENTAGE,
        embed_dim=160,
        context=0.5,
        ignore_mask=mask,
    ).fit(TRAIN)
    np.testing.assert_array_equal(model.context.scorer.ignored.pixels[0], np.arange(16) < 8)
    scorer, crops = model.context.scorer, np.stack([crop(image) for image in TEST])
    crops[:, :, : SIDE // 4] = 255  # the most anomalous part is ignored
    bank = model.trained.context.bank
    (small,) = scorer.predict(model.context.embed(crops), bank, [len(bank)])
    judged = small.distance[:, ~scorer.ignored.patches].amax((1, 2))
    assert torch.equal(small.score, judged)
    assert (small.score < small.distance.amax((1, 2, 3))).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 1.5}, r"context in \[0, 1\], found 1.5"),
        ({"context": 1}, "context below 1"),
        ({"scales": (1, 0.5)}, r"scales 1.0 with context 0.5, .* \(scales, context\)"),
        ({"tile": 16, "overlap": 8}, r"tile 0 with context 0.5"),
        ({"search_radius": 1}, r"search_radius -1 with context 0.5"),
        ({"retrieve_images": 2}, r"retrieve_images 0 with context 0.5"),
        ({"context": 0.001}, r"size_resize of at least 1"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(PatchCoreError, match=message):
        make_model(two_layers(), SIDE, **{"context": 0.5} | options)


def test_a_vision_transformer_has_one_size():
    with pytest.raises(
        PatchCoreError, match=r"images of 16x16 pixels .*\(context 0.5; 0 for none\)"
    ):
        PatchCore(
            "timm:vit_tiny_patch16_224",
            ["blocks.1"],
            weights="random",
            size_resize=32,
            size_crop=32,
            context=0.5,
        )


def test_what_cannot_have_it(tmp_path):
    model = fit()
    with pytest.raises(PatchCoreError, match=r"second bank of smaller images \(context\)"):
        model.extend(TEST)
    with pytest.raises(PatchCoreError, match="context"):
        export(model, tmp_path / "model.pt2", "torch")
    with pytest.raises(PatchCoreError, match=r"one bank \(save_index, context\)"):
        model.save(tmp_path / "model", faiss_index=True)


def test_the_smaller_images_need_enough_patches_too():
    """They have 96 of them, the large ones 384."""
    with pytest.raises(PatchCoreError, match=r"^in the smaller images \(context\): .* k = 5 .* 96"):
        make_model(two_layers(), SIDE, percentage_coreset=0.05, context=0.5, k=5).fit(TRAIN)


def test_the_commands_evaluate_save_and_infer_with_it(tmp_path):
    """The saved model is of the first seed, and gives the scores of the evaluation."""
    data = make_category(tmp_path / "data", "widget").parent
    flags = "--context 0.5 --percentage_coreset 0.1 0.3 --seed 1 0 --save_maps"
    evaluate(data, tmp_path / "result", f"{flags} --path_trained {tmp_path / 'models'}")
    rows = {(r["percentage_coreset"], r["seed"]): r for r in read_table(tmp_path / "result")}
    saved = read_maps(tmp_path / "result", rows["0.3", "1"])
    expected = dict(zip(saved["files"], saved["scores"], strict=True))
    words = f"--path_trained {tmp_path / 'models'} --percentage_coreset 0.3 --threshold 1"
    words += f" --path_result {tmp_path / 'inferred'} --batch_size 8"
    call("infer", data / "widget/test", *words.split())
    found = read_table(tmp_path / "inferred/predictions.csv")
    assert len(found) == len(expected)
    for prediction in found:
        name = "/".join(Path(prediction["path"]).parts[-2:])
        assert float(prediction["score"]) == pytest.approx(expected[name], rel=1e-5)


def test_copies_are_in_one_fold_of_both():
    """Two images may differ and have equal small copies: the folds of both are the images'."""
    images = make_images(12, SIDE)
    checkered = images[0] // 2 + 16  # its copies lose what is added to two pixels of four
    changed = checkered.copy()
    changed[::2, ::2] += 8
    changed[1::2, ::2] -= 8
    images += [checkered, changed, images[3].copy()]
    model = fit(images)
    crops = CroppedImages([crop(image) for image in images], (), 8)
    request = FitRequest(model.percentages)
    result = fit_images(model.embedder, model.scorer, crops, request, context=model.context)
    np.testing.assert_array_equal(result.copies, [*range(14), 3])
    np.testing.assert_array_equal(result.context.copies, result.copies)
    assert len(model.trained.held_out.image_scores) == 14
    assert result.first.patches is not None
    assert result.context.first.patches is None  # nothing shows them


def test_small_images_are_means_of_pixels():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 12, 3), dtype=np.uint8)
    means = image.reshape(1, 2, 4, 3, 4, 3).mean((2, 4))
    np.testing.assert_allclose(shrink_batch(image, (2, 3)), means, atol=0.51)


def test_of_several_percentages_the_largest_predicts():
    several, one = (
        make_model(two_layers(), SIDE, percentage_coreset=p, embed_dim=160, context=0.5).fit(TRAIN)
        for p in ((0.05, 0.3), 0.3)
    )
    np.testing.assert_array_equal(several.predict(TEST).score, one.predict(TEST).score)


def test_maps_of_small_images_are_smoothed_as_much_as_the_large_ones():
    assert Settings(size_crop=64, sigma=4, context=0.5).of_context().sigma == 2


def test_a_result_of_the_first_seed_and_the_memory_that_is_left():
    model = fit()
    budgets = []

    class Engine(LocalEngine):
        def plan(self, needs, budget, device):
            budgets.append(budget)
            return super().plan(needs, budget, device)

    crops = CroppedImages([crop(image) for image in TRAIN], (), 8)
    request = FitRequest(model.percentages, (1, 0), memory_budget=1)
    result = fit_images(
        model.embedder, model.scorer, crops, request, engine=Engine(), context=model.context
    )
    kept = sum(coreset.bank.embeddings.nbytes for coreset in result.coresets.values())
    assert budgets == [1, pytest.approx(1 - kept / 1e9)]
    first = result.of_first_seed()
    assert list(first.coresets) == list(first.context.coresets) == [1]
    assert list(first.normal) == list(first.context.normal) == [1]


def test_half_precision_halves_both_banks(tmp_path):
    fit().save(tmp_path / "model", dtype="float16")
    tensors = load_file(tmp_path / "model/model.safetensors")
    assert {tensors[name].dtype for name in ("embeddings", "context_embeddings")} == {torch.float16}


def test_a_context_of_one_patch_is_read():
    scores = {"mean": 1.0, "std": 0.5}
    context = {"normal": [[scores, scores]], "coreset_sizes": [1]}
    settings, tensors = Settings(context=0.5), {"context_embeddings": torch.ones(1, 4)}
    found = _read_context({"context": context}, settings, tensors, 1, torch.device("cpu"))
    assert found.sizes == (1,)
    assert torch.equal(found.bank.embeddings, torch.ones(1, 4))
