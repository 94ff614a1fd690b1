"""What a few minutes of `main.py pretrain` are worth."""

import pytest
import torch

from patchcore.weights import load_backbone
from tests.support import one_thread
from utils.commands.pretrain import pretrain
from utils.commands.trial import make_trials, mean_score, measure_backbone
from utils.pretraining.loop import Recipe
from utils.pretraining.schedule import Budget
from utils.results import ResultFolder


@pytest.mark.slow
def test_a_few_minutes_improve_on_the_untrained_network(tmp_path):
    torch.manual_seed(0)
    names = ["bottle_mouth", "hex_nut", "mosaic"]
    with one_thread():
        pretrain(
            Budget.parse("4m"),
            Recipe(num_classes=144),
            ResultFolder(tmp_path),
            device=torch.device("cpu"),
            num_workers=1,
            categories=names,
        )
        trials = make_trials(names)
        layers, weights = (), str(tmp_path / "formulanet.safetensors")
        trained = mean_score(measure_backbone(load_backbone("formulanet", layers, weights), trials))
        random = mean_score(measure_backbone(load_backbone("formulanet", layers, "random"), trials))
    assert trained.image > random.image + 0.02
