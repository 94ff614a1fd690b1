"""From options to models on their device."""

from dataclasses import replace

import torch

from patchcore import PatchCore
from patchcore.weights import default_layers, load_backbone
from utils.errors import UsageError
from utils.options.fit import FitOptions


def choose_device(name: str) -> torch.device:
    """Return the device of ``--device``.

    Args:
        name: Name of a torch device, or ``auto``: the GPU if there is one, else the CPU.

    Raises:
        UsageError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = "torch does not find it"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            count = torch.cuda.device_count() if device.index else 1
            is_available = torch.cuda.is_available() and (device.index or 0) < count
        else:
            is_available = torch.ones(1, device=device).item() == 1
    except (RuntimeError, AssertionError) as error:  # torch raises either, depending on the type
        is_available = False
        reason = str(error).strip().partition("\n")[0]
    if not is_available:
        raise UsageError(
            f"expected an available device, found {name} ({reason}; --device): --device auto "
            "selects the GPU if there is one, else the CPU"
        )
    return device


def with_layers(options: FitOptions) -> FitOptions:
    """Return the options with the default layers of each backbone filled in."""
    layers = tuple(m.layers or default_layers(m.backbone) for m in options.members())
    return replace(options, layers=layers[:1] if len(set(layers)) == 1 else layers)


def make_models(options: FitOptions, device: torch.device) -> dict[str, PatchCore]:
    """Load the backbones and build the models, by their names in the tables."""
    settings = options.settings()
    models: dict[str, PatchCore] = {}
    for member in options.members():
        backbone = load_backbone(
            member.backbone,
            member.layers,
            member.weights,
            size=settings.size_crop,
            seed=settings.seed,
        )
        count = sum(name.partition("#")[0] == member.backbone for name in models)
        name = f"{member.backbone}#{count + 1}" if count else member.backbone
        models[name] = PatchCore.of(backbone, settings, device=device)
    return models


def summarise(model: PatchCore) -> str:
    """Return torchinfo's summary of the cut backbone."""
    import torchinfo

    size = (1, 3, *model.backbone.size)
    dtypes = [next(model.backbone.parameters()).dtype]
    return str(
        torchinfo.summary(
            model.backbone, size, dtypes=dtypes, depth=3, device=model.device, verbose=0
        )
    )
