"""`main.py pretrain`, on a handful of pictures."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

import main
from datasets.synthetic import render
from patchcore.weights import load_backbone, read_state
from tests.support import ROOT, call
from utils.commands import trial as trial_module
from utils.commands.trial import make_trials
from utils.pretraining import loop
from utils.pretraining.loop import CHECKPOINT

SMALL = ("--num_classes", "8", "--batch_size", "4", "--num_workers", "0", "--categories", "weave")
OUTPUTS = {
    "checkpoint.pt",
    "checkpoint_steady.pt",
    "classes.png",
    "curves.png",
    "formulanet.md",
    "formulanet.safetensors",
}


@pytest.fixture(autouse=True, scope="module")
def few_pictures():
    """Measure on a few pictures, and report as often as so short a training needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "REPORT_EVERY", 4)
        for name, count in (("NUM_TRAIN", 3), ("NUM_TEST_GOOD", 2), ("NUM_TEST_PER_DEFECT", 1)):
            patch.setattr(trial_module, name, count)
        yield


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Train on 48 pictures; return the result folder, which is not to be changed."""
    folder = tmp_path_factory.mktemp("pretrain")
    assert call("pretrain", "--budget", "48", "--path_result", folder, *SMALL) == 0
    return folder


def test_writes_weights_card_and_pictures(result):
    names = {file.name for file in result.iterdir()}
    textures = {name for name in names if name.startswith("textures_")}
    assert names - textures == OUTPUTS
    assert len(textures) == 1
    for name in ("classes.png", "curves.png"):
        assert cv2.imread(str(result / name)) is not None
    card = (result / "formulanet.md").read_text(encoding="utf-8")
    backbone = load_backbone("formulanet", (), str(result / "formulanet.safetensors"))
    assert backbone.weights_digest in card
    assert "| steps | 12 |" in card
    assert "| recipe: num_classes | 8 |" in card
    scores = re.search(r"\| weave \| ([\d.]+) / ([\d.]+) \| ([\d.]+) / ([\d.]+) \|", card)
    assert all(0 <= float(value) <= 100 for value in scores.groups())


def test_called_again_it_goes_on_with_a_larger_budget_and_repeats_nothing(result, tmp_path):
    folder = shutil.copytree(result, tmp_path / "more")
    before = torch.load(folder / CHECKPOINT, weights_only=True)
    drawn = {file: file.stat().st_mtime_ns for file in folder.glob("textures_*")}
    assert call("pretrain", "--budget", "72", "--path_result", folder, *SMALL) == 0
    after = torch.load(folder / CHECKPOINT, weights_only=True)
    assert (before["step"], after["step"]) == (12, 18)
    # The first record is from before the learning rate fell in the first training.
    assert after["history"][0] == before["history"][0]
    assert {file: file.stat().st_mtime_ns for file in folder.glob("textures_*")} == drawn


def test_begins_with_the_weights_of_an_earlier_training(result, tmp_path):
    weights = result / "formulanet.safetensors"
    flags = ("--path_result", tmp_path, "--weights", weights, "--learning_rate", "1e-9", *SMALL)
    assert call("pretrain", "--budget", "4", *flags) == 0
    card = (tmp_path / "formulanet.md").read_text(encoding="utf-8")
    started = load_backbone("formulanet", (), str(weights)).weights_digest
    assert f"| recipe: start | {started} |" in card
    before, after = read_state(weights), read_state(tmp_path / weights.name)
    # Batch norm's statistics follow the pictures; what is learned hardly moves at such a rate.
    learned = [name for name in before if "running" not in name]
    assert learned
    for name in learned:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


def test_does_not_go_on_with_another_start(result, tmp_path, capsys):
    folder = shutil.copytree(result, tmp_path / "more")
    flags = ("--budget", "72", "--path_result", folder, "--weights", "default", *SMALL)
    assert call("pretrain", *flags) == main.USER_MISTAKE
    assert "found another recipe (start," in capsys.readouterr().err


def test_weights_of_another_network_are_refused(tmp_path, capsys):
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "other.pth")
    flags = ("--budget", "4", "--path_result", tmp_path / "new", *SMALL)
    assert call("pretrain", "--weights", tmp_path / "other.pth", *flags) == main.USER_MISTAKE
    assert "expected weights for this network" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_same_seed_gives_the_same_weights_whoever_makes_the_pictures(tmp_path):
    states = []
    for name, workers in (("alone", "0"), ("helped", "2")):
        flags = [*SMALL, "--budget", "8", "--path_result", tmp_path / name]
        assert call("pretrain", *flags, "--num_workers", workers) == 0
        states.append(read_state(tmp_path / name / "formulanet.safetensors"))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--budget soon", "expected --budget as a number of pictures"),
        ("--num_classes 1", "expected --num_classes of at least 2, found 1"),
        ("--batch_size 1", "expected --batch_size of at least 4, found 1"),
        ("--batch_size 6", "expected --batch_size as a multiple of 4, found 6"),
        ("--seed -1", "expected --seed of at least 0, found -1"),
        ("--num_workers -2", "expected --num_workers of at least -1, found -2"),
        ("--learning_rate 0", "expected --learning_rate between 0 and 1, found 0"),
        ("--categories bottle", "expected --categories out of weave"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(tmp_path, capsys, flags, message):
    folder = tmp_path / "result"
    assert call("pretrain", "--path_result", folder, *flags.split()) == main.USER_MISTAKE
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not folder.exists()


def test_another_recipe_in_the_same_folder_is_refused(result, capsys):
    flags = ["--budget", "48", "--path_result", result, *SMALL, "--seed", "5"]
    assert call("pretrain", *flags) == main.USER_MISTAKE
    assert "another recipe (seed)" in capsys.readouterr().err


def test_trains_in_half_precision_and_says_where_that_is_slow(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    flags = ("--budget", "4", "--path_result", tmp_path, "--precision", "bfloat16", *SMALL)

    assert call("pretrain", *flags) == 0

    assert "this processor has no bfloat16 of its own" in caplog.text


def test_measures_on_photographs_too(tmp_path):
    folder = tmp_path / "nut"
    folder.mkdir()
    for number in range(10):
        image, _ = render("hex_nut", None, seed=number, size=64)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    out = tmp_path / "out"
    flags = ("--budget", "4", "--path_result", out, "--photographs", folder, *SMALL)

    assert call("pretrain", *flags) == 0

    card = (out / "formulanet.md").read_text(encoding="utf-8")
    assert "6 to learn and 12 to judge" in card
    assert re.search(r"^\| .*/nut \| \d+\.\d\d / \d+\.\d\d \|", card, re.MULTILINE)
    assert str(tmp_path) not in card, "a machine's path"


def test_two_folders_that_the_card_could_not_tell_apart_are_told(tmp_path, capsys):
    folders = [tmp_path / place / "nut/train/good" for place in ("here", "there")]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(10):
            image, _ = render("hex_nut", None, seed=number, size=64)
            cv2.imwrite(str(folder / f"{number}.png"), image)
    flags = ("--path_result", tmp_path / "out", "--photographs", *folders, *SMALL)

    assert call("pretrain", *flags) == main.USER_MISTAKE

    assert "found nut/train/good twice" in capsys.readouterr().err
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_photographs_that_are_missing_are_told_before_the_training(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ("--path_result", out, "--photographs", tmp_path / "nowhere", *SMALL)
    assert call("pretrain", *flags) == main.USER_MISTAKE
    assert "--photographs" in capsys.readouterr().err
    assert not (out / "checkpoint.pt").exists()


def test_trials_are_drawn_from_seeds_of_their_own():
    (first,), (again,) = make_trials(["weave"]), make_trials(["weave"])
    (other,) = make_trials(["weave"], first_seed=5)
    assert (first.train == again.train).all()
    assert (first.train != other.train).any()
    assert first.masks.any(axis=(1, 2)).tolist() == [False, False, True, True, True]
    pictures = np.concatenate([first.train, first.test])
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path):
    """``kill -9`` leaves a whole checkpoint, from which the next call goes on."""
    command = [sys.executable, str(ROOT / "main.py"), "pretrain", "--path_result", str(tmp_path)]
    command += [*SMALL, "--budget", "100000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(2):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        file = tmp_path / CHECKPOINT
        before = file.stat().st_mtime_ns if file.exists() else 0
        while (file.stat().st_mtime_ns if file.exists() else 0) == before:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = torch.load(file, weights_only=True)
        assert state["pictures"] == 4 * state["step"] > 0
