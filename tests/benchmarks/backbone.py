"""Backbone: the whole network, against what is left of it, step by step."""

import copy

import torch
import torchvision

from patchcore.backbone import Backbone
from patchcore.fold import fold_batch_norms
from patchcore.precision import is_emulated
from tests.benchmarks.measure import Row, seconds, time_in_turns

LAYERS = ["layer2", "layer3"]


def measure(quick: bool) -> list[Row]:
    """Measure WideResNet50 at 224x224; each step includes those before it."""
    batch = 2 if quick else 8
    network = torchvision.models.get_model("wide_resnet50_2", weights=None).eval()
    images = torch.randn(batch, 3, 224, 224)
    last = images.contiguous(memory_format=torch.channels_last)

    cut = Backbone(copy.deepcopy(network), LAYERS)
    channels_last = copy.deepcopy(cut).to(memory_format=torch.channels_last)
    folded = copy.deepcopy(cut)
    fold_batch_norms(folded)
    folded.to(memory_format=torch.channels_last)
    steps = {
        "whole network": lambda: network(images),
        "cut after layer3": lambda: cut(images),
        "channels last": lambda: channels_last(last),
        "batch norms folded": lambda: folded(last),
    }
    has_half = not is_emulated("bfloat16", torch.device("cpu"))
    if has_half:
        half = copy.deepcopy(folded).bfloat16()
        steps["bfloat16"] = lambda: half(last.bfloat16())
    times = dict(zip(steps, time_in_turns(list(steps.values()), 3 if quick else 5), strict=True))
    per_image = {name: value / batch for name, value in times.items()}
    whole = per_image.pop("whole network")
    rows = [
        Row(
            f"WideResNet50, per image: {name}",
            f"whole network: {seconds(whole)}",
            f"{name}: {seconds(value)}",
            whole / value,
        )
        for name, value in per_image.items()
    ]
    if not has_half:
        print("  this processor has no bfloat16 of its own: not measured")
        return rows
    gain = per_image["batch norms folded"] / per_image["bfloat16"]
    before, after = (seconds(per_image[name]) for name in ("batch norms folded", "bfloat16"))
    rows.append(
        Row(
            "bfloat16 against float32",
            f"float32: {before}",
            f"bfloat16: {after}",
            gain,
            "" if quick else ">= 2",
        )
    )
    return rows
