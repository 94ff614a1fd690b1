"""A small fit, and its comparison with the same fit by several workers."""

import numpy as np
import torch

from patchcore import PatchCore
from patchcore.backbone import Backbone
from patchcore.engine import Engine
from patchcore.fit import FitRequest, FitResult, fit
from patchcore.observer import NO_OBSERVER, Observer
from patchcore.passes import CroppedImages

SIDE = 48
BATCH = 3


def make_model(**arguments) -> PatchCore:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 4, stride=4), torch.nn.Conv2d(12, 12, 3, padding=1)
    )
    return PatchCore(
        Backbone(network, ["0", "1"], (SIDE, SIDE)),
        size_resize=(SIDE, SIDE),
        size_crop=(SIDE, SIDE),
        embed_dim=48,
        **arguments,
    )


def make_images(count: int = 23) -> list[np.ndarray]:
    """Return images; the last three are copies of the first ones."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(count - 3)]
    return images + images[:3]


def fit_images(
    model: PatchCore, engine: Engine | None, observer: Observer = NO_OBSERVER, **request
) -> FitResult:
    images = make_images()
    names = tuple(f"{number}.png" for number in range(len(images)))
    training = CroppedImages(images, names, BATCH)
    wanted = FitRequest(model.percentages, **request)
    return fit(model.embedder, model.scorer, training, wanted, observer, engine, model.context)


def assert_equal(found: FitResult, expected: FitResult) -> None:
    """Compare all results, to the last bit."""
    assert list(found.coresets) == list(expected.coresets)
    for seed, one in expected.coresets.items():
        other = found.coresets[seed]
        np.testing.assert_array_equal(other.indices, one.indices)
        assert torch.equal(other.bank.embeddings, one.bank.embeddings)
        assert other.coverage == one.coverage
        assert other.origins.names == one.origins.names
        np.testing.assert_array_equal(other.origins.image, one.origins.image)
        if one.bank.area is not None and one.bank.area.places.features is not None:
            assert torch.equal(other.bank.area.places.features, one.bank.area.places.features)
        if one.patches is not None:
            np.testing.assert_array_equal(other.patches, one.patches)
    for one, other in zip(expected.held_out, found.held_out, strict=True):
        np.testing.assert_array_equal(other.image_scores, one.image_scores)
        np.testing.assert_array_equal(other.pixel_scores, one.pixel_scores)
    assert found.normal == expected.normal
    if expected.context is not None:
        assert_equal(found.context, expected.context)
