"""Trials: what backbones are measured on where there is no data set."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.synthetic import render
from patchcore.weights import load_backbone
from utils.commands import trial as trial_module
from utils.commands.trial import (
    PHOTOGRAPH_SIDE,
    make_photograph_trial,
    measure_backbone,
    read_photograph_trial,
)
from utils.errors import UsageError


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Return a folder of 20 pictures of good hexagon nuts, as a data set keeps them."""
    folder = tmp_path_factory.mktemp("data") / "nut/train/good"
    folder.mkdir(parents=True)
    for number in range(20):
        image, _ = render("hex_nut", None, seed=number, size=128)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image[..., ::-1])
    return folder


def test_photographs_that_are_learnt_are_not_judged(photographs):
    trial = read_photograph_trial(photographs)

    assert trial.name == "nut/train/good"
    side = PHOTOGRAPH_SIDE
    assert trial.train.shape == (12, side, side, 3)
    assert trial.test.shape == (8 + 16, side, side, 3)
    learnt = {image.tobytes() for image in trial.train}
    assert not learnt & {image.tobytes() for image in trial.test}


def test_each_that_is_held_out_is_judged_as_it_is_and_with_two_blemishes(photographs):
    trial = read_photograph_trial(photographs)

    defective = trial.masks.any((1, 2))
    assert defective.tolist() == [False] * 8 + [True] * 16
    for number in range(8):
        good = trial.test[number].astype(int)
        for blemished, mask in (
            (trial.test[i], trial.masks[i]) for i in (8 + 2 * number, 9 + 2 * number)
        ):
            changed = np.abs(blemished - good).mean(2) > 0
            assert changed[mask].mean() > 0.5
            assert changed.mean() < 0.2, "another product"


def test_the_same_photographs_give_the_same_trial(photographs):
    first, second = read_photograph_trial(photographs), read_photograph_trial(photographs)
    assert (first.test == second.test).all()
    assert (first.train == second.train).all()


def test_of_many_photographs_the_first_are_read(photographs, monkeypatch):
    monkeypatch.setattr(trial_module, "MOST_PHOTOGRAPHS", 10)
    trial = read_photograph_trial(photographs)
    assert len(trial.train) == 6


@pytest.mark.parametrize(("count", "told"), [(0, "found none"), (3, "at least 10 .*, found 3")])
def test_too_few_photographs_are_told(tmp_path, count, told):
    for number in range(count):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=told + r".*\(--photographs\)"):
        read_photograph_trial(tmp_path)


def test_a_folder_that_is_missing_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.*\(--photographs\)"):
        read_photograph_trial(tmp_path / "nowhere")


def test_a_damaged_file_is_told(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"0\.png.*\(--photographs\)"):
        read_photograph_trial(tmp_path)


def test_photographs_on_which_nothing_can_be_seen_are_told(tmp_path):
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), 90, np.uint8))
    with pytest.raises(UsageError, match=r"something turned can be seen.*\(--photographs\)"):
        read_photograph_trial(tmp_path)


def test_it_tells_the_trained_network_from_an_untrained_one():
    photos = np.stack([render("hex_nut", None, seed=seed, size=256)[0] for seed in range(10)])
    trials = [make_photograph_trial("nuts", photos)]
    shipped = measure_backbone(load_backbone("formulanet", ()), trials)["nuts"]
    untrained = measure_backbone(load_backbone("formulanet", (), "random"), trials)["nuts"]
    assert shipped.image > untrained.image + 0.05
    assert shipped.pixel > untrained.pixel + 0.02
