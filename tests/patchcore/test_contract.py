"""What holds for every network, image score, k and precision: one contract, many models."""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from patchcore import PatchCore, PatchCoreError
from patchcore.backbone import Backbone
from patchcore.settings import IMAGE_SCORES, INTERPOLATIONS
from tests.patchcore.test_model import make_images
from tests.support import one_thread

SIDE = 32  # pixels
NAMES = ("score", "anomaly_map", "distance", "nearest")


def plain_cnn():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))


def tiny_vit():
    return torchvision.models.VisionTransformer(
        image_size=SIDE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def tiny_swin():
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=[4, 4]
    )


NETWORKS = {
    "cnn": (plain_cnn, ["0", "2"]),
    "squeezenet": (torchvision.models.squeezenet1_1, ["features.3", "features.6"]),
    "vit": (tiny_vit, ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"]),
    "swin": (tiny_swin, ["features.1", "features.3"]),
}


@cache
def backbone_of(network):
    make, layers = NETWORKS[network]
    torch.manual_seed(0)
    return Backbone(make(), layers, (SIDE, SIDE))


@dataclass(frozen=True)
class Case:
    """A supported combination."""

    network: str
    image_score: str = "max_patch"
    k: int = 1
    precision: str = "float32"

    def __str__(self):
        return f"{self.network}-{self.image_score}-k{self.k}-{self.precision}"

    def model(self, **options):
        """Make a model with a bank of all patches."""
        return PatchCore(
            backbone_of(self.network),
            image_score=self.image_score,
            k=self.k,
            precision=self.precision,
            **({"percentage_coreset": 1.0} | small_sizes() | options),
        )


def small_sizes():
    return {"size_resize": (36, 36), "size_crop": (SIDE, SIDE), "embed_dim": 24}


CASES = [
    *(Case(*values) for values in product(NETWORKS, IMAGE_SCORES, (1, 3))),
    *(Case(network, precision="bfloat16") for network in ("cnn", "vit")),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
TRAIN, TEST = make_images(4), make_images(6, seed=1)


@pytest.fixture(autouse=True)
def in_one_thread():
    with one_thread():
        yield


def assert_same_bits(found, expected, names=NAMES):
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@every_case
def test_more_training_images_never_raise_a_distance(case):
    """In batches of one image: a network may round otherwise in others."""
    few = case.model(batch_size=1).fit(TRAIN[:2]).predict(TEST)
    many = case.model(batch_size=1).fit(TRAIN).predict(TEST)
    assert (many.distance <= few.distance).all()
    assert (many.distance < few.distance).any()
    if case.image_score != "reweighted":  # its weight depends on all neighbours
        assert (many.score <= few.score * (1 + 1e-6)).all()


@every_case
def test_a_training_image_is_at_distance_0(case):
    prediction = case.model().fit(TRAIN).predict(TRAIN)
    assert (prediction.distance[..., 0] == 0).all()
    if case.k == 1:
        assert (prediction.score == 0).all()
        assert (prediction.anomaly_map == 0).all()
    else:  # the other neighbours are other patches
        assert (prediction.distance[..., 1:] > 0).all()


@every_case
def test_duplicated_training_images(case):
    once = case.model(batch_size=1).fit(TRAIN).predict(TEST)
    twice = case.model(batch_size=1).fit([*TRAIN, *TRAIN]).predict(TEST)
    np.testing.assert_array_equal(twice.distance[..., 0], once.distance[..., 0])
    if case.k > 1:  # the copies are among the neighbours
        np.testing.assert_array_equal(twice.distance[..., 1], once.distance[..., 0])
        np.testing.assert_array_equal(twice.distance[..., 2], once.distance[..., 1])
    elif case.image_score != "reweighted":  # its neighbourhood holds the copies too
        assert_same_bits(twice, once, ("score", "anomaly_map"))


@every_case
def test_order_of_test_images_and_a_second_fit(case):
    model = case.model(percentage_coreset=0.2, batch_size=3).fit(TRAIN)
    expected = model.predict(TEST)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = model.predict([TEST[number] for number in order])
    for number, place in enumerate(order):
        assert_same_bits(shuffled.of(number), expected.of(place))
    model.fit(TEST[:2])
    assert_same_bits(model.fit(TRAIN).predict(TEST), expected)


@every_case
def test_the_batch_size(case):
    model = case.model().fit(TRAIN)
    expected = model.predict(TEST)
    # Of bfloat16, which resolves 0.4 %, a network may round each value otherwise.
    tolerance = 1e-5 if case.precision == "float32" else 0.02
    for batch_size in (1, 3, 5):
        model.batch_size = batch_size
        np.testing.assert_allclose(model.predict(TEST).score, expected.score, rtol=tolerance)


def read_only(array):
    copied = array.copy()
    copied.flags.writeable = False
    return copied


def strided(array):
    """Return the same values, at every second place of memory and backwards."""
    spread = np.zeros((2 * array.shape[0], 2 * array.shape[1], 6), array.dtype)
    view = spread[::-2, ::2, ::-2]
    view[:] = array
    return view


FORMS = {
    "read-only": read_only,
    "strided": strided,
    "Fortran order": np.asfortranarray,
    "byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "strided tensor": lambda array: torch.from_numpy(array.transpose(2, 1, 0).copy()).mT,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_form_of_an_array_in_memory(form, interpolation):
    change = FORMS[form]
    model = Case("cnn").model(interpolation=interpolation)
    expected = model.fit(TRAIN).predict(TEST)
    found = model.fit(map(change, TRAIN)).predict(map(change, TEST))
    assert_same_bits(found, expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", [read_only, np.asfortranarray, lambda batch: batch[::-1][::-1]])
def test_the_form_of_a_batch_of_crops_in_memory(change):
    model = Case("cnn").model().fit(TRAIN)
    crops = np.stack([model.crop(image) for image in TEST])
    assert_same_bits(model.predict_crops([change(crops)]), model.predict_crops([crops]))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda crops: crops.astype(np.float32), r"float32 \(6, 32, 32, 3\)"),
        (lambda crops: crops[:, :-1], r"uint8 \(6, 31, 32, 3\)"),
        (lambda crops: crops[0], r"uint8 \(32, 32, 3\)"),
        (lambda crops: crops[:0], r"uint8 \(0, 32, 32, 3\)"),
        (list, "list"),
    ],
)
def test_refuses_other_batches_of_crops(change, found):
    model = Case("cnn").model().fit(TRAIN)
    batch = change(np.stack([model.crop(image) for image in TEST]))
    before = batch[0].copy() if len(batch) else None
    with pytest.raises(PatchCoreError, match=rf"crops \(B, 32, 32, 3\) uint8, .*, found {found}$"):
        model.predict_crops([batch])
    assert before is None or np.array_equal(batch[0], before)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", ">u2", "<f4", ">f4", "?", "O"])
def test_refuses_arrays_of_other_types(dtype):
    model = Case("cnn").model().fit(TRAIN)
    for use in (model.fit, model.predict):
        with pytest.raises(PatchCoreError, match=r"uint8 arrays, .*, found .*\(40, 50, 3\)"):
            use([TRAIN[0].astype(dtype)])


class WrongForWhite(nn.Module):
    """Gives one feature of images with a white corner a value of choice."""

    def __init__(self, value):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)
        self.read = nn.Identity()
        self.value = value

    def forward(self, images):
        maps = self.conv(images)
        is_white = images[:, :, 0, 0].amin(1) > 2  # normalised: white is above 2.2
        maps[is_white, 3, 2, 2] = self.value
        return self.read(maps)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30], ids=str)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("image_score", IMAGE_SCORES)
def test_features_that_are_not_finite_are_refused(value, k, image_score):
    """1e30 is finite, but its square in float32 is not."""
    torch.manual_seed(0)
    backbone = Backbone(WrongForWhite(value), ["read"], (SIDE, SIDE))
    model = PatchCore(
        backbone, percentage_coreset=1.0, k=k, image_score=image_score, **small_sizes()
    )
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    with pytest.raises(PatchCoreError, match=r"finite embeddings, .* \(backbone, weights, prec"):
        model.fit([*TRAIN, white])
    model.fit(TRAIN)
    with pytest.raises(PatchCoreError, match=r"finite anomaly scores, .* for 2 of 3 images"):
        model.predict([white, TEST[0], white])
    assert np.isfinite(model.predict(TEST).score).all()
