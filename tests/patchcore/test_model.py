import dataclasses
import inspect
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from patchcore import PatchCore, PatchCoreError
from patchcore.backbone import Backbone
from patchcore.prediction import Collector
from patchcore.settings import IMAGE_SCORES, Settings


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
    assert len(model.coreset.indices) == int(6 * 64 * 0.2)
    assert prediction.nearest.max() < len(model.coreset.indices)
    np.testing.assert_allclose(prediction.score, prediction.distance.mean(3).max((1, 2)), rtol=1e-6)


def test_a_training_image_with_the_whole_bank_is_itself_at_distance_zero():
    images = make_images(5)
    model = make_model(percentage_coreset=1.0).fit(images)
    prediction = model.predict(images)
    assert (prediction.score == 0).all()
    own = model.coreset.indices[prediction.nearest.reshape(-1)]
    np.testing.assert_array_equal(own, np.arange(5 * 64))


@pytest.mark.parametrize("size", [(224, 224), (64, 32), [32, 32]])
@pytest.mark.parametrize("options", [{}, {"tile": 16, "overlap": 8}])
def test_a_backbone_for_another_size_gives_the_same(size, options):
    sizes = {"size_resize": (36, 36), "size_crop": (32, 32), "embed_dim": 24}
    fitting = make_backbone((16, 16) if options else (32, 32))
    expected, found = (
        PatchCore(backbone, **sizes, **options).fit(make_images(4)).predict(make_images(2, 1))
        for backbone in (fitting, make_backbone(size))
    )
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)


@contextmanager
def default_type(dtype):
    former = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(former)


def all_at_once(folder, context=nullcontext, network=make_backbone):
    """Return what a model predicts after everything that can be done with it."""
    images, new = make_images(4), make_images(2, seed=1)
    with context():
        backbone = network()
        model = PatchCore(
            backbone, size_resize=36, size_crop=32, percentage_coreset=0.2, embed_dim=24
        )
        model.fit(images).extend(new[:1])
        model.save(folder)
        again = PatchCore.load(folder, backbone=backbone)
        predictions = model.predict(new), again.predict(new)
    return [p.anomaly_map for p in predictions] + [p.score for p in predictions]


AMBIENT = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_type(torch.float64),
    "bfloat16": lambda: default_type(torch.bfloat16),
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("ambient", AMBIENT)
def test_what_the_caller_has_set_in_torch_changes_nothing(tmp_path, ambient):
    expected = all_at_once(tmp_path / "expected")
    network = make_backbone().network
    found = all_at_once(
        tmp_path / "found", AMBIENT[ambient], lambda: Backbone(network, ["0", "2"], (32, 32))
    )
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, wanted)


@pytest.mark.parametrize("ambient", ["float64", "device"])
def test_a_network_by_name_is_built_as_if_nothing_was_set_in_torch(ambient):
    name = {"weights": "random", "size_resize": 64, "size_crop": 64}
    expected = PatchCore("squeezenet1_1", ("features.3",), **name).backbone.weights_digest
    with AMBIENT[ambient]():
        found = PatchCore("squeezenet1_1", ("features.3",), **name).backbone
        assert torch.empty(0).device.type == ("meta" if ambient == "device" else "cpu")
    assert found.weights_digest == expected
    assert {p.device.type for p in found.parameters()} == {"cpu"}


def test_images_are_made_as_the_caller_has_set_it():
    def images():
        assert torch.empty(0).device.type == "meta"
        yield from make_images(2)

    model = make_model()
    with torch.device("meta"):
        model.fit(images()).predict(images())


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
    train = make_images(8)
    test = np.stack([make_model().crop(i) for i in make_images(4, seed=1)])
    together = make_model(percentage_coreset=[0.5, 0.05, 0.2], k=k).fit(train)
    assert together.percentages == (0.05, 0.2, 0.5)
    coreset, embeddings = together.coreset, together.embedder.embed(test)
    predictions = list(together.scorer.predict(embeddings, coreset.bank, coreset.sizes))
    for percentage, found in zip(together.percentages, predictions, strict=True):
        alone = make_model(percentage_coreset=percentage, k=k).fit(train)
        expected = alone.predict(make_images(4, seed=1))
        collector = Collector()
        collector.add(found)
        prediction = collector.finish()
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


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"size_crop": 16}, "1x1"),
        ({"size_crop": 16, "banks": "per_layer"}, "1x1"),
        ({"size_crop": (16, 32)}, "1x2"),
        ({"size_crop": 32, "scales": (1, 0.5)}, "1x1"),
        ({"size_crop": 32, "context": 0.5}, "1x1"),
    ],
)
@pytest.mark.parametrize("patch_size", [2, 4])
def test_an_even_patch_size_needs_two_positions(options, found, patch_size):
    model = PatchCore("formulanet", patch_size=patch_size, size_resize=32, **options)
    with pytest.raises(PatchCoreError, match=rf"2x2 positions .*, found {found} \(patch_size"):
        model.fit(make_images(3))


