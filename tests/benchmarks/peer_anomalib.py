"""What `tests.benchmarks.peers` runs in an environment with anomalib; it imports nothing else.

    python tests/benchmarks/peer_anomalib.py JOB.json

The job names the method, its network and its images. Scores and maps are written to its ``output``,
an .npz file, with the seconds of fit and test where they are measured.
"""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn


def main(job: SimpleNamespace) -> None:
    """Run one method, and write what it found."""
    torch.manual_seed(0)
    found = patchcore(job) if job.method == "patchcore" else vision_transformer(job)
    np.savez(job.output, **found)


def patchcore(job: SimpleNamespace) -> dict[str, np.ndarray]:
    """Fit and test anomalib's PatchCore on a category, as its documentation shows."""
    from anomalib.data import MVTecAD
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    module, _, factory = job.backbone.partition(":")
    network = getattr(importlib.import_module(module), factory)().eval()
    state = torch.load(job.weights, weights_only=True)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    sizes = {"image_size": (job.size_resize,) * 2, "center_crop_size": (job.size_crop,) * 2}
    model = Patchcore(
        backbone=network,
        layers=job.layers,
        coreset_sampling_ratio=job.percentage,
        pre_processor=Patchcore.configure_pre_processor(**sizes),
        visualizer=False,
    )
    data = MVTecAD(
        root=job.data,
        category=job.category,
        train_batch_size=job.batch_size,
        eval_batch_size=job.batch_size,
        num_workers=torch.get_num_threads(),
    )
    engine = Engine(default_root_dir=job.folder, accelerator="cpu", devices=1, logger=False)
    start = time.perf_counter()
    engine.fit(model=model, datamodule=data)
    engine.test(model=model, datamodule=data)
    seconds = time.perf_counter() - start
    # The scores once more as the network gives them: the test above has normalised them.
    paths, scores, maps = [], [], []
    model.eval()
    with torch.inference_mode():
        for batch in data.test_dataloader():
            predicted = model.model(model.pre_processor.transform(batch.image))
            paths += [str(path) for path in batch.image_path]
            scores.append(predicted.pred_score.flatten())
            maps.append(predicted.anomaly_map[:, 0])
    return {
        "paths": np.array(paths),
        "scores": torch.cat(scores).numpy(),
        "maps": torch.cat(maps).numpy(),
        "seconds": np.array(seconds),
    }


def vision_transformer(job: SimpleNamespace) -> dict[str, np.ndarray]:
    """Fit AnomalyDINO or RAD to normalised crops, and predict others."""
    model = anomaly_dino(job) if job.method == "anomalydino" else rad(job)
    crops = np.load(job.crops)
    model.train()
    for batch in batches(crops["train"], job.batch_size):
        model(batch)
    if job.method == "anomalydino":
        model.fit()
    else:
        model.build_memory_bank()
    model.eval()
    with torch.inference_mode():
        found = [model(batch) for batch in batches(crops["test"], job.batch_size)]
    return {
        "scores": torch.cat([one.pred_score.flatten() for one in found]).numpy(),
        "maps": torch.cat([one.anomaly_map[:, 0] for one in found]).numpy(),
    }


def anomaly_dino(job: SimpleNamespace) -> nn.Module:
    """Return anomalib's AnomalyDINO with the weights of the job."""
    from anomalib.models.image.anomaly_dino import torch_model

    extractor = torch_model.TimmFeatureExtractor
    # It asks for the weights of the hub, whatever its arguments say.
    torch_model.TimmFeatureExtractor = lambda **options: extractor(
        **options | {"pre_trained": False}
    )
    model = torch_model.AnomalyDINOModel(encoder_name=job.backbone)
    load(model.feature_encoder.feature_extractor, job.weights)
    return model


def rad(job: SimpleNamespace) -> nn.Module:
    """Return anomalib's RAD with the weights of the job."""
    from anomalib.models.image.rad.torch_model import RadModel

    blocks = [int(name.rpartition(".")[2]) for name in job.layers]
    model = RadModel(backbone=job.backbone, pre_trained=False, layers=blocks)
    load(model.feature_extractor.feature_extractor, job.weights)
    return model


def load(network: nn.Module, weights: str) -> None:
    """Load a state dict into a network of timm."""
    network.load_state_dict(torch.load(weights, weights_only=True))


def batches(crops: np.ndarray, size: int) -> Iterator[torch.Tensor]:
    """Yield batches (B, 3, H, W) float32."""
    for start in range(0, len(crops), size):
        yield torch.from_numpy(crops[start : start + size])


if __name__ == "__main__":
    main(SimpleNamespace(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
