"""Each setting of the method against its slow twin, and through save, load and export."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from patchcore import PatchCore, PatchCoreError
from patchcore.augment import changed
from patchcore.backbone import Backbone
from patchcore.ensemble import normal_scores
from patchcore.export import export
from patchcore.foreground import first_component, foreground_of
from patchcore.memory_bank import LayeredBank
from patchcore.patch_embedding import PlainEmbedding
from patchcore.settings import Settings
from patchcore.tiling import Tiling
from patchcore.tiling import _spread as spread
from tests.patchcore.family_twin import FamilyTwin
from tests.patchcore.test_fit import two_passes
from tests.patchcore.test_slow_twin import MARGIN, make_images, make_model, two_layers
from tests.support import one_thread

SIDE = 32  # pixels, a grid of 8x8
TRAIN, TEST = make_images(6, SIDE), make_images(3, SIDE, seed=1)


@pytest.fixture(autouse=True)
def in_one_thread():
    with one_thread():
        yield


def crop(image):
    return image[MARGIN:-MARGIN, MARGIN:-MARGIN]


def make_pair(percentage=0.2, **options):
    """Fit a model and make its twin."""
    sizes = {} if "neighbourhood" in options else {"embed_dim": 160}
    model = make_model(
        two_layers(), SIDE, percentage_coreset=percentage, **{"embed_dim": 1024} | sizes | options
    ).fit(TRAIN)
    return model, FamilyTwin(two_layers(), [crop(image) for image in TRAIN], **options)


def check_predictions(model, twin, rtol=1e-5):
    """Check scores, maps, distances and neighbours of test images against the twin."""
    found = model.predict(TEST)
    for number, image in enumerate(TEST):
        score, anomaly_map, distance, nearest = twin.judge(crop(image), model.coreset.indices)
        assert found.score[number] == pytest.approx(score, rel=rtol)
        np.testing.assert_allclose(found.anomaly_map[number], anomaly_map, rtol, 1e-7)
        np.testing.assert_allclose(found.distance[number], distance, rtol, 1e-7)
        np.testing.assert_array_equal(found.nearest[number], nearest)
    return found


def check_round_trip(model, folder):
    """Check that a saved model gives the same predictions."""
    expected = model.predict(TEST)
    model.save(folder)
    backbone = make_model(two_layers(), SIDE).backbone
    found = PatchCore.load(folder, backbone=backbone).predict(TEST)
    for name in ("score", "anomaly_map", "distance", "nearest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def check_setting(tmp_path, percentage=0.2, exports=True, **options):
    """Check a model against its twin, saved and loaded, and exported."""
    model, twin = make_pair(percentage, **options)
    twin.check_selection(model.coreset.indices, percentage)
    check_predictions(model, twin)
    check_round_trip(model, tmp_path / "model")
    if exports:
        assert export(model, tmp_path / "model.pt2", "torch", images=TEST).difference < 1e-4
    return model, twin


class TestDistance:
    @pytest.mark.parametrize(
        "options",
        [{}, {"k": 3}, {"image_score": "reweighted", "num_reweight": 4}],
        ids=["k1", "k3", "reweighted"],
    )
    def test_cosine(self, tmp_path, options):
        model, _ = check_setting(tmp_path, distance="cosine", **options)
        np.testing.assert_allclose(model.coreset.bank.embeddings.norm(dim=1), 1, rtol=1e-6)

    def test_the_length_of_features_does_not_matter(self):
        images = [np.full_like(TRAIN[0], 40), np.full_like(TRAIN[0], 200)]
        near, far = (make_model(two_layers(), SIDE, distance=d) for d in ("cosine", "euclidean"))
        scores = [m.fit(TRAIN).predict(images).score for m in (near, far)]
        assert (scores[0] <= 2).all()
        assert (scores[1] > 2).all()

    def test_thresholds_are_in_its_unit(self):
        model, _ = make_pair(distance="cosine")
        normal = make_images(20, SIDE, seed=5)
        assert 0 < model.thresholds.image.value < 1.2 * model.predict(normal).score.max()


class TestTopShare:
    @pytest.mark.parametrize("image_score", ["top_share", "top_share_map"])
    @pytest.mark.parametrize("share", [0.001, 0.1, 1.0], ids=str)
    def test_mean_of_the_largest(self, tmp_path, image_score, share):
        check_setting(tmp_path, image_score=image_score, top_share=share)

    def test_one_patch_is_the_largest_and_all_are_the_mean(self):
        few, all_of_them = (
            make_pair(image_score="top_share", top_share=share)[0].predict(TEST)
            for share in (1e-9, 1.0)
        )
        np.testing.assert_allclose(few.score, few.distance.max((1, 2, 3)))
        np.testing.assert_allclose(all_of_them.score, few.distance.mean((1, 2, 3)), rtol=1e-6)


class TestNeighbourhood:
    @pytest.mark.parametrize("distance", ["euclidean", "cosine"])
    def test_plain(self, tmp_path, distance):
        model, _ = check_setting(tmp_path, neighbourhood="plain", distance=distance)
        assert model.embedder.embed_dim == 8 + 16

    def test_layer_weights(self):
        maps = [torch.ones(1, 2, 4, 4), torch.ones(1, 3, 2, 2)]
        found = PlainEmbedding((2, 3), (2.0, 0.5))(maps)
        assert found[0, 1, 2].tolist() == [2, 2, 0.5, 0.5, 0.5]
        with pytest.raises(PatchCoreError, match=r"layer_weights for each of 2 layers"):
            PlainEmbedding((2, 3), (1.0,))


class TestBanks:
    @pytest.mark.parametrize(
        "options",
        [
            {"neighbourhood": "plain"},
            {"k": 2, "image_score": "max_map"},
            {"distance": "cosine", "image_score": "top_share", "top_share": 0.1},
            {"layer_weights": (1.0, 0.5)},
        ],
        ids=["plain", "k2", "cosine", "layer_weights"],
    )
    def test_one_bank_for_each_layer(self, tmp_path, options):
        percentage, options = (0.1, 0.2), {"banks": "per_layer"} | options
        model, twin = make_pair(percentage, **options)
        assert model.coreset.sizes == (2 * 38, 2 * 76)
        twin.check_selection(model.coreset.indices, 0.2)
        check_predictions(model, twin)
        check_round_trip(model, tmp_path / "model")
        assert export(model, tmp_path / "model.pt2", "torch", images=TEST).difference < 1e-4

    def test_a_smaller_percentage_is_a_prefix_of_each_bank(self):
        options = {"banks": "per_layer", "embed_dim": 160}
        both, small = (
            make_model(two_layers(), SIDE, percentage_coreset=p, **options).fit(TRAIN)
            for p in ((0.1, 0.2), 0.1)
        )
        first = both.coreset.part(0)
        np.testing.assert_array_equal(first.indices, small.coreset.indices)
        assert torch.equal(first.bank.embeddings, small.coreset.bank.embeddings)

    def test_their_rows_are_not_joined_for_each_batch(self, monkeypatch):
        model = make_model(two_layers(), SIDE, banks="per_layer", embed_dim=160).fit(TRAIN)
        monkeypatch.delattr(LayeredBank, "embeddings")
        model.predict(TEST)

    def test_two_passes_give_the_same(self):
        model = make_model(two_layers(), SIDE, banks="per_layer", embed_dim=160)
        one = model.fit(TRAIN).predict(TEST)
        needed = 6 * 64 * (2 * 128 + 2) * 4 + 400_000
        two = model.fit(TRAIN, memory_budget=needed / 1e9).predict(TEST)
        np.testing.assert_array_equal(one.score, two.score)

    def test_normal_scores_are_the_mean_of_both_banks(self):
        model, _ = make_pair(1.0, banks="per_layer", neighbourhood="plain", k=2)
        bank, numbers = model.coreset.bank, model.coreset.indices
        rows = [numbers[layer::2].argsort() for layer in range(2)]
        parts = [b.embeddings[torch.from_numpy(r)] for b, r in zip(bank.banks, rows, strict=True)]
        sample = np.arange(0, 6 * 64, 5)
        (found,) = normal_scores(
            torch.cat(parts, dim=1)[sample], sample, model.coreset, model.scorer
        )
        expected = torch.stack(
            [torch.cdist(p, p).double().sort(dim=1).values[sample, 1:3].mean(1) for p in parts]
        ).mean(0)
        assert found.mean == pytest.approx(float(expected.mean()), rel=1e-3)
        assert found.std == pytest.approx(float(expected.std(correction=0)), rel=1e-3)

    def test_there_is_no_faiss_index_of_several_banks(self, tmp_path):
        model, _ = make_pair(banks="per_layer")
        with pytest.raises(PatchCoreError, match=r"one bank \(save_index, banks\)"):
            model.save(tmp_path / "model", faiss_index=True)


class TestAugment:
    def test_rotations_by_right_angles_move_pixels(self):
        batch = np.stack([crop(image) for image in TRAIN])
        for turns in (1, 2, 3):
            expected = np.rot90(batch, turns, axes=(1, 2))
            np.testing.assert_array_equal(changed(batch, f"rotated {90 * turns}"), expected)

    def test_a_rotation_turns_about_the_centre_and_mirrors_beyond_the_border(self):
        rows, columns = np.indices((9, 13))
        image = np.stack([rows * 20, columns * 15, rows * 0], axis=2).astype(np.uint8)
        found = changed(image[None], "rotated 45")[0].astype(float)
        half = np.sqrt(0.5)
        for row, column in ((4, 6), (3, 7), (5, 5), (4, 8)):
            down, right = row - 4, column - 6
            there = 4 + half * (down + right), 6 + half * (right - down)
            np.testing.assert_allclose(found[row, column, :2], np.multiply(there, (20, 15)), atol=1)
        constant = np.full((1, 9, 13, 3), 77, np.uint8)
        np.testing.assert_array_equal(changed(constant, "rotated 135"), constant)

    def test_brightness(self):
        values = np.arange(256, dtype=np.uint8)
        image = np.broadcast_to(values[None, None, :, None], (1, 1, 256, 3))
        expected = [min(round(1.2 * value), 255) for value in range(256)]
        assert changed(image, "brightness 1.2")[0, 0, :, 1].tolist() == expected
        assert changed(image, "brightness 0.8")[0, 0, 200].tolist() == [160] * 3

    def test_flips(self):
        batch = np.stack([crop(image) for image in TRAIN])
        np.testing.assert_array_equal(changed(batch, "vertical flip"), batch[:, ::-1])
        np.testing.assert_array_equal(changed(batch, "horizontal flip"), batch[:, :, ::-1])
        assert changed(batch, "") is batch

    def test_all_versions_are_learned_and_found_again(self, tmp_path):
        augment = ("horizontal", "vertical", "rotations", "brightness")
        model = make_model(two_layers(), SIDE, percentage_coreset=1.0, augment=augment)
        model.fit(TRAIN[:2])
        versions = model.coreset.origins.versions
        assert len(versions) == 1 + 1 + 1 + 7 + 2
        assert len(model.coreset.indices) == 2 * 12 * 64
        for number, version in enumerate(versions):
            batch = changed(np.stack([crop(image) for image in TRAIN[:2]]), version)
            found = model.predict_crops([batch])
            np.testing.assert_allclose(found.score, 0, atol=1e-4)
            nearest = found.nearest[1, 3, 4, 0]  # patches of a version are those of its image
            assert model.coreset.origins.image[nearest] == 1
            assert model.coreset.origins.version[nearest] == number
            assert model.coreset.origins.row[nearest] == 3
        check_round_trip(model, tmp_path / "model")


def check_limit(tmp_path, caplog, **options):
    """Check a model with a limited search; return its log."""
    with caplog.at_level("INFO"):
        model, _ = check_setting(tmp_path, exports=False, **options)
    name = next(n for n in ("retrieve_images", "search_radius") if n in options)
    with pytest.raises(PatchCoreError, match=rf"model without .*\({name}\)"):
        export(model, tmp_path / "model.pt2", "torch")
    return caplog.text


class TestSearchRadius:
    @pytest.mark.parametrize(
        "options",
        [
            {"search_radius": 1, "percentage": 0.5},
            {"search_radius": 0, "percentage": 0.05, "k": 2},
            {"search_radius": 2, "banks": "per_layer", "neighbourhood": "plain"},
            {"search_radius": 1, "image_score": "reweighted", "num_reweight": 3},
        ],
        ids=["radius 1", "widened", "per_layer", "reweighted"],
    )
    def test_nearby_patches_only(self, tmp_path, caplog, options):
        log = check_limit(tmp_path, caplog, **options)
        assert ("fewer than k = 2 of 19 coreset patches" in log) == (options.get("k") == 2)

    def test_a_large_radius_is_no_limit(self):
        limited, whole = (
            make_model(two_layers(), SIDE, search_radius=r).fit(TRAIN).predict(TEST)
            for r in (7, -1)
        )
        np.testing.assert_array_equal(limited.nearest, whole.nearest)
        np.testing.assert_array_equal(limited.score, whole.score)

    def test_several_percentages(self):
        options = {"search_radius": 1, "embed_dim": 160}
        both = make_model(two_layers(), SIDE, percentage_coreset=(0.05, 0.5), **options).fit(TRAIN)
        small = both.coreset.part(0)
        embeddings = both.embedder.embed(np.stack([crop(image) for image in TEST]))
        first, _ = both.scorer.predict(embeddings, both.coreset.bank, both.coreset.sizes)
        (alone,) = both.scorer.predict(embeddings, small.bank, small.sizes)
        assert torch.equal(first.distance, alone.distance)
        twin = FamilyTwin(two_layers(), [crop(image) for image in TRAIN], search_radius=1)
        expected = twin.judge(crop(TEST[0]), small.indices)[2]
        np.testing.assert_allclose(first.distance[0], expected, rtol=1e-5)


class TestRetrieveImages:
    @pytest.mark.parametrize(
        "options",
        [
            {"retrieve_images": 2},
            {"retrieve_images": 1, "percentage": 0.02, "k": 3},
            {"retrieve_images": 2, "search_radius": 1, "percentage": 1.0},
            {
                "retrieve_images": 3,
                "distance": "cosine",
                "banks": "per_layer",
                "neighbourhood": "plain",
            },
        ],
        ids=["two images", "widened", "with a radius", "cosine per_layer"],
    )
    def test_patches_of_similar_images_only(self, tmp_path, caplog, options):
        if options.get("percentage") == 1.0:
            model, twin = make_pair(**options)
            check_predictions(model, twin)
            check_round_trip(model, tmp_path / "model")
        else:
            check_limit(tmp_path, caplog, **options)

    def test_two_passes_and_versions(self, monkeypatch):
        options = {"retrieve_images": 2, "augment": ("horizontal",), "embed_dim": 160}
        model = make_model(two_layers(), SIDE, **options)
        one = model.fit(TRAIN).predict(TEST)
        two_passes(monkeypatch)
        two = model.fit(TRAIN).predict(TEST)
        np.testing.assert_array_equal(one.score, two.score)
        assert len(model.coreset.bank.area.places.features) == 12

    def test_normal_scores_use_the_same_limits(self):
        model, twin = make_pair(1.0, retrieve_images=2, search_radius=1)
        sample = np.arange(0, 6 * 64, 7)
        embeddings = model.embedder.embed(np.stack([crop(i) for i in TRAIN])).flatten(0, 2)
        (found,) = normal_scores(embeddings[sample], sample, model.coreset, model.scorer)
        twin.k = 2  # itself and the nearest other
        scores = []
        for number in sample:
            image, position = divmod(int(number), 64)
            distance = twin.judge(crop(TRAIN[image]), model.coreset.indices)[2]
            scores.append(distance.reshape(64, 2)[position, 1])
        assert found.mean == pytest.approx(np.mean(scores), rel=1e-5)
        assert found.std == pytest.approx(np.std(scores), rel=1e-4)


class TestForeground:
    @pytest.mark.parametrize(
        "options",
        [
            {"foreground_threshold": 0.3},
            {"foreground_threshold": 0.9, "distance": "cosine", "neighbourhood": "plain"},
            {"foreground_threshold": 0.3, "banks": "per_layer", "neighbourhood": "plain"},
        ],
        ids=["pooled", "cosine plain", "per_layer"],
    )
    def test_background_patches_score_0(self, tmp_path, options):
        model, twin = check_setting(tmp_path, exports=False, foreground="pca", **options)
        masked = [(~twin.foreground(twin.embed(crop(image)))).sum() for image in TEST]
        assert any(masked)
        assert max(masked) < 64
        with pytest.raises(PatchCoreError, match=r"model without foreground to export, found pca"):
            export(model, tmp_path / "model.pt2", "torch")

    @pytest.mark.parametrize("dim", [5, 200], ids=["fewer dimensions", "fewer patches"])
    def test_the_component_is_that_of_scikit_learn(self, dim):
        embeddings = torch.randn(3, 6, 7, dim, generator=torch.Generator().manual_seed(0))
        embeddings *= torch.linspace(1, 3, dim)
        for found, one in zip(first_component(embeddings), embeddings, strict=True):
            pca = PCA(n_components=1, svd_solver="full")
            expected = pca.fit_transform(one.flatten(0, 1).double().numpy())
            np.testing.assert_allclose(found.flatten(), expected[:, 0], rtol=1e-8, atol=1e-8)

    def test_an_object_in_the_middle_on_either_side_of_the_component(self):
        embeddings = torch.zeros(2, 10, 10, 3)
        embeddings[:, 3:7, 3:7] = torch.tensor([-50.0, 0, 0])
        embeddings[1, 3:7, 3:7] *= -1
        expected = torch.zeros(10, 10, dtype=torch.bool)
        expected[2:8, 2:8] = True  # dilated by one patch
        for found in foreground_of(embeddings, 10.0):
            assert torch.equal(found, expected)

    def test_of_equal_values_neither_is_the_object(self):
        """The component has to be larger than the threshold, and the share than the smallest."""
        embeddings = torch.zeros(1, 10, 10, 2)
        embeddings[0, 3:7, 3:7, 0] = 50
        (component,) = first_component(embeddings)
        inside = foreground_of(embeddings, float(component[4, 4]))
        # Nothing is above the threshold, nor below its negative: no background is known.
        assert component[4, 4] > -component[0, 0] > 0
        assert inside.all()

        # The middle is 12x20 of 20x33 patches; 84 of these 240 are 35 %, which is too little.
        embeddings = torch.zeros(2, 20, 33, 2)
        embeddings[:, 5:12, 8:20, 0] = 50
        embeddings[1, 12, 8, 0] = 50
        few, more = foreground_of(embeddings, 5.0)
        assert (few[8, 14], few[19, 32]) == (False, True)
        assert (more[8, 14], more[19, 32]) == (True, False)

    def test_the_component_of_the_object_is_beyond_the_threshold_on_the_other_side_too(self):
        """The middle is at the negative of the threshold, and a corner below it."""
        embeddings = torch.full((1, 10, 10, 1), 6.0)  # of mean 0
        embeddings[:, 2:8, 2:8] = -10
        embeddings[:, 0, 0] = -18
        expected = torch.zeros(10, 10, dtype=torch.bool)
        expected[:2, :2] = True  # dilated by one patch
        assert torch.equal(foreground_of(embeddings, 10.0)[0], expected)

    def test_an_image_without_an_object_is_scored_whole(self):
        assert foreground_of(torch.zeros(1, 4, 4, 3), 10.0).all()


def test_images_of_different_aspect_share_one_grid(tmp_path):
    options = {"resize": "shorter_edge", "size_resize": 32, "size_crop": (32, 48)}
    backbone = Backbone(two_layers(), ["0", "1"], (32, 48))
    model = PatchCore(backbone, embed_dim=160, **options)
    wide, high = (make_images(3, SIDE, seed=s) for s in (0, 1))
    images = [np.concatenate([i, i[:, :20]], axis=1) for i in wide] + [i[:, :30] for i in high]
    model.fit(images)
    assert model.grid == (8, 12)
    expected = model.predict(images)
    model.save(tmp_path / "model")
    found = PatchCore.load(tmp_path / "model", backbone=backbone).predict(images)
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    assert export(model, tmp_path / "model.pt2", "torch", images=images).difference < 1e-4


class TestTiling:
    def make(self, size, tile=0, overlap=0):
        side = tile or size[0]
        backbone = Backbone(two_layers(), ["0", "1"], (side, side) if tile else size)
        resize = tuple(length + 2 * MARGIN for length in size)
        sizes = {"size_resize": resize, "size_crop": size}
        return PatchCore(backbone, embed_dim=160, tile=tile, overlap=overlap, **sizes)

    @pytest.mark.parametrize(
        ("size", "tile", "overlap"),
        [((64, 64), 32, 16), ((64, 104), 40, 24), ((72, 48), 48, 16)],
        ids=str,
    )
    def test_tiles_equal_the_whole(self, size, tile, overlap):
        """A feature of the second layer depends on 5 pixels around, fewer than half an overlap."""
        batch = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
        whole, tiled = self.make(size), self.make(size, tile, overlap)
        assert whole.grid == tiled.grid == (size[0] // 4, size[1] // 4)
        expected = whole.embedder.embed(batch)
        torch.testing.assert_close(tiled.embedder.embed(batch), expected, rtol=1e-5, atol=1e-5)

    def test_too_small_an_overlap_shows_at_the_seams_alone(self):
        batch = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
        whole, tiled = self.make((64, 64)), self.make((64, 64), 32, 0)
        differs = (whole.embedder.embed(batch) - tiled.embedder.embed(batch)).abs().amax(3)[
            0
        ] > 1e-4
        assert differs.any()
        assert not differs[:4, :4].any()
        assert not differs[13:, 13:].any()

    @pytest.mark.parametrize(
        ("length", "tile", "overlap", "expected"),
        [
            (10, 10, 4, [(0, 0, 10)]),
            (16, 10, 4, [(0, 0, 8), (6, 2, 10)]),
            (17, 10, 4, [(0, 0, 7), (3, 4, 7), (7, 3, 10)]),
        ],
    )
    def test_tiles_of_one_axis(self, length, tile, overlap, expected):
        found = spread(length, tile, overlap)
        assert found == expected
        assert sum(stop - start for _, start, stop in found) == length

    @pytest.mark.slow  # exports of tiled images take 10 s
    def test_goes_through_fit_save_load_and_export(self, tmp_path):
        images = make_images(4, 64)
        model = self.make((64, 64), 32, 16).fit(images)
        expected = model.predict(images[:2])
        model.save(tmp_path / "model")
        found = PatchCore.load(tmp_path / "model", backbone=model.backbone).predict(images[:2])
        np.testing.assert_array_equal(found.score, expected.score)
        whole = self.make((64, 64)).fit(images)
        np.testing.assert_allclose(
            whole.predict(images[:2]).anomaly_map, expected.anomaly_map, 1e-4
        )
        for suffix, name in ((".pt2", "torch"), (".onnx", "onnx")):
            assert export(model, tmp_path / f"m{suffix}", name, images=images).difference < 1e-4

    def test_strides_of_which_none_divides_the_other(self):
        """Tiles begin where both layers have a patch: every 24 pixels with strides 6 and 8."""

        def network(tiles):
            return [tiles[:, :, ::6, ::6], tiles[:, :, ::8, ::8]]

        tiles = Tiling((72, 96), 48, 24, [(8, 8), (6, 6)])
        images = torch.rand(2, 3, 72, 96)
        for found, expected in zip(tiles.maps(network, images), network(images), strict=True):
            assert torch.equal(found, expected)
        message = "size_crop to be a multiple of 24 pixels with tile 48, .* found 80"
        with pytest.raises(PatchCoreError, match=message):
            Tiling((72, 80), 48, 24, [(8, 8), (6, 6)])

    @pytest.mark.parametrize(
        ("size", "tile", "overlap", "message"),
        [
            ((64, 60), 32, 16, r"size_crop to be a multiple of 8 pixels with tile 32, .* found 60"),
            ((64, 64), 32, 12, r"overlap to be a multiple of 8 pixels .*\(overlap, tile, layers\)"),
            ((64, 64), 32, 32, r"tile larger than overlap and at most size_crop, found tile 32, "),
            ((64, 40), 48, 16, r"at most size_crop, found tile 48, overlap 16 and size_crop 64 40"),
            ((64, 64), 72, 8, r"at most size_crop, .* \(tile, overlap, size_crop\)"),
            ((64, 64), 34, 0, r"grids that divide a tile of 34 pixels, found 9x9, 5x5 \(tile, lay"),
        ],
    )
    def test_sizes_that_do_not_fit(self, size, tile, overlap, message):
        with pytest.raises(PatchCoreError, match=message):
            self.make(size, tile, overlap)


class TestScales:
    @pytest.mark.parametrize(
        "options",
        [
            {"scales": (1, 0.5)},
            {"scales": (1, 0.75, 0.5), "neighbourhood": "plain", "layer_weights": (1, 0.5)},
            {"scales": (1, 0.5), "banks": "per_layer"},
        ],
        ids=str,
    )
    def test_matches_the_twin(self, tmp_path, options):
        model, _ = check_setting(tmp_path, exports=options == {"scales": (1, 0.5)}, **options)
        assert model.grid == (8, 8)

    def test_a_smaller_scale_sees_more_of_the_surroundings(self):
        """A changed pixel reaches more patches."""
        image = TEST[0].copy()
        image[SIDE // 2 + MARGIN, SIDE // 2 + MARGIN] ^= 255
        reached = []
        for scales in ((1,), (1, 0.5)):
            embedder = make_model(two_layers(), SIDE, scales=scales).embedder
            before, after = (embedder.embed(crop(i)[None]) for i in (TEST[0], image))
            reached.append(int((before != after).any(-1).sum()))
        assert reached[0] < reached[1]

    def test_the_order_and_repetitions_have_no_effect(self):
        assert Settings(scales=(0.5, 1, 0.5)).scales == (1, 0.5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scales": (0.5,)}, r"expected 1 among the scales, found 0\.5 \(scales\)"),
            ({"scales": (1, 2)}, r"scales in \(0, 1\], found 1 2 \(scales\)"),
            ({"scales": (1, 0.5), "tile": 16, "overlap": 8}, r"scales 1\.0 with tile 16"),
            ({"scales": (1, 0.01)}, r"cannot take images of 0x0 pixels: .* \(scales, size_crop\)"),
        ],
    )
    def test_bad_values(self, options, message):
        with pytest.raises(PatchCoreError, match=message):
            make_model(two_layers(), SIDE, **options)

    def test_a_vision_transformer_has_one_size(self):
        with pytest.raises(PatchCoreError, match="built for one size of images, found 2 scales"):
            PatchCore(
                "timm:vit_tiny_patch16_224",
                ["blocks.1"],
                weights="random",
                size_resize=32,
                size_crop=32,
                scales=(1, 0.5),
            )
