"""The fit against slow twins: which patches, which crops, which scores of held-out images."""

import weakref
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from patchcore import PatchCore, PatchCoreError
from patchcore.backbone import Backbone
from patchcore.coreset import greedy_coreset
from patchcore.explain import crop_patches
from patchcore.fit import FitRequest, FitResult, coreset_sizes, fit
from patchcore.folds import NUM_FOLDS
from patchcore.observer import Observer
from patchcore.passes import CroppedImages, ImageReader, LocalPatches
from patchcore.scoring import Scorer
from patchcore.settings import Settings
from tests.support import one_thread

GRID = 4  # positions of the small network's map along each axis
SIDE = 8 * GRID
PATCHES = GRID * GRID


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def make_model(**arguments) -> PatchCore:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 8, stride=8))
    return PatchCore(
        Backbone(network, ["0"], (SIDE, SIDE)),
        size_resize=(SIDE, SIDE),
        size_crop=(SIDE, SIDE),
        embed_dim=48,
        **arguments,
    )


def make_images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(count)]


def fit_images(model: PatchCore, images, names=(), batch_size=3, **request) -> FitResult:
    training = CroppedImages(images, tuple(names), batch_size)
    wanted = FitRequest(model.percentages, **request)
    return fit(model.embedder, model.scorer, training, wanted)


def embed_in_order(model: PatchCore, images, batch_size=3) -> tuple[np.ndarray, torch.Tensor]:
    """Return all versions of the images in the order of embedding, and their patches (N, D)."""
    versions = []
    for start in range(0, len(images), batch_size):
        batch = np.stack(images[start : start + batch_size])
        versions.append(batch)
        for flip in model.settings.augment:
            versions.append(np.ascontiguousarray(np.flip(batch, 2 if flip == "horizontal" else 1)))
    embedded = torch.cat([model.embedder.embed(version).flatten(0, 2) for version in versions])
    return np.concatenate(versions), embedded


def nearest_by_hand(queries: torch.Tensor, bank: torch.Tensor, k: int) -> np.ndarray:
    """Return (Q,) mean distances to the k nearest rows, by all differences."""
    distances = (queries.double()[:, None] - bank.double()[None]).norm(dim=2)
    return distances.sort(dim=1).values[:, :k].mean(1).numpy()


def two_passes(monkeypatch) -> None:
    """Let no embeddings fit into the memory."""
    import patchcore.engine as module

    def plan(needs, budget):
        return module.MemoryPlan(passes=2, needed=0.0)

    monkeypatch.setattr(module, "plan_memory", plan)


