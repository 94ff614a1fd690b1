"""The backbone that ships with the code: small, loaded without a network, known by its card."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from patchcore import PatchCore
from patchcore.formulanet import FORMULANET, LAYERS, WEIGHTS_FILE, FormulaNet
from patchcore.weights import load_backbone, read_state
from tests.support import ROOT

CARD = WEIGHTS_FILE.with_suffix(".md")
MOST_PARAMETERS = 2_000_000
MOST_BYTES = 4_000_000


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked for weights")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)


@pytest.fixture(scope="module")
def shipped():
    return load_backbone(FORMULANET, ())


def test_is_small():
    assert sum(p.numel() for p in FormulaNet().parameters()) <= MOST_PARAMETERS
    assert WEIGHTS_FILE.stat().st_size <= MOST_BYTES


def test_its_file_holds_every_weight_in_float16():
    state, own = read_state(WEIGHTS_FILE), FormulaNet().state_dict()
    assert set(state) == {name for name in own if not name.endswith("num_batches_tracked")}
    for name, value in state.items():
        assert value.dtype == torch.float16
        assert value.shape == own[name].shape
        assert value.isfinite().all()


def test_the_card_is_of_these_weights(shipped):
    (digest,) = re.findall(r"digest.*`([0-9a-f]{64})`", CARD.read_text(encoding="utf-8"))
    assert shipped.weights_digest == digest


def test_its_maps_are_fine(shipped):
    assert shipped.grids == ((56, 56), (28, 28), (14, 14))
    assert shipped.channels == (64, 128, 128)


def test_default_weights_are_its_own_and_random_ones_are_not(shipped):
    random = load_backbone(FORMULANET, LAYERS, "random", seed=1)
    again = load_backbone(FORMULANET, LAYERS, str(WEIGHTS_FILE))
    assert again.weights_digest == shipped.weights_digest != random.weights_digest


def test_its_batch_norms_are_folded_away(shipped):
    norms = [m for m in shipped.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == []


def test_finds_a_scratch():
    """Stripes with a scratch along them, by the defaults of the library."""
    rng = np.random.default_rng(0)

    def stripes(scratched=False):
        phase = rng.uniform(0, 6.3)
        tone = 128 + 50 * np.sin(np.arange(256) / 3 + phase)
        image = np.repeat(np.tile(tone, (256, 1))[..., None], 3, axis=2)
        if scratched:
            image[100:160, 126:130] = 235
        return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)

    model = PatchCore(FORMULANET, percentage_coreset=0.01).fit([stripes() for _ in range(8)])
    test = [stripes() for _ in range(6)] + [stripes(scratched=True) for _ in range(6)]
    prediction = model.predict(test)
    assert prediction.score[6:].min() > prediction.score[:6].max()
    row, column = np.unravel_index(prediction.anomaly_map[-1].argmax(), (224, 224))
    assert abs(row - (130 - 16)) < 40
    assert abs(column - (128 - 16)) < 12


def test_the_installed_package_brings_its_weights(tmp_path):
    """As ``pip install .`` does, without the network: what it would copy holds the file."""
    code = (
        "import sys; from setuptools import setup; "
        f"sys.argv = ['setup.py', '-q', 'build', '-b', {str(tmp_path)!r}]; setup()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    built = tmp_path / "lib/patchcore"
    for file in (WEIGHTS_FILE, CARD):
        assert (built / file.name).read_bytes() == file.read_bytes()
