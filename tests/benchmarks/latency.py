"""One image at a time: the whole of `PatchCore.predict`, against the backbone alone."""

import torch

from datasets.synthetic.rendering import render
from patchcore import PatchCore
from patchcore.weights import load_backbone
from tests.benchmarks.measure import Row, seconds, time_in_turns

# 1 % of the patches of 209 images, as many as bottle has; selected from fewer, to be ready sooner.
NUM_CORESET, NUM_TRAIN, NUM_PATCHES = 1_638, 12, 28 * 28


def measure(quick: bool) -> list[Row]:
    """Measure one picture of a made-up part, 224x224 after its crop, and WideResNet50."""
    *train, picture = (render("hex_nut", None, seed=n)[0] for n in range(NUM_TRAIN + 1))
    # A little more than the share, so that rounding down gives the number.
    share = (NUM_CORESET + 0.5) / (NUM_TRAIN * NUM_PATCHES)
    backbone = load_backbone("wide_resnet50_2", ["layer2", "layer3"], "random")
    model = PatchCore(backbone, percentage_coreset=share).fit(train)
    images = model.preprocess.normalise(torch.from_numpy(model.crop(picture).copy())[None])
    alone, whole = time_in_turns(
        [lambda: model.backbone(images), lambda: model.predict([picture])], 9 if quick else 31
    )
    return [
        Row(
            f"one image at a time, WideResNet50, {len(model.coreset.bank):,} coreset patches",
            f"backbone alone: {seconds(alone)}",
            f"predict: {seconds(whole)}",
            whole / alone,
            "<= 1.3",
        )
    ]
