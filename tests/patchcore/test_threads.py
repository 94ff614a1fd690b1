"""Threads that predict at the same time get the same bits as calls one after another."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
import torchvision

from datasets.images import read_image
from patchcore import PatchCore
from patchcore.backbone import Backbone
from patchcore.lower_bounds import BoundedPart
from patchcore.settings import IMAGE_SCORES
from patchcore.weights import load_backbone
from tests.patchcore.test_model import make_backbone, make_images
from tests.support import ROOT, one_thread

NUM_THREADS = 4
NAMES = ("score", "anomaly_map", "distance", "nearest")


def num_wrong(requests):
    """Predict requests in turn, then from threads; count those with other bits.

    Args:
        requests: Pairs of a model and its images.
    """
    expected = [model.predict(images) for model, images in requests]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        found = list(pool.map(lambda request: request[0].predict(request[1]), requests))
    return sum(
        any(not np.array_equal(getattr(own, n), getattr(wanted, n)) for n in NAMES)
        for own, wanted in zip(found, expected, strict=True)
    )


def small_model(backbone, **options):
    sizes = {"size_resize": (36, 36), "size_crop": (32, 32), "embed_dim": 24}
    return PatchCore(backbone, **(sizes | {"percentage_coreset": 0.2} | options))


@pytest.mark.parametrize("image_score", IMAGE_SCORES)
def test_one_model_serves_many_threads(image_score):
    with one_thread():
        model = small_model(make_backbone(), k=2, image_score=image_score).fit(make_images(6))
        assert num_wrong([(model, make_images(1 + n % 5, seed=n)) for n in range(60)]) == 0


def test_models_that_share_a_backbone_serve_threads_together():
    with one_thread():
        backbone = make_backbone()
        models = [
            small_model(backbone, percentage_coreset=share, k=k, precision=precision).fit(
                make_images(6, seed=k)
            )
            for share, k, precision in ((0.1, 1, "float32"), (0.5, 3, "bfloat16"))
        ]
        assert num_wrong([(models[n % 2], make_images(2, seed=n)) for n in range(40)]) == 0


def test_the_number_of_torch_threads_holds_in_every_thread():
    """Sums over other numbers of threads round otherwise."""
    with one_thread(), ThreadPoolExecutor(NUM_THREADS) as pool:
        assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}


def test_threads_share_a_bank_that_is_searched_by_bounds(monkeypatch):
    """A new model, so that the first searches prepare the bank at the same time."""
    searched = []
    nearest = BoundedPart.nearest

    def noted(*arguments):
        found = nearest(*arguments)
        searched.append(found is not None)
        return found

    monkeypatch.setattr(BoundedPart, "nearest", noted)
    with one_thread():
        torch.manual_seed(0)
        network = torchvision.models.squeezenet1_1(weights=None)
        backbone = Backbone(network, ["features.3", "features.6"], (64, 64))
        sizes = {"size_resize": (64, 64), "size_crop": (64, 64), "embed_dim": 256}
        models = [
            PatchCore(backbone, percentage_coreset=1.0, batch_size=2, **sizes).fit(make_images(8))
            for _ in range(2)
        ]
        requests = [make_images(2, seed=n) for n in range(12)]
        expected = [models[0].predict(images).score for images in requests]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            found = list(pool.map(lambda images: models[1].predict(images).score, requests))
    assert np.array_equal(found, expected)
    assert any(searched)


def test_threads_resize_by_area_alike():
    before = cv2.getNumThreads()
    with one_thread():
        model = small_model(make_backbone(), interpolation="area").fit(make_images(4))
        requests = [(model, make_images(1, seed=n, size=(300, 200))) for n in range(20)]
        assert num_wrong(requests) == 0
    assert cv2.getNumThreads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_predicts_if_torch_has_one_thread():
    """As docs/server.md says. In a process of its own, since this one may have used more."""
    code = (
        "import os, signal, torch; torch.set_num_threads(1)\n"
        "from tests.patchcore.test_model import make_images, make_model\n"
        "model = make_model().fit(make_images(4))\n"
        "expected = model.predict(make_images(3, seed=1)).score.tolist()\n"
        "process = os.fork()\n"
        "if process == 0:\n"
        "    signal.alarm(60)  # a child that waits forever ends with a signal\n"
        "    found = model.predict(make_images(3, seed=1)).score.tolist()\n"
        "    os._exit(0 if found == expected else 1)\n"
        "assert os.waitpid(process, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=180)


@pytest.mark.real_data
@pytest.mark.parametrize("num_models", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_96_requests_of_bottle(shared, num_models):
    bottle = shared / "mvtec_anomaly_detection/bottle"
    train, test = (
        [read_image(path) for path in sorted(bottle.glob(pattern))[::step]]
        for pattern, step in (("train/good/*.png", 8), ("test/*/*.png", 3))
    )
    weights = str(shared / "weights/mobilenet_v2.pth")
    backbone = load_backbone("mobilenet_v2", ["features.6", "features.13"], weights)
    models = [
        PatchCore(backbone, percentage_coreset=0.1 * (1 + number)).fit(train[number::2])
        for number in range(num_models)
    ]
    requests = [(models[n % num_models], [test[n % len(test)]]) for n in range(96)]
    assert num_wrong(requests) == 0
