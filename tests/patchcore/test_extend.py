"""A trained model grows by what new images bring, and keeps the rest."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchcore import PatchCore, PatchCoreError
from patchcore.coreset import project
from patchcore.passes import CroppedImages
from tests.patchcore.test_slow_twin import make_images, make_model, two_layers
from tests.support import one_thread

SIDE = 32
TRAIN, NEW, TEST = (make_images(n, SIDE, seed=s) for s, n in enumerate((6, 4, 3)))
OPTIONS = {"embed_dim": 160, "percentage_coreset": 0.2, "seed": 3}


@pytest.fixture(autouse=True)
def in_one_thread():
    with one_thread():
        yield


def make(**options):
    return make_model(two_layers(), SIDE, **OPTIONS | options)


def all_patches(model, images, versions=None):
    crops = np.stack([model.crop(image) for image in images])
    batches = [crops] if versions is None else list(model.embedder.each_version(crops))
    return torch.cat([model.embedder.embed(batch).flatten(0, 2) for batch in batches])


def go_on_one_by_one(model, before, new):
    """The slow twin: always the new patch that is farthest from all selected ones, in float64."""
    kept, points = (
        project(model.scorer.metric.points(values), 3).double()
        for values in (before.bank.embeddings, new)
    )
    distances, selected = torch.cdist(points, kept).amin(1), []
    while distances.max() > before.coverage[0].radius * (1 + 1e-6):
        selected.append(int(distances.argmax()))
        distances = torch.minimum(distances, (points - points[selected[-1]]).norm(dim=1))
    return selected


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_selection_goes_on_beyond_the_covering_radius(distance):
    model = make(distance=distance).fit(TRAIN)
    before, images = model.coreset, make_images(4, SIDE, seed=1)
    images[0][:] = 255  # what no training image shows
    extension = model.extend(images, [f"new {n}" for n in range(4)])
    added = go_on_one_by_one(model, before, all_patches(model, images))
    assert 0 < len(added) == extension.num_added < 4 * 64
    after = model.coreset
    assert after.sizes == (len(before.bank) + len(added),)
    np.testing.assert_array_equal(after.indices[: len(before.bank)], before.indices)
    assert after.indices[len(before.bank) :].tolist() == [6 * 64 + number for number in added]
    for number, place in zip(added, range(len(before.bank), len(after.bank)), strict=True):
        image, position = divmod(number, 64)
        assert after.origins.names[after.origins.image[place]] == f"new {image}"
        assert divmod(position, 8) == (after.origins.row[place], after.origins.column[place])
    assert after.patches.shape[0] == len(after.bank)
    np.testing.assert_array_equal(after.patches[: len(before.bank)], before.patches)


def test_it_covers_old_and_new_images_as_before():
    model = make().fit(TRAIN)
    radius = model.coreset.coverage[0].radius
    model.extend(NEW)
    points = project(all_patches(model, [*TRAIN, *NEW]), 3)
    bank = project(model.coreset.bank.embeddings, 3)
    assert torch.cdist(points, bank).amin(1).max() <= radius * (1 + 1e-5)
    assert model.coreset.coverage == ((radius, None),)


def test_new_images_are_read_and_embedded_once(monkeypatch):
    model = make().fit(TRAIN)
    batches, read = CroppedImages.batches, []

    def note(images):
        read.append(len(images))
        yield from batches(images)

    monkeypatch.setattr(CroppedImages, "batches", note)
    assert model.extend([np.full_like(NEW[0], 255)]).num_added > 0
    assert read == [1]


def test_images_that_are_known_add_nothing():
    model = make(percentage_coreset=1.0).fit(TRAIN)
    assert model.coreset.coverage == ((0.0, 1.0),)
    assert model.extend(TRAIN[:3]).num_added == 0
    assert len(model.coreset.bank) == 6 * 64


def test_scores_and_thresholds_are_those_before_they_joined(tmp_path):
    model = make().fit(TRAIN)
    expected, stored = model.predict(NEW), model.thresholds
    extension = model.extend(NEW)
    np.testing.assert_allclose(extension.scores.image_scores, np.sort(expected.score), rtol=1e-6)
    assert extension.scores.pixel_scores[0] == pytest.approx(expected.anomaly_map.max(), rel=1e-6)
    assert extension.thresholds.image.value == pytest.approx(expected.score.max(), rel=1e-5)
    assert extension.thresholds.image.rate == 1 / 5
    assert model.thresholds == stored
    assert (model.predict(NEW).score <= expected.score * (1 + 1e-6)).all()
    model.save(tmp_path / "model")
    loaded = PatchCore.load(tmp_path / "model", backbone=make().backbone)
    assert loaded.trained.extension.thresholds == extension.thresholds
    assert loaded.trained.extension.num_added == extension.num_added
    np.testing.assert_array_equal(
        loaded.trained.extension.scores.pixel_scores, extension.scores.pixel_scores
    )


@pytest.mark.parametrize(
    "options",
    [
        {"augment": ("vertical",)},
        {"retrieve_images": 3, "search_radius": 2},
        {"foreground": "pca", "foreground_threshold": 0.3},
        {"neighbourhood": "plain", "embed_dim": 1024},
    ],
    ids=["versions", "limits", "foreground", "plain"],
)
def test_a_loaded_model_grows_as_the_one_in_memory(tmp_path, options):
    model = make(**options).fit(TRAIN)
    model.save(tmp_path / "model")
    loaded = PatchCore.load(tmp_path / "model", backbone=make().backbone)
    images = [*NEW, np.full_like(NEW[0], 255)]
    first, second = (one.extend(images) for one in (model, loaded))
    assert 0 < first.num_added == second.num_added
    expected = model.predict(TEST)
    loaded.save(tmp_path / "grown")
    grown = PatchCore.load(tmp_path / "grown", backbone=make().backbone)
    for one in (loaded, grown):
        found = one.predict(TEST)
        np.testing.assert_array_equal(found.score, expected.score)
        np.testing.assert_array_equal(found.nearest, expected.nearest)
    grown.extend(images)  # a second time
    assert grown.trained.extension.num_added == 0


def test_a_model_without_crops_of_its_patches_grows_without_them():
    model = make().fit(TRAIN)
    model.trained = replace(model.trained, coreset=replace(model.coreset, patches=None))
    images = [*NEW, np.full_like(NEW[0], 255)]
    assert model.extend(images).num_added == make().fit(TRAIN).extend(images).num_added > 0
    assert model.coreset.patches is None


def test_ignored_patches_do_not_join():
    mask = np.zeros(NEW[0].shape[:2], bool)
    mask[:20] = True  # the first 4 of 8 rows of patches
    model = make(ignore_mask=mask).fit(TRAIN)
    known = len(model.coreset.bank)
    white = np.full_like(NEW[0], 255)
    white[:20] = 0
    assert model.extend([white]).num_added > 0
    assert model.coreset.origins.row[known:].min() == 4


def test_what_cannot_be_extended():
    with pytest.raises(PatchCoreError, match="fitted PatchCore to extend"):
        make().extend(NEW)
    with pytest.raises(PatchCoreError, match="at least one image to extend"):
        make().fit(TRAIN).extend([])
    with pytest.raises(PatchCoreError, match=r"4 names|expected 4 names, found 1"):
        make().fit(TRAIN).extend(NEW, ["a"])
    with pytest.raises(PatchCoreError, match=r"one percentage to extend, found 2 \(perc"):
        make(percentage_coreset=(0.1, 0.2)).fit(TRAIN).extend(NEW)
    with pytest.raises(PatchCoreError, match=r"banks joined to extend, found per_layer"):
        make(banks="per_layer").fit(TRAIN).extend(NEW)
    model = make().fit(TRAIN)
    model.trained = replace(model.trained, coreset=replace(model.coreset, coverage=()))
    with pytest.raises(PatchCoreError, match="model with a covering radius to extend"):
        model.extend(NEW)
