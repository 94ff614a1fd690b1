"""Each protocol on frozen random features, against a short twin of its paper's formulas."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from patchcore import PatchCore
from patchcore.backbone import Backbone
from patchcore.protocols import PROTOCOL_BACKBONES, PROTOCOLS
from patchcore.settings import Settings
from tests.patchcore.family_twin import MEAN, STD, FamilyTwin
from tests.patchcore.test_slow_twin import MARGIN, make_images, two_layers
from tests.support import one_thread

SIDE = 32
TRAIN, TEST = make_images(5, SIDE), make_images(3, SIDE, seed=1)


@pytest.fixture(autouse=True)
def in_one_thread():
    with one_thread():
        yield


def crop(image):
    return image[MARGIN:-MARGIN, MARGIN:-MARGIN]


def fit(protocol, layers=("0", "1"), tile=None, **changed):
    """Fit a protocol at a small size."""
    side = tile or SIDE
    sizes = {"size_resize": SIDE + 2 * MARGIN, "size_crop": SIDE}
    sizes |= {"tile": tile} if tile else {}
    sizes["norm_tokens"] = False  # the features are those of a convolutional network
    backbone = Backbone(two_layers(), list(layers), (side, side))
    return PatchCore(backbone, **PROTOCOLS[protocol] | sizes | changed).fit(TRAIN)


def raw_features(image):
    """Return the features (h, w, C) float64 of each layer, at its own grid."""
    scaled = torch.from_numpy(image.copy()).permute(2, 0, 1) / 255
    value, found = ((scaled - MEAN[:, None, None]) / STD[:, None, None])[None], []
    for layer in two_layers():
        with torch.no_grad():
            value = layer(value)
        found.append(value[0].permute(1, 2, 0).double())
    return found


def at_first_grid(layers):
    """Resize each layer's features bilinearly to the grid of the first."""
    grid = layers[0].shape[:2]
    resized = [
        F.interpolate(layer.permute(2, 0, 1)[None], grid, mode="bilinear", align_corners=False)
        for layer in layers
    ]
    return [layer[0].permute(1, 2, 0) for layer in resized]


def features(image):
    return at_first_grid(raw_features(image))


def upsample(scores, sigma):
    """Return the map (SIDE, SIDE) of patch scores (h, w)."""
    resized = F.interpolate(
        torch.as_tensor(scores)[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False
    )
    return gaussian_filter(resized[0, 0].numpy(), sigma) if sigma else resized[0, 0].numpy()


def check(model, judge):
    """Compare scores and maps with those of a function of a cropped image."""
    found = model.predict(TEST)
    for number, image in enumerate(TEST):
        score, anomaly_map = judge(crop(image))
        assert found.score[number] == pytest.approx(score, rel=1e-5)
        np.testing.assert_allclose(found.anomaly_map[number], anomaly_map, rtol=1e-5, atol=1e-7)


def rotations(image):
    for angle in range(0, 360, 45):
        matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2,) * 2, angle, 1)
        yield cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)


def test_anomalydino():
    """Section 3: the least 1 - cos to the bank; the image score is the mean of the top 1 %."""
    versions = [turned for image in TRAIN for turned in rotations(crop(image))]
    bank = torch.cat([features(version)[0].flatten(0, 1) for version in versions])
    bank = bank / bank.norm(dim=1, keepdim=True)

    def judge(image):
        patches = features(image)[0]
        patches = patches / patches.norm(dim=2, keepdim=True)
        distances = (1 - patches @ bank.T).amin(2)
        count = int(distances.numel() * 0.01)
        top = sorted(distances.flatten().tolist(), reverse=True)[: max(count, 1)]
        return np.mean(top), upsample(distances, 4)

    model = fit("anomalydino", layers=["0"])
    assert len(model.coreset.bank) == len(bank) == 5 * 8 * 64
    check(model, judge)


@pytest.mark.parametrize("images", [2, 150])
def test_rad(images):
    """1 - cos to patches within one position in the nearest images; the mean of the layers."""
    bank = [[layer / layer.norm(dim=2, keepdim=True) for layer in features(crop(i))] for i in TRAIN]

    def describe(layers):
        return torch.cat([F.normalize(layer.mean((0, 1)), dim=0) for layer in layers])

    def judge(image):
        layers = [layer / layer.norm(dim=2, keepdim=True) for layer in features(image)]
        away = [float((describe(layers) - describe(other)).norm()) for other in bank]
        nearest = np.argsort(away)[:images]
        scores = np.zeros((8, 8))
        for row in range(8):
            for column in range(8):
                window = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                for number, layer in enumerate(layers):
                    among = torch.cat([bank[n][number][window].flatten(0, 1) for n in nearest])
                    scores[row, column] += float(1 - (among @ layer[row, column]).max()) / 2
        anomaly_map = upsample(scores, 1.75)
        count = int(anomaly_map.size * 0.01)
        return np.sort(anomaly_map.flatten())[-count:].mean(), anomaly_map

    check(fit("rad", retrieve_images=images), judge)


