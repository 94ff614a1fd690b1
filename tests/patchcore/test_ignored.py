"""Ignored pixels: to ignore patches is the same as to delete them by hand, everywhere."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.ndimage import rotate

from patchcore import PatchCore, PatchCoreError
from patchcore.anomaly_map import AnomalyMap
from patchcore.coreset import greedy_coreset
from patchcore.ensemble import draw_sample, normal_scores
from patchcore.explain import find_most_anomalous
from patchcore.export import export
from patchcore.folds import NUM_FOLDS
from patchcore.greedy import centre
from patchcore.ignored import IgnoreMask
from patchcore.judged_patches import judged_versions
from patchcore.preprocess import Preprocess
from patchcore.settings import IMAGE_SCORES
from patchcore.shards import LocalShards
from tests.patchcore.test_fit import (
    GRID,
    PATCHES,
    SIDE,
    embed_in_order,
    fit_images,
    make_images,
    make_model,
    nearest_by_hand,
    two_passes,
)
from tests.support import one_thread

CELL = SIDE // GRID
WHOLE = Preprocess((SIDE, SIDE), (SIDE, SIDE))


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def make_mask() -> np.ndarray:
    """Ignore the upper left 2 x 1 cells and a bit more than half of the cell to their right."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[: 2 * CELL, :CELL] = True
    mask[: CELL // 2 + 1, CELL : 2 * CELL] = True
    return mask


IGNORED = np.zeros((GRID, GRID), bool)
IGNORED[0, :2] = IGNORED[1, 0] = True


def blot(images: list[np.ndarray]) -> list[np.ndarray]:
    """Return the images with a grey of their own in ignored cells."""
    for number, image in enumerate(images):
        image[: 2 * CELL, :CELL] = 60 * number
    return images


def masked_model(**options) -> PatchCore:
    return make_model(ignore_mask=make_mask(), **options)


def judged_numbers(num_embedded: int, augment=()) -> np.ndarray:
    """Return the numbers of the judged patches; each image is followed by its flips."""
    axes = {"horizontal": 1, "vertical": 0}
    masks = [~IGNORED, *(~np.flip(IGNORED, axes[flip]) for flip in augment)]
    repeated = [masks[number % len(masks)].ravel() for number in range(num_embedded)]
    return np.flatnonzero(np.concatenate(repeated))


class TestMask:
    def test_a_patch_is_ignored_if_half_of_its_cell_is(self):
        mask = np.zeros((8, 8), bool)
        mask[:2, :1] = True  # half of the cell of 2 x 2 pixels
        mask[0, 2] = True  # a quarter
        mask[4:7, 4:8] = True
        found = IgnoreMask.of(mask, Preprocess((8, 8), (8, 8))).patches((4, 4))
        assert np.argwhere(found).tolist() == [[0, 0], [2, 2], [2, 3], [3, 2], [3, 3]]

    @settings(max_examples=50, deadline=None)
    @given(
        size=st.tuples(st.integers(3, 14), st.integers(3, 14)),
        grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        seed=st.integers(0, 99),
    )
    def test_cells_need_not_end_between_pixels(self, size, grid, seed):
        """Each pixel is divided into h x w parts, of which each is in one cell."""
        mask = np.random.default_rng(seed).random(size) < 0.4
        if not mask.any():
            return
        parts = np.kron(mask, np.ones(grid))  # (H h, W w)
        by_cell = parts.reshape(grid[0], size[0], grid[1], size[1]).mean(axis=(1, 3))
        expected = by_cell >= 0.5 - 1e-12
        mask = IgnoreMask(mask, size)
        if expected.all():
            with pytest.raises(PatchCoreError, match="leaves a patch to judge"):
                mask.patches(grid)
        else:
            np.testing.assert_array_equal(mask.patches(grid), expected)

    def test_it_is_cropped_as_the_images(self):
        preprocess = Preprocess((40, 40), (32, 32))
        mask = np.zeros((80, 80), bool)
        mask[8:40, 8:24] = True
        found = IgnoreMask.of(mask, preprocess)
        np.testing.assert_array_equal(found.pixels, preprocess.crop_mask(mask))
        assert (found.pixels.sum(), found.size) == (16 * 8, (80, 80))

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.zeros((8, 8), bool), "one that ignores nothing in the crop of 32x32 pixels"),
            (np.ones((8, 8), bool), "one that ignores everything in the crop"),
            (np.zeros((8, 8), np.uint8), r"a mask \(H, W\) bool, found uint8 \(8, 8\)"),
            (np.zeros((8, 8, 3), bool), r"a mask \(H, W\) bool, found bool \(8, 8, 3\)"),
            ("mask.png", r"a mask \(H, W\) bool, found str"),
        ],
    )
    def test_refuses_what_is_no_mask(self, mask, message):
        with pytest.raises(PatchCoreError, match=rf"{message}.* \(ignore_mask\)"):
            IgnoreMask.of(mask, WHOLE)

    def test_refuses_a_mask_that_leaves_no_patch(self):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[::2] = True
        with pytest.raises(PatchCoreError, match=r"at least half of each of the 4x4 cells"):
            make_model(ignore_mask=mask)

    @pytest.mark.parametrize(
        ("size", "fits"),
        [
            ((500, 333), True),
            ((3000, 2000), True),
            ((1000, 667), True),
            ((667, 1000), False),
            ((500, 350), False),
        ],
    )
    @pytest.mark.parametrize("is_turned", [False, True])
    def test_images_have_its_proportions(self, size, fits, is_turned):
        own_size = (1000, 666)
        if is_turned:
            size, own_size = size[::-1], own_size[::-1]
        mask = IgnoreMask(make_mask(), own_size)
        if fits:
            mask.check(size)
            return
        message = f"{own_size[1]}x{own_size[0]}, found {size[1]}x{size[0]}: give a mask for"
        with pytest.raises(PatchCoreError, match=re.escape(message)):
            mask.check(size)

    def test_fit_and_predict_check_the_proportions(self):
        wide = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
        with pytest.raises(PatchCoreError, match="found 64x32"):
            masked_model().fit([*make_images(3), wide])
        model = masked_model(percentage_coreset=0.5).fit(make_images(3))
        with pytest.raises(PatchCoreError, match="found 64x32"):
            model.predict([wide])

    def test_a_pixel_of_smaller_images_is_ignored_if_half_of_it_is(self):
        pixels = np.zeros((4, 6), bool)
        pixels[:2, 0] = True  # half of the first pixel
        pixels[0, 2] = True  # a quarter of the second
        pixels[2:, 4:] = True
        found = IgnoreMask(pixels, (40, 60)).resized((2, 3))
        assert found.pixels.tolist() == [[True, False, False], [False, False, True]]
        assert found.size == (40, 60)
        pixels[:] = False
        pixels[0, 2] = True
        assert IgnoreMask(pixels, (40, 60)).resized((2, 3)) is None

    def test_masks_are_joined(self):
        left, top = (np.zeros((SIDE, SIDE), bool) for _ in range(2))
        left[:, :CELL], top[:CELL] = True, True
        joined = IgnoreMask(left, (9, 9)).joined(IgnoreMask(top, (18, 18)))
        np.testing.assert_array_equal(joined.pixels, left | top)
        with pytest.raises(PatchCoreError, match="together ignore everything"):
            IgnoreMask(left, (9, 9)).joined(IgnoreMask(~left, (9, 9)))
        with pytest.raises(PatchCoreError, match="9x9, found 10x5"):
            IgnoreMask(left, (9, 9)).joined(IgnoreMask(top, (5, 10)))