def test_non_square_crops():
    model = PatchCore(
        make_backbone((32, 48)), size_resize=(36, 50), size_crop=(32, 48), embed_dim=16
    ).fit(make_images(3))
    assert model.grid == (8, 12)
    assert model.predict(make_images(2)).anomaly_map.shape == (2, 32, 48)


@pytest.mark.parametrize("percentage", [0, -0.1, 1.01, [], [0.1, 2], float("nan")])
def test_refuses_percentages_outside_0_to_1(percentage):
    with pytest.raises(PatchCoreError, match=r"percentage_coreset in \(0, 1\]"):
        make_model(percentage_coreset=percentage)


def test_refuses_a_coreset_smaller_than_k():
    with pytest.raises(PatchCoreError, match="at least k = 5 patches in the coreset, found 2"):
        make_model(percentage_coreset=0.01, k=5).fit(make_images(4))


def test_refuses_to_predict_before_it_was_fitted():
    with pytest.raises(PatchCoreError, match="call fit or load first"):
        make_model().predict(make_images(1))


def test_refuses_no_images():
    with pytest.raises(PatchCoreError, match="at least one training image"):
        make_model().fit([])
    with pytest.raises(PatchCoreError, match="at least one image to predict"):
        make_model().fit(make_images(2)).predict([])


@pytest.mark.parametrize("names", ["abc", None, 3])
def test_refuses_what_names_no_images(names):
    with pytest.raises(PatchCoreError, match=f"a name of each image, found names={names!r}"):
        make_model().fit(make_images(3), names)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone": None}, "Backbone or the name of a network, found NoneType"),
        (
            {"backbone": torch.nn.Conv2d(3, 8, 3)},
            "found Conv2d: .* as Backbone\\(network, layers\\)",
        ),
        ({"backbone": "formulanet", "layers": "layer1"}, "as a list of names, found 'layer1'"),
        ({"backbone": "formulanet", "layers": [1]}, r"as a list of names, found \[1\]"),
        (
            {"backbone": make_backbone(), "layers": ["other"]},
            r"which has its own, found layers=\['other'\]",
        ),
        (
            {"backbone": make_backbone(), "layers": ["0"]},  # it reads another one too
            r"which has its own, found layers=\['0'\]",
        ),
        ({"backbone": make_backbone(), "weights": "a.pth"}, "found .* weights='a.pth'"),
        ({"ignore_mask": np.zeros((0, 5), bool)}, r"expected a mask .* found bool \(0, 5\)"),
    ],
)
def test_refuses_arguments_of_another_kind(given, message):
    with pytest.raises(PatchCoreError, match=message):
        PatchCore(**({"backbone": "formulanet", "size_resize": 32, "size_crop": 32} | given))


@pytest.mark.parametrize(
    ("network", "layers", "message"),
    [
        (torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), None, "as a list of names, found None"),
        ("resnet18", ["layer1"], "a torch.nn.Module.* found str"),
    ],
)
def test_a_backbone_refuses_arguments_of_another_kind(network, layers, message):
    with pytest.raises(PatchCoreError, match=message):
        Backbone(network, layers)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_backbone_refuses_a_scripted_network():
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)))
    with pytest.raises(PatchCoreError, match="neither scripted nor traced"):
        Backbone(scripted, ["0"])


def test_crops_what_it_takes_as_an_image():
    model, (image,) = make_model(), make_images(1)
    expected = model.crop(image)
    for same in (Image.fromarray(image), torch.from_numpy(image).permute(2, 0, 1)):
        np.testing.assert_array_equal(model.crop(same), expected)
    for other in (image / 255, image[..., :1], "a.png"):
        with pytest.raises(PatchCoreError, match=r"expected .* uint8 arrays, PIL images"):
            model.crop(other)


def test_a_model_of_one_other_percentage():
    model = make_model().with_percentages(0.5)
    assert model.percentages == (0.5,)
    with pytest.raises(PatchCoreError, match=r"percentage_coreset in \(0, 1\]"):
        model.with_percentages(2)


def test_flips_are_learned_too():
    images = make_images(3, size=(36, 36))  # of size_resize: resizing changes nothing
    model = make_model(percentage_coreset=1.0, augment=("horizontal", "vertical")).fit(images)
    assert len(model.coreset.indices) == 3 * 3 * 64
    flipped = [image[:, ::-1] for image in images] + [image[::-1] for image in images]
    flipped_alone = make_model(percentage_coreset=1.0).fit(images).predict(flipped)
    assert (flipped_alone.score > 0).all()
    np.testing.assert_allclose(model.predict(flipped).score, 0, atol=1e-5)


def test_the_image_score_can_be_that_of_the_smoothed_map():
    prediction = make_model(image_score="max_map").fit(make_images(4)).predict(make_images(3, 1))
    np.testing.assert_array_equal(prediction.score, prediction.anomaly_map.max((1, 2)))