def test_superadd():
    """Euclidean distance to each layer's bank, tiles with halved overlaps, no smoothing."""

    def tiled(image):
        """Join tiles of 16 pixels at 0, 8 and 16, cut at 16 and 24 pixels."""
        starts, kept = (0, 8, 16), ((0, 16), (16, 24), (24, 32))
        grids = [torch.zeros(8, 8, 8).double(), torch.zeros(4, 4, 16).double()]
        for top, rows in zip(starts, kept, strict=True):
            for left, columns in zip(starts, kept, strict=True):
                tile = image[top : top + 16, left : left + 16]
                maps = raw_features(tile)
                for grid, layer, stride in zip(grids, maps, (4, 8), strict=True):
                    inside = np.s_[
                        (rows[0] - top) // stride : (rows[1] - top) // stride,
                        (columns[0] - left) // stride : (columns[1] - left) // stride,
                    ]
                    place = np.s_[
                        rows[0] // stride : rows[1] // stride,
                        columns[0] // stride : columns[1] // stride,
                    ]
                    grid[place] = layer[inside]
        return at_first_grid(grids)

    model = fit("superadd", tile=16, overlap=8, percentage_coreset=0.2)
    versions = [
        np.rint(np.minimum(crop(image) * np.float32(factor), 255)).astype(np.uint8)
        for factor in (1, 0.8, 1.2)
        for image in TRAIN
    ]  # all images of a batch, then their versions
    patches = [tiled(version) for version in versions]
    banks = [
        torch.cat([layers[number].flatten(0, 1) for layers in patches])[
            model.coreset.indices[number::2]
        ]
        for number in range(2)
    ]

    def judge(image):
        layers = tiled(image)
        distances = [
            torch.cdist(v.flatten(0, 1), b).amin(1) for v, b in zip(layers, banks, strict=True)
        ]
        anomaly_map = np.mean([upsample(d.view(8, 8), 0) for d in distances], axis=0)
        return anomaly_map.max(), anomaly_map

    check(model, judge)


@pytest.mark.parametrize("protocol", ["paper", "patchcore_ex", "anomalib_like", "high_resolution"])
def test_with_pooled_neighbourhoods(protocol):
    # The context of high_resolution has twins in test_context.py.
    model = fit(protocol, percentage_coreset=0.2, context=0)
    names = ("k", "image_score", "num_reweight", "embed_dim", "sigma", "scales")
    options = {name: getattr(model.settings, name) for name in names}
    twin = FamilyTwin(two_layers(), [crop(image) for image in TRAIN], **options)
    check(model, lambda image: twin.judge(image, model.coreset.indices)[:2])


def test_the_sizes_of_the_larger_ones():
    for name, resize, size in (
        ("paper_320", 366, (320, 320)),
        ("high_resolution", 512, (448, 448)),
        ("anomalib_like", 256, (256, 256)),
        ("anomalydino", 448, (448, 448)),
        ("rad", 512, (448, 448)),
        ("superadd", 1280, (1280, 1536)),
    ):
        assert PROTOCOLS[name]["size_resize"] == (resize, resize)
        assert PROTOCOLS[name]["size_crop"] == size
    assert Settings(**PROTOCOLS["high_resolution"]).of_context().size_crop == (224, 224)


@pytest.mark.parametrize("name", PROTOCOL_BACKBONES)
def test_the_networks_and_layers_exist(name):
    timm = pytest.importorskip("timm")
    network, layers = PROTOCOL_BACKBONES[name]
    name, _, tag = network.removeprefix("timm:").partition(".")
    assert f"{name}.{tag}" in timm.list_pretrained(f"{name}*")
    with torch.device("meta"):
        model = timm.create_model(name)
    assert set(layers) <= {module for module, _ in model.named_modules()}


def test_what_the_originals_use():
    ours, ex, lib = (PROTOCOLS[n] for n in ("high_resolution", "patchcore_ex", "anomalib_like"))
    assert (ours["percentage_coreset"], ours["context"]) == ((0.03,), 0.5)
    assert (ex["interpolation"], ex["k"], ex["image_score"]) == ("area", 5, "max_map")
    assert (lib["embed_dim"], lib["image_score"], lib["num_reweight"]) == (1536, "reweighted", 9)
    dino, rad, superadd = (PROTOCOLS[name] for name in ("anomalydino", "rad", "superadd"))
    assert dino["top_share"] == rad["top_share"] == 0.01
    assert dino["augment"] == ("rotations",)
    assert (rad["retrieve_images"], rad["search_radius"], rad["sigma"]) == (150, 1, 1.75)
    assert (superadd["tile"], superadd["overlap"], superadd["sigma"]) == (640, 256, 0)
    assert [p.get("norm_tokens", False) for p in (dino, rad, superadd)] == [True, True, False]
    assert [p["interpolation"] for p in (dino, rad, superadd)] == ["bicubic", "bilinear", "bicubic"]
    assert dino["percentage_coreset"] == rad["percentage_coreset"] == (1.0,)