class TestFit:
    @pytest.mark.parametrize("passes", [1, 2])
    @pytest.mark.parametrize("augment", [(), ("horizontal", "vertical")])
    def test_the_coreset_is_that_of_the_other_patches(self, augment, passes, monkeypatch):
        if passes == 2:
            two_passes(monkeypatch)
        model = masked_model(percentage_coreset=(0.1, 0.4), augment=augment)
        images = make_images(5)
        found = fit_images(model, images, batch_size=1, seeds=(3, 0), held_out=False)
        _, embeddings = embed_in_order(model, images, batch_size=1)
        judged = judged_numbers(len(embeddings) // PATCHES, augment)
        rest = embeddings[judged]
        assert len(rest) == 5 * (1 + len(augment)) * (PATCHES - 3)
        for seed, coreset in found.coresets.items():
            expected = greedy_coreset(rest, int(len(rest) * 0.4), seed=seed).numpy()
            np.testing.assert_array_equal(coreset.indices, judged[expected])
            assert coreset.sizes == (int(len(rest) * 0.1), int(len(rest) * 0.4))
        origins = found.first.origins
        ignored = [IGNORED, IGNORED[:, ::-1], IGNORED[::-1]]
        places = zip(origins.version, origins.row, origins.column, strict=True)
        assert not any(ignored[v][r, c] for v, r, c in places)

    def test_rotations_ignore_what_a_rotated_mask_does(self):
        model = masked_model(percentage_coreset=1.0, augment=("rotations", "brightness"))
        found = dict(
            zip(model.embedder.versions, judged_versions(model.embedder, model.scorer), strict=True)
        )
        for turns in range(4):
            version = f"rotated {90 * turns}" if turns else ""
            np.testing.assert_array_equal(found[version], ~np.rot90(IGNORED, turns))
        for version in ("brightness 0.8", "brightness 1.2"):
            np.testing.assert_array_equal(found[version], ~IGNORED)
        for angle in range(45, 360, 90):
            turned = rotate(make_mask() * 1.0, angle, reshape=False, order=1, mode="mirror") > 1e-3
            share = turned.reshape(GRID, CELL, GRID, CELL).mean((1, 3))
            np.testing.assert_array_equal(found[f"rotated {angle}"], share < 0.5)
        images = make_images(2)
        origins = model.fit(images).coreset.origins
        judged = [found[version] for version in origins.versions]
        assert len(origins.row) == len(images) * sum(int(one.sum()) for one in judged)
        places = zip(origins.version, origins.row, origins.column, strict=True)
        assert all(judged[v][r, c] for v, r, c in places)

    def test_scores_of_training_patches_are_those_of_the_other_patches(self):
        model, images = masked_model(percentage_coreset=0.3), make_images(5)
        found = fit_images(model, images, held_out=False, normal=True)
        _, embeddings = embed_in_order(model, images)
        judged = judged_numbers(5)
        sample = judged[draw_sample(len(judged), 0)]
        assert found.normal[0] == normal_scores(
            embeddings[sample], sample, found.first, model.scorer
        )
        assert len(sample) == 5 * (PATCHES - 3)

    def test_held_out_images_are_scored_without_them(self):
        model, images = masked_model(percentage_coreset=0.4), make_images(7)
        (found,) = fit_images(model, images).held_out
        _, embeddings = embed_in_order(model, images)
        by_image = embeddings.view(7, PATCHES, -1)[:, ~IGNORED.ravel()]
        order = np.random.RandomState(0).permutation(7)
        expected = {}
        for fold in range(NUM_FOLDS):
            out = [image for place, image in enumerate(order) if place % NUM_FOLDS == fold]
            rest = by_image[[i for i in range(7) if i not in out]].flatten(0, 1)
            bank = rest[greedy_coreset(rest, int(len(rest) * 0.4))]
            expected |= {i: nearest_by_hand(by_image[i], bank, 1).max() for i in out}
        own = [expected[number] for number in found.images]
        np.testing.assert_allclose(found.image_scores, own, rtol=1e-4)
        np.testing.assert_allclose(found.image_scores, np.sort(list(expected.values())), rtol=1e-4)
        # A judged pixel of a map is above 0; an ignored one would be the lowest of all.
        assert found.pixel_scores[-1] > 0.1

    def test_a_coreset_size_counts_judged_patches(self):
        model = masked_model(percentage_coreset=0.05)
        model.fit(make_images(5))
        assert model.coreset.sizes == (int(5 * 13 * 0.05),)
        with pytest.raises(PatchCoreError, match=r"found 0: 0.05 of 13 training patches"):
            model.fit(make_images(1))


def map_by_loops(scores: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray:
    """Return a map as weighted means of the judged patches alone."""
    weights = np.stack(
        [
            AnomalyMap((GRID, GRID), size, sigma)(torch.eye(PATCHES)[patch].view(1, GRID, GRID))[
                0
            ].numpy()
            for patch in range(PATCHES)
        ]
    )  # (h w, H, W)
    kept = weights[~IGNORED.ravel()]
    expected = np.zeros(size)
    for row, column in np.argwhere(kept.sum(0) > 1e-6):
        weight = kept[:, row, column].astype(np.float64)
        expected[row, column] = weight @ scores[~IGNORED] / weight.sum()
    expected[make_mask()] = 0
    return expected


class TestPredict:
    @pytest.mark.parametrize("k", [1, 2])
    @pytest.mark.parametrize("image_score", IMAGE_SCORES)
    def test_against_deleting_patches_by_hand(self, image_score, k):
        options = {"percentage_coreset": 0.5, "image_score": image_score, "k": k}
        options |= {"num_reweight": 4, "sigma": 3.0, "top_share": 0.9}
        model, images = masked_model(**options), make_images(4)
        found = model.fit(images).predict(make_images(5, seed=1))
        bank = model.coreset.bank.embeddings
        for number, image in enumerate(make_images(5, seed=1)):
            embedded = model.embedder.embed(image[None])[0].flatten(0, 1)
            scores = nearest_by_hand(embedded, bank, k).reshape(GRID, GRID)
            expected = map_by_loops(scores, (SIDE, SIDE), 3.0)
            np.testing.assert_allclose(found.anomaly_map[number], expected, rtol=1e-4, atol=1e-6)
            judged = scores.ravel()[~IGNORED.ravel()]
            pixels = expected[~make_mask()]
            values = {
                "max_patch": judged.max(),
                "max_map": expected.max(),
                "top_share": np.sort(judged)[-int(13 * 0.9) :].mean(),
                "top_share_map": np.sort(pixels)[-int(len(pixels) * 0.9) :].mean(),
            }
            value = values.get(image_score)
            if image_score == "reweighted":
                at = np.flatnonzero(~IGNORED.ravel())[judged.argmax()]
                distances = (bank - embedded[at]).norm(dim=1)
                near = (bank - bank[distances.argmin()]).norm(dim=1).argsort()[:4]
                value = judged.max() * float(1 - torch.softmax(distances[near], 0)[0])
            assert found.score[number] == pytest.approx(value, rel=1e-4)

    @pytest.mark.parametrize(
        "options",
        [{}, {"retrieve_images": 1}, {"foreground": "pca", "foreground_threshold": 3.0}],
        ids=["default", "retrieve_images", "foreground"],
    )
    def test_what_is_ignored_changes_nothing_else(self, options):
        """Of a network of which each patch sees its cell alone."""
        options = {"percentage_coreset": 0.5, "patch_size": 1} | options
        model = masked_model(**options).fit(make_images(4))
        expected = model.predict(make_images(3, seed=1))
        again = masked_model(**options).fit(blot(make_images(4)))
        np.testing.assert_array_equal(again.coreset.indices, model.coreset.indices)
        assert again.thresholds == model.thresholds
        found = again.predict(blot(make_images(3, seed=1)))
        np.testing.assert_array_equal(found.score, expected.score)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        if "foreground" in options:
            judged = expected.distance[:, ~IGNORED]
            assert (judged == 0).any()
            assert (judged > 0).any()
        else:
            assert not np.array_equal(found.distance, expected.distance)
        assert (found.anomaly_map[:, make_mask()] == 0).all()
        assert (found.anomaly_map[:, ~make_mask()] > 0).any()

    def test_pixels_far_from_judged_patches_are_ignored_too(self):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[:CELL] = True
        mask[0, 0] = False
        judged = AnomalyMap((GRID, GRID), (SIDE, SIDE), 0.0, IgnoreMask(mask, mask.shape))
        assert judged.ignored.pixels[:CELL].all()
        assert not judged.ignored.pixels[CELL:].any()
        found = judged(torch.full((1, GRID, GRID), 2.5))
        np.testing.assert_allclose(found[0, CELL:], 2.5, rtol=1e-6)
        assert (found[0, :CELL] == 0).all()

    def test_an_overflow_within_is_harmless(self):
        anomaly_map = AnomalyMap((GRID, GRID), (SIDE, SIDE), 4.0, IgnoreMask(make_mask(), (9, 9)))
        scores = torch.ones(1, GRID, GRID)
        scores[:, IGNORED] = torch.inf
        assert anomaly_map(scores).isfinite().all()

    def test_explanations_leave_them_out(self):
        distance = np.random.default_rng(0).random((GRID, GRID, 1))
        distance[0, 0] = 9
        assert find_most_anomalous(distance, 1) == [(0, 0)]
        assert not IGNORED[find_most_anomalous(distance, 1, IGNORED)[0]]


class TestStorage:
    def test_a_model_keeps_its_mask(self, tmp_path):
        model = make_small_model().fit(make_images(4))
        model.save(tmp_path / "one")
        assert load_file(tmp_path / "one/model.safetensors")["ignored"].shape == (SIDE, SIDE)
        again = PatchCore.load(tmp_path / "one")
        np.testing.assert_array_equal(again.mask.pixels, model.mask.pixels)
        assert again.mask.size == (2 * SIDE, 2 * SIDE)
        images = make_images(3, seed=2)
        expected, found = model.predict(images), again.predict(images)
        np.testing.assert_array_equal(found.score, expected.score)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        with pytest.raises(PatchCoreError, match="found 64x32"):
            again.predict([np.zeros((32, 64, 3), np.uint8)])

    def test_a_mask_given_at_loading_is_joined(self, tmp_path):
        make_small_model().fit(make_images(4)).save(tmp_path / "one")
        more = np.zeros((SIDE, SIDE), bool)
        more[-CELL:] = True
        own = PatchCore.load(tmp_path / "one").mask.pixels
        joined = PatchCore.load(tmp_path / "one", ignore_mask=more)
        np.testing.assert_array_equal(joined.mask.pixels, own | more)
        assert own[0, 0]
        assert (joined.predict(make_images(2)).anomaly_map[:, own | more] == 0).all()

    @pytest.mark.parametrize("own", [{}, {"ignore_mask": None}])
    @pytest.mark.parametrize("grows", [True, False])
    def test_a_mask_given_at_loading_is_saved_again(self, tmp_path, own, grows):
        make_small_model(**own).fit(make_images(4)).save(tmp_path / "one")
        loaded = PatchCore.load(tmp_path / "one", ignore_mask=np.flip(make_mask()))
        if grows:
            loaded.extend(make_images(2, seed=1))
        loaded.save(tmp_path / "two")
        again = PatchCore.load(tmp_path / "two")
        np.testing.assert_array_equal(again.mask.pixels, loaded.mask.pixels)
        images = make_images(3, seed=2)
        expected, found = loaded.predict(images), again.predict(images)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)

    def test_a_model_without_a_mask_judges_by_one(self, tmp_path):
        small = make_small_model(ignore_mask=None).fit(make_images(4))
        small.save(tmp_path / "one")
        plain = PatchCore.load(tmp_path / "one")
        assert plain.mask is plain.scorer.ignored is None
        masked = PatchCore.load(tmp_path / "one", ignore_mask=make_mask())
        assert masked.thresholds == plain.thresholds
        image = make_images(1)[0]
        image[:CELL, :CELL] = 255
        assert (masked.predict([image]).anomaly_map[:, make_mask()] == 0).all()

    @pytest.mark.parametrize(
        "image_score",
        [
            *("max_patch", "top_share"),
            *(
                pytest.param(name, marks=pytest.mark.slow)
                for name in ("reweighted", "top_share_map")
            ),
        ],
    )
    def test_an_exported_file_ignores_it_too(self, tmp_path, image_score):
        """`export` compares the file's scores and maps with the model's."""
        model = make_small_model(image_score=image_score, top_share=1.0).fit(make_images(4))
        path = tmp_path / "model.pt2"
        assert export(model, path, "torch").difference < 1e-4
        program = torch.export.load(path).module()
        _, maps = program(torch.randint(0, 255, (2, 3, SIDE, SIDE), dtype=torch.uint8))
        assert (maps[:, torch.from_numpy(model.scorer.ignored.pixels)] == 0).all()


def make_small_model(**options) -> PatchCore:
    """Return a model with a mask of twice the size, and a backbone that can be loaded by name."""
    mask = {"ignore_mask": np.kron(make_mask(), np.ones((2, 2))).astype(bool)}
    return PatchCore(
        "squeezenet1_1",
        ("features.3", "features.6"),
        weights="random",
        size_resize=(SIDE, SIDE),
        size_crop=(SIDE, SIDE),
        embed_dim=48,
        **mask | options,
    )


@pytest.mark.parametrize("image_score", IMAGE_SCORES)
def test_without_a_mask_there_is_nothing_of_it(image_score):
    model = make_model(percentage_coreset=0.5, image_score=image_score)
    assert model.mask is model.scorer.ignored is None
    assert {name for name, _ in model.scorer.anomaly_map.named_buffers()} == {"rows", "columns"}
    assert model.fit(make_images(3)).trained.mask is None


def test_points_are_centred_as_if_the_others_were_not_there():
    points = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + 100
    candidates = torch.arange(60) % 3 > 0
    alone = points[candidates]
    centre(LocalShards.of(alone), 3)
    centre(LocalShards.of(points, candidates), 3)
    assert torch.equal(points[candidates], alone)
