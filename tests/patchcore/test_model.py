import numpy as np
import pytest
import torch

from patchcore import PatchCore, PatchCoreError
from patchcore.backbone import Backbone


def make_backbone(size=(32, 32)):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1)
    )
    return Backbone(network, ["0", "2"], size)


def make_model(**options):
    defaults = {"percentage_coreset": 0.2, "size_resize": (36, 36), "size_crop": (32, 32)}
    return PatchCore(make_backbone(), embed_dim=24, **(defaults | options))


def make_images(count, seed=0, size=(40, 50)):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def test_shapes_types_and_ranges_of_a_prediction():
    model = make_model(k=2).fit(make_images(6))
    prediction = model.predict(make_images(11, seed=1))
    assert prediction.score.shape == (11,)
    assert prediction.anomaly_map.shape == (11, 32, 32)
    assert prediction.distance.shape == prediction.nearest.shape == (11, 8, 8, 2)
    assert prediction.score.dtype == prediction.anomaly_map.dtype == np.float32
    assert (prediction.distance >= 0).all()
    assert (np.diff(prediction.distance, axis=3) >= 0).all()
    assert len(model.coreset) == int(6 * 64 * 0.2)
    assert prediction.nearest.max() < len(model.coreset)
    np.testing.assert_allclose(prediction.score, prediction.distance.mean(3).max((1, 2)), rtol=1e-6)


def test_a_training_image_with_the_whole_bank_is_itself_at_distance_zero():
    images = make_images(5)
    model = make_model(percentage_coreset=1.0).fit(images)
    prediction = model.predict(images)
    assert (prediction.score == 0).all()
    own = model.coreset[prediction.nearest.reshape(-1)]
    np.testing.assert_array_equal(own, np.arange(5 * 64))


def test_what_differs_from_all_training_images_scores_higher():
    calm = [np.full((36, 36, 3), value, dtype=np.uint8) for value in range(100, 120)]
    odd = calm[3].copy()
    odd[14:22, 14:22] = 255
    prediction = make_model().fit(calm).predict([calm[5], odd])
    assert prediction.score[1] > 3 * prediction.score[0]
    row, column = np.unravel_index(prediction.anomaly_map[1].argmax(), (32, 32))
    assert abs(row - 16) <= 4
    assert abs(column - 16) <= 4


@pytest.mark.parametrize("k", [1, 3])
def test_several_percentages_at_once_equal_each_alone(k):
    train, test = make_images(8), np.stack([make_model().crop(i) for i in make_images(4, seed=1)])
    together = make_model(percentage_coreset=[0.5, 0.05, 0.2], k=k).fit(train)
    assert together.percentages == (0.05, 0.2, 0.5)
    for percentage, found in zip(
        together.percentages, together.nearest(together.embed(test)), strict=True
    ):
        alone = make_model(percentage_coreset=percentage, k=k).fit(train)
        expected = alone.predict(make_images(4, seed=1))
        prediction = together.score(*found)
        for name in ("score", "anomaly_map", "distance", "nearest"):
            np.testing.assert_array_equal(getattr(prediction, name), getattr(expected, name))


def test_batches_do_not_change_the_result():
    train, test = make_images(7), make_images(5, seed=1)
    one, many = (make_model(batch_size=size).fit(train).predict(test) for size in (1, 64))
    np.testing.assert_allclose(one.score, many.score, rtol=1e-4)


def test_an_even_patch_size_has_its_own_grid():
    model = make_model(patch_size=2).fit(make_images(3))
    assert model.grid == (7, 7)
    assert model.predict(make_images(1)).distance.shape == (1, 7, 7, 1)


def test_non_square_crops():
    model = PatchCore(
        make_backbone((32, 48)), size_resize=(36, 50), size_crop=(32, 48), embed_dim=16
    ).fit(make_images(3))
    assert model.grid == (8, 12)
    assert model.predict(make_images(2)).anomaly_map.shape == (2, 32, 48)


@pytest.mark.parametrize("percentage", [0, -0.1, 1.01, [], [0.1, 2], float("nan")])
def test_refuses_percentages_outside_0_to_1(percentage):
    with pytest.raises(PatchCoreError, match=r"percentages in \(0, 1\]"):
        make_model(percentage_coreset=percentage)


def test_refuses_a_coreset_smaller_than_k():
    with pytest.raises(PatchCoreError, match="at least k = 5 patches in the coreset, found 2"):
        make_model(percentage_coreset=0.01, k=5).fit(make_images(4))


def test_refuses_to_predict_before_it_was_fitted():
    with pytest.raises(PatchCoreError, match="call fit first"):
        make_model().predict(make_images(1))


def test_refuses_no_images():
    with pytest.raises(PatchCoreError, match="at least one training image"):
        make_model().fit([])
    with pytest.raises(PatchCoreError, match="at least one image to predict"):
        make_model().fit(make_images(2)).predict([])


def test_refuses_another_number_of_training_images_than_announced():
    model = make_model()
    batch = np.stack([model.crop(image) for image in make_images(3)])
    with pytest.raises(PatchCoreError, match="expected 4 training images, found 3"):
        model.embed_all([batch], 4)