def reweight_by_loops(model, prediction, embeddings, b):
    """The slow twin: equation 7 of the paper, image by image, in float64."""
    bank = model.coreset.bank.embeddings.double().numpy()
    results = []
    for image, distances in enumerate(prediction.distance.mean(3)):
        row, column = np.unravel_index(distances.argmax(), distances.shape)
        m_test = embeddings[image, row, column].double().numpy()
        m_star = bank[prediction.nearest[image, row, column, 0]]
        order = np.argsort(np.linalg.norm(bank - m_star, axis=1), kind="stable")[:b]
        total = sum(np.exp(np.linalg.norm(m_test - bank[m])) for m in order)
        weight = 1 - np.exp(np.linalg.norm(m_test - m_star)) / total
        results.append(weight * distances[row, column])
    return np.array(results)


@pytest.mark.parametrize("b", [2, 4, 1000])
@pytest.mark.parametrize("k", [1, 2])
def test_the_reweighted_score_is_equation_7(b, k):
    model = make_model(image_score="reweighted", num_reweight=b, k=k).fit(make_images(6))
    test = make_images(5, seed=1)
    prediction = model.predict(test)
    embeddings = model.embedder.embed(np.stack([model.crop(image) for image in test]))
    expected = reweight_by_loops(model, prediction, embeddings, b)
    np.testing.assert_allclose(prediction.score, expected, rtol=1e-3, atol=1e-4)


def test_the_reweighted_score_does_not_overflow():
    """exp of a distance of 100 is more than float32 holds."""
    model = make_model(image_score="reweighted", layer_weights=(500.0, 500.0)).fit(make_images(4))
    prediction = model.predict(make_images(3, seed=1))
    assert prediction.distance.max() > 100
    assert np.isfinite(prediction.score).all()


def test_layer_weights_and_interpolation_reach_the_embedding():
    batch = make_images(1, size=(40, 50))
    plain, weighted, area = (
        model.embedder.embed(np.stack([model.crop(batch[0])]))
        for model in (
            make_model(),
            make_model(layer_weights=(2.0, 2.0)),
            make_model(interpolation="area"),
        )
    )
    torch.testing.assert_close(weighted, 2 * plain)
    assert not torch.allclose(area, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_score": "median"}, "top_share_map, found 'median'"),
        (
            {"augment": ("diagonal",)},
            "brightness, found 'diagonal'",
        ),
        ({"interpolation": "cubic"}, "backbone, bilinear, bicubic, area, found 'cubic'"),
        ({"batch_size": 0}, r"batch_size of at least 1, found 0 \(batch_size\)"),
        ({"batch_size": -1}, r"batch_size of at least 1, found -1 \(batch_size\)"),
        ({"batch_size": 2.0}, r"batch_size of type int, found 2\.0 \(batch_size\)"),
        ({"batch_size": True}, r"batch_size of type int, found True \(batch_size\)"),
        ({"device": "gpu"}, r"a device that torch finds, .*, found 'gpu': .* \(device\)"),
        ({"device": None}, r"a device that torch finds, .*, found None: .* \(device\)"),
        ({"device": "meta"}, r"a device that torch finds, .*, found 'meta': .* \(device\)"),
        ({"num_reweight": 0}, "num_reweight of at least 2, found 0"),
    ],
)
def test_refuses_settings_that_cannot_be(options, message):
    with pytest.raises(PatchCoreError, match=message):
        make_model(**options)


def test_the_signature_shows_every_setting_with_its_default():
    shown = inspect.signature(PatchCore).parameters
    for field in dataclasses.fields(Settings):
        assert shown[field.name].default == field.default
        assert shown[field.name].kind is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(TypeError, match="hidden"):
        make_model(hidden=1)


def test_a_network_by_name_is_laid_out_for_the_crop():
    model = PatchCore("formulanet", size_resize=(36, 52), size_crop=(32, 48))
    assert model.backbone.size == (32, 48)


@pytest.mark.gpu
@pytest.mark.parametrize("image_score", IMAGE_SCORES)
@pytest.mark.parametrize("k", [1, 3])
def test_what_a_gpu_learned_and_judged_the_cpu_judges_alike(tmp_path, image_score, k):
    sizes = {"size_resize": (64, 64), "size_crop": (64, 64)}
    model = PatchCore("formulanet", k=k, image_score=image_score, device="cuda", **sizes)
    model.fit(make_images(6))
    others = make_images(3, seed=1)
    found = model.predict(others)
    model.save(tmp_path / "model")

    expected = PatchCore.load(tmp_path / "model").predict(others)

    np.testing.assert_allclose(found.score, expected.score, rtol=1e-3)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_on_a_gpu_other_precisions_round(precision):
    sizes = {"size_resize": (64, 64), "size_crop": (64, 64)}
    images, others = make_images(6), make_images(3, seed=1)
    full, rounded = (
        PatchCore("formulanet", device="cuda", precision=name, **sizes).fit(images).predict(others)
        for name in ("float32", precision)
    )
    np.testing.assert_allclose(rounded.score, full.score, rtol=0.05)
