"""Weights in a file for another network are recognised, so that the error can name it."""

import pytest
import torch
import torchvision

from patchcore import PatchCoreError
from patchcore.formulanet import WEIGHTS_FILE
from patchcore.recognise import fitting_networks
from patchcore.weights import load_backbone, read_state


def state_of(name, **options):
    return torchvision.models.get_model(name, weights=None, **options).state_dict()


@pytest.mark.parametrize("num_classes", [1000, 10])
def test_torchvisions_weights(num_classes):
    assert fitting_networks(state_of("resnet18", num_classes=num_classes)) == ["resnet18"]


def test_the_networks_own_and_unknown_weights():
    assert fitting_networks(read_state(WEIGHTS_FILE)) == ["formulanet"]
    assert fitting_networks({"layer.weight": torch.zeros(2)}) == []


def test_the_error_names_the_file_and_both_networks(tmp_path):
    torch.save(state_of("squeezenet1_1"), path := tmp_path / "mine.pth")
    with pytest.raises(PatchCoreError) as caught:
        load_backbone("resnet18", ["layer2"], str(path), size=(64, 64))
    assert str(caught.value).startswith(f"expected weights of resnet18 in {path} (weights): ")
    assert str(caught.value).endswith("; they are weights of squeezenet1_1 (backbone)")


def test_of_unknown_weights_no_network_is_named(tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, path := tmp_path / "mine.pth")
    with pytest.raises(PatchCoreError) as caught:
        load_backbone("formulanet", ["layer2"], str(path), size=(64, 64))
    assert "they are weights of" not in str(caught.value)


def test_a_shape_is_shown_as_lengths(tmp_path):
    state = state_of("squeezenet1_1") | {"features.0.weight": torch.zeros(8, 3, 3, 3)}
    torch.save(state, path := tmp_path / "mine.pth")
    with pytest.raises(
        PatchCoreError, match=r"features\.0\.weight of shape 64x3x3x3, found 8x3x3x3"
    ):
        load_backbone("squeezenet1_1", ["features.3"], str(path), size=(64, 64))
