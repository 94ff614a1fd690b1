"""From options to models on their device."""

from dataclasses import replace

import torch

from patchcore import PatchCore
from patchcore.preprocess import Preprocess
from patchcore.weights import default_layers, load_backbone
from utils.errors import UsageError
from utils.options import Options


def choose_device(name: str) -> torch.device:
    """Return the device of ``--device``.

    Raises:
        UsageError: it is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(
            "expected a CUDA device, torch finds none (--device cuda); --device auto takes the "
            "CPU then"
        )
    return torch.device("cuda")


def with_layers(options: Options) -> Options:
    """Return the options with the layers named that each backbone is read at by default."""
    layers = tuple(m.layers or default_layers(m.backbone) for m in options.members())
    return replace(options, layers=layers[:1] if len(set(layers)) == 1 else layers)


def make_models(options: Options, device: torch.device) -> dict[str, PatchCore]:
    """Load the backbones and lay out the method as the options say; by the tables' names."""
    # Sizes that cannot be are told before weights are fetched for them.
    Preprocess(options.size("size_resize"), options.size("size_crop"))
    models: dict[str, PatchCore] = {}
    for member in options.members():
        backbone = load_backbone(
            member.backbone,
            member.layers,
            member.weights,
            size=options.size("size_crop"),
            seed=options.seed[0],
        )
        count = sum(name.partition("#")[0] == member.backbone for name in models)
        models[f"{member.backbone}#{count + 1}" if count else member.backbone] = PatchCore(
            backbone,
            percentage_coreset=options.percentage_coreset,
            k=options.k,
            image_score=options.image_score,
            num_reweight=options.num_reweight,
            size_resize=options.size("size_resize"),
            size_crop=options.size("size_crop"),
            interpolation=options.interpolation,
            flip=options.flip,
            patch_size=options.patch_size,
            embed_dim=options.embed_dim,
            layer_weights=options.layer_weights or None,
            sigma=options.sigma,
            seed=options.seed[0],
            precision=options.precision,
            device=device,
        )
    return models


def summarise(model: PatchCore) -> str:
    """Return torchinfo's account of the cut backbone."""
    import torchinfo

    size = (1, 3, *model.backbone.size)
    dtypes = [next(model.backbone.parameters()).dtype]
    return str(
        torchinfo.summary(
            model.backbone, size, dtypes=dtypes, depth=3, device=model.device, verbose=0
        )
    )
