"""A trained model from the flags that choose it."""

import logging

import torch

from patchcore import PatchCore
from utils.model_choice import ModelChoice
from utils.pipeline.trained_models import find_model

log = logging.getLogger(__name__)


def load_model(choice: ModelChoice, device: torch.device, batch_size: int = 8) -> PatchCore:
    """Find and load the model that is meant.

    Args:
        choice: The flags.
        device: Where it is to compute.
        batch_size: Images at a time.

    Raises:
        UsageError: none or several are meant.
        PatchCoreError: it does not fit.
    """
    path = find_model(
        choice.path_trained,
        choice.category or None,
        choice.backbone or None,
        choice.percentage_coreset or None,
    )
    own_network = choice.backbone if ":" in choice.backbone else None
    model = PatchCore.load(
        path,
        backbone=own_network,
        weights=choice.weights or None,
        device=device,
        batch_size=batch_size,
    )
    log.info("model: %s", path)
    return model