class TestCoresets:
    @pytest.mark.parametrize("augment", [(), ("horizontal",), ("vertical", "horizontal")])
    @pytest.mark.parametrize("passes", [1, 2])
    def test_are_the_greedy_ones_with_their_crops_and_origins(self, augment, passes, monkeypatch):
        if passes == 2:
            two_passes(monkeypatch)
        model, images = make_model(percentage_coreset=(0.05, 0.3), augment=augment), make_images(7)
        names = [f"{number}.png" for number in range(7)]
        found = fit_images(model, images, names, seeds=(3, 0), held_out=False)
        versions, embeddings = embed_in_order(model, images)
        assert found.plan.passes == passes
        assert list(found.coresets) == [3, 0]
        for seed, coreset in found.coresets.items():
            count = len(embeddings)
            assert coreset.seed == seed
            assert coreset.sizes == (int(0.05 * count), int(0.3 * count))
            expected = greedy_coreset(embeddings, coreset.sizes[-1], seed=seed)
            np.testing.assert_array_equal(coreset.indices, expected)
            assert torch.equal(coreset.bank.embeddings, embeddings[expected])
            origins = coreset.origins
            for position, index in enumerate(coreset.indices):
                image, version = origins.image[position], origins.version[position]
                whole, axes = images[image], {"horizontal flip": 1, "vertical flip": 0}
                if version:
                    whole = np.flip(whole, axes[origins.versions[version]])
                np.testing.assert_array_equal(whole, versions[index // PATCHES])
                assert (origins.row[position] * GRID + origins.column[position]) == index % PATCHES
                assert origins.names[image] == names[image]
        first, second = found.coresets.values()
        assert second.patches is None
        image, position = np.divmod(first.indices, PATCHES)
        expected = crop_patches(versions, image, *np.divmod(position, GRID), (GRID, GRID))
        np.testing.assert_array_equal(first.patches, expected)

    def test_embeddings_far_from_the_origin_are_selected_as_those_around_it(self):
        """Distances are small differences of large squares here, unless they are centred."""
        model, images = make_model(percentage_coreset=0.5), make_images(7)
        torch.nn.init.constant_(model.backbone.network[0].bias, 300.0)
        _, embeddings = embed_in_order(model, images)
        assert embeddings.mean() > 100
        found = fit_images(model, images, held_out=False).first
        expected = greedy_coreset(embeddings, 7 * PATCHES // 2)
        np.testing.assert_array_equal(found.indices, expected)

    def test_crops_are_kept_only_on_request(self):
        found = fit_images(make_model(), make_images(4), patches=False, held_out=False)
        assert found.first.patches is None

    def test_a_prefix_is_the_smaller_coreset(self):
        model = make_model(percentage_coreset=(0.1, 0.5))
        coreset = fit_images(model, make_images(5)).first
        small = coreset.part(0)
        assert len(small.bank) == len(small.patches) == len(small.origins.row) == 8
        assert small.sizes == (8,)
        np.testing.assert_array_equal(small.indices, coreset.indices[:8])
        assert small.coverage == coreset.coverage[:1]
        assert replace(coreset, coverage=()).part(0).coverage == ()  # not every one has been proven


@pytest.mark.parametrize("size", [(32, 16), (16, 32)])
def test_positions_that_use_a_wider_radius_are_counted(size, caplog):
    caplog.set_level("INFO")
    network = torch.nn.Conv2d(3, 12, 8, stride=8)
    settings = {"size_resize": size, "size_crop": size, "k": 2, "search_radius": 0}
    backbone = Backbone(torch.nn.Sequential(network), ["0"], size)
    model = PatchCore(backbone, embed_dim=48, percentage_coreset=0.3, **settings)
    images = np.random.default_rng(0).integers(0, 256, (6, *size, 3), dtype=np.uint8)
    origins = fit_images(model, list(images)).first.origins
    found = Counter(zip(origins.row.tolist(), origins.column.tolist(), strict=True))
    few = 8 - sum(number >= 2 for number in found.values())
    assert 0 < few < 8
    assert f"{few} of 8 positions have fewer than k = 2 of 14 coreset patches" in caplog.text


class TestReading:
    def test_images_have_digests_of_their_own_and_are_counted_as_they_are_embedded(self):
        class Progress(Observer):
            def advance(self, num_images):
                counts.append(num_images)

        counts, images = [], make_images(5)
        embedder = make_model(augment=("horizontal",)).embedder
        crops = CroppedImages([*images, images[0]], (), 4)
        reader = ImageReader(embedder, crops, True, Progress())
        numbers = [number for number, _, _ in reader.read()]
        assert counts == [4, 4, 2, 2]  # each batch in two versions
        assert numbers == [0, 4, 8, 10]
        assert reader.digests.shape == (12, 2)
        assert reader.digests.dtype == np.uint64
        np.testing.assert_array_equal(reader.digests[9], reader.digests[0])
        assert len(np.unique(reader.digests, axis=0)) == 10

    def test_digests_that_nobody_needs_are_not_computed(self):
        crops = CroppedImages(make_images(5), (), 4)
        reader = ImageReader(make_model().embedder, crops, False, Observer())
        assert [number for number, _, _ in reader.read()] == [0, 4]
        assert reader.digests.shape == (0, 2)

    @pytest.mark.parametrize("passes", [1, 2])
    def test_images_are_read_once_in_each_pass(self, passes, monkeypatch):
        class Counted(CroppedImages):
            def batches(self):
                readings.append(1)
                return super().batches()

        if passes == 2:
            two_passes(monkeypatch)
        readings, model = [], make_model()
        fit(model.embedder, model.scorer, Counted(make_images(5), (), 3), FitRequest((0.5,)))
        assert len(readings) == passes

    @pytest.mark.parametrize(("embeddings", "images"), [(False, True), (True, False)])
    def test_images_are_kept_only_beside_embeddings_and_on_request(self, embeddings, images):
        model = make_model()
        reader = ImageReader(model.embedder, CroppedImages(make_images(3), (), 2), True, Observer())
        kept = {"keep_embeddings": embeddings, "keep_images": images}
        assert not LocalPatches(reader, (0,), model.scorer, None, **kept)._images

    def test_all_memory_is_given_back_in_the_end(self):
        model = make_model()
        crops = CroppedImages(make_images(3), (), 2)
        reader = ImageReader(model.embedder, crops, True, Observer())
        kept = {"keep_embeddings": True, "keep_images": True}
        patches = LocalPatches(reader, (0, 1), model.scorer, None, **kept)
        points = [point for of_banks in patches._points.values() for point in of_banks]
        held = [weakref.ref(value) for value in (*points, patches._rows, patches._images[0][1])]
        del points
        assert all(value() is not None for value in held)
        patches.close()
        assert all(value() is None for value in held)


class TestTwoPasses:
    """Memory changes the time, never a number."""

    def test_everything_equals_one_pass_to_the_last_bit(self, monkeypatch):
        images = make_images(13)
        model = make_model(percentage_coreset=(0.05, 0.2), augment=("vertical",), k=2)
        wanted = {"seeds": (5, 1), "normal": True}
        one = fit_images(model, images, **wanted)
        two_passes(monkeypatch)
        two = fit_images(model, images, **wanted)
        assert (one.plan.passes, two.plan.passes) == (1, 2)
        for seed in (5, 1):
            first, second = one.coresets[seed], two.coresets[seed]
            np.testing.assert_array_equal(first.indices, second.indices)
            assert torch.equal(first.bank.embeddings, second.bank.embeddings)
        np.testing.assert_array_equal(one.first.patches, two.first.patches)
        assert one.normal == two.normal
        for alone, other in zip(one.held_out, two.held_out, strict=True):
            np.testing.assert_array_equal(alone.image_scores, other.image_scores)
            np.testing.assert_array_equal(alone.pixel_scores, other.pixel_scores)

    def test_the_library_takes_the_budget(self, caplog):
        """1,280 patches: 246 KB each of embeddings and images, 666 KB of projections."""
        caplog.set_level("DEBUG")
        images = make_images(80)
        expected = make_model().fit(images).predict(images[:2])
        assert "memory is short" not in caplog.text
        assert (
            "all embeddings kept, about 0.0012 GB; 1280 patches, coresets of (128,)" in caplog.text
        )
        tight = make_model().fit(images, memory_budget=0.0008)
        assert "memory is short: projections kept, embedded twice" in caplog.text
        np.testing.assert_array_equal(tight.predict(images[:2]).score, expected.score)
        with pytest.raises(PatchCoreError, match=r"about 0\.00067 GB, found 0\.0005 GB"):
            make_model().fit(images, memory_budget=0.0005)

    @pytest.mark.parametrize(("normal", "sampled"), [(False, 0), (True, 20_000)])
    @pytest.mark.parametrize("patches", [True, False])
    def test_the_plan_counts_what_the_fit_keeps(self, normal, sampled, patches, monkeypatch):
        seen = []

        def plan(needs, budget):
            seen.append((needs, budget))
            return module.MemoryPlan(passes=1, needed=0.0)

        import patchcore.engine as module

        monkeypatch.setattr(module, "plan_memory", plan)
        model = make_model(percentage_coreset=(0.1, 0.5), augment=("vertical",))
        request = {"normal": normal, "patches": patches, "memory_budget": 7.0}
        fit_images(model, make_images(8), seeds=(0, 1), **request)
        ((needs, budget),) = seen
        assert budget == 7.0
        assert (needs.num_images, needs.patches_per_image, needs.embed_dim) == (16, PATCHES, 48)
        assert needs.coreset_sizes == (128, 128)
        assert needs.fold_sizes == (96,) * NUM_FOLDS
        assert needs.scored_patches == 8 * PATCHES + sampled
        assert needs.image_bytes == patches * 3 * SIDE * SIDE
        assert needs.patch_bytes == patches * 3 * 16 * 16  # two fields of 8 pixels wide

    def test_the_projections_are_not_kept_beside_the_memory_banks(self, monkeypatch):
        """The plan counts the larger of the two, not their sum."""
        rows, kept = LocalPatches.rows, []

        def note(patches, *arguments):
            kept.append(len(patches._points))
            return rows(patches, *arguments)

        monkeypatch.setattr(LocalPatches, "rows", note)
        fit_images(make_model(), make_images(8))
        assert kept == [0]

    def test_an_image_that_changes_between_the_passes_is_named(self, monkeypatch):
        two_passes(monkeypatch)
        images = make_images(5)

        class Changing(CroppedImages):
            def batches(self):
                yield from super().batches()
                images[4] = images[4] + 1

        training = Changing(images, tuple("abcde"), 3)
        model = make_model()
        with pytest.raises(PatchCoreError, match=r"a change of e$"):
            fit(model.embedder, model.scorer, training, FitRequest((0.5,)))

    def test_another_number_of_images_than_announced_is_refused(self):
        class Short(CroppedImages):
            def __len__(self):
                return 4

        model = make_model()
        with pytest.raises(PatchCoreError, match="expected 4 training images, found 3"):
            fit(model.embedder, model.scorer, Short(make_images(3), (), 8), FitRequest((0.5,)))


class TestHeldOutScores:
    @pytest.mark.parametrize("k", [1, 3])
    @pytest.mark.parametrize("seed", [0, 3])
    def test_each_image_is_scored_by_a_coreset_of_the_other_folds(self, k, seed):
        count, percentages = 11, (0.1, 0.4)
        model, images = make_model(percentage_coreset=percentages, k=k), make_images(11)
        found = fit_images(model, images, seeds=(seed,)).held_out
        _, embeddings = embed_in_order(model, images)
        order = np.random.RandomState(seed).permutation(count)
        expected, numbers = {percentage: [] for percentage in percentages}, []
        by_image = embeddings.view(count, PATCHES, -1)
        for fold in range(NUM_FOLDS):
            held_out = [image for place, image in enumerate(order) if place % NUM_FOLDS == fold]
            rest = by_image[[i for i in range(count) if i not in held_out]].flatten(0, 1)
            numbers.extend(held_out)
            for percentage, scores in expected.items():
                bank = rest[greedy_coreset(rest, int(len(rest) * percentage), seed=seed)]
                scores.extend(nearest_by_hand(by_image[i], bank, k).max() for i in held_out)
        for scores, result in zip(expected.values(), found, strict=True):
            np.testing.assert_allclose(result.image_scores, np.sort(scores), rtol=1e-4)
            by_number = dict(zip(numbers, scores, strict=True))
            own = [by_number[number] for number in result.images]
            np.testing.assert_allclose(result.image_scores, own, rtol=1e-4)

    def test_flips_of_a_held_out_image_are_held_out_with_it(self):
        model = make_model(percentage_coreset=1.0, augment=["horizontal"])
        # Each image is symmetric: its flip in the bank would make its distance 0.
        images = [np.concatenate([i[:, :16], i[:, 15::-1]], axis=1) for i in make_images(5)]
        (found,) = fit_images(model, images).held_out
        assert len(found.image_scores) == 5
        assert found.image_scores.min() > 0.1

    @pytest.mark.parametrize("passes", [1, 2])
    @pytest.mark.parametrize("augment", [(), ("vertical",)])
    def test_copies_are_never_in_different_folds(self, augment, passes, monkeypatch):
        """Each image is scored as if its copies had not been among the training images."""
        if passes == 2:
            two_passes(monkeypatch)
        model = make_model(percentage_coreset=1.0, augment=augment)
        images = make_images(6)
        (alone,) = fit_images(model, images).held_out
        copies = images + [image.copy() for image in reversed(images)]
        if augment:
            copies += [np.ascontiguousarray(image[::-1]) for image in images]
        (found,) = fit_images(model, copies).held_out
        np.testing.assert_allclose(found.image_scores, alone.image_scores, rtol=1e-4)

    @pytest.mark.parametrize(
        ("count", "scored"), [(4 * NUM_FOLDS, 8), (5 * NUM_FOLDS, 5), (8 * NUM_FOLDS, 5)]
    )
    def test_stops_when_enough_images_are_scored(self, count, scored, monkeypatch):
        """Two folds of four, one of five, or the first five of a fold of eight."""
        monkeypatch.setattr("patchcore.folds.ENOUGH_IMAGES", 5)
        (found,) = fit_images(make_model(), make_images(count)).held_out
        assert len(found.image_scores) == scored

    @pytest.mark.parametrize(("count", "k"), [(1, 1), (2, 9)])
    def test_too_few_images_have_no_scores(self, count, k):
        model = make_model(percentage_coreset=0.5, k=k)
        assert fit_images(model, make_images(count)).held_out == (None,)

    def test_nobody_asks_nobody_waits(self):
        found = fit_images(
            make_model(percentage_coreset=(0.1, 0.2)), make_images(6), held_out=False
        )
        assert found.held_out == (None, None)

    def test_pixels_are_the_maps(self):
        model, count = make_model(percentage_coreset=0.5), NUM_FOLDS  # folds of one image each
        images = make_images(count)
        (found,) = fit_images(model, images).held_out
        _, embeddings = embed_in_order(model, images)
        by_image = embeddings.view(count, PATCHES, -1)
        maps = []
        for image in range(count):
            rest = by_image[[i for i in range(count) if i != image]].flatten(0, 1)
            bank = rest[greedy_coreset(rest, len(rest) // 2)]
            scores = nearest_by_hand(by_image[image], bank, 1).astype(np.float32)
            maps.append(model.scorer.anomaly_map(torch.from_numpy(scores).view(1, GRID, GRID)))
        expected = np.quantile(
            torch.cat(maps).numpy(), 1 - np.array([0, 1e-5, 1.0]), method="higher"
        )
        np.testing.assert_allclose(found.pixel_scores[[0, 1, -1]], expected, rtol=1e-5)
        assert (np.diff(found.pixel_scores) <= 0).all()


def scorer_of(**options):
    return Scorer(Settings(**options), (1, 1), torch.device("cpu"))


@pytest.mark.parametrize(("patches", "sizes"), [(100, (1, 10)), (199, (1, 19))])
def test_sizes_are_rounded_down_as_in_the_papers_code(patches, sizes):
    assert coreset_sizes(patches, (0.01, 0.1), scorer_of()) == sizes


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"k": 5}, r"k = 5 patches in the coreset, found 1: .* \(percentage_coreset, k\)"),
        (
            {"image_score": "reweighted"},
            r"2 patches for image_score reweighted in the coreset, found 1: .*, image_score\)",
        ),
        ({"image_score": "reweighted", "k": 3}, "k = 3 patches in the coreset, found 1"),
    ],
)
def test_refuses_a_coreset_that_is_too_small_for_its_scores(options, needed):
    with pytest.raises(PatchCoreError, match=f"at least {needed}"):
        coreset_sizes(100, (0.01,), scorer_of(**options))
    model = make_model(percentage_coreset=1e-9, **options)
    with pytest.raises(PatchCoreError, match="in the coreset, found 0"):
        model.fit(make_images(3))


def test_too_few_patches_for_equation_7_in_a_fold_give_no_held_out_scores():
    model = make_model(percentage_coreset=2 / (3 * PATCHES), image_score="reweighted")
    assert model.fit(make_images(3)).trained.held_out is None
