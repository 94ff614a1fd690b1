"""Networks of timm, which is imported only when one is requested.

``timm:NAME`` names a network of timm's registry, such as ``timm:resnet50``, or one with certain
weights, such as ``timm:vit_small_patch14_dinov2.lvd142m``. The prefix is reserved: a user's own
module cannot have it. Names of other sources, such as a repository on a model hub, are refused.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from patchcore.errors import PatchCoreError, WeightsUnavailableError, did_you_mean, first_line
from patchcore.layout import INTERPOLATIONS, TOKENS, LayerLayout
from patchcore.network_input import NetworkInput
from patchcore.patch_grid import nearest_sizes
from patchcore.settings import TIMM_PREFIX


def is_timm(backbone: str) -> bool:
    """Return whether a backbone's name is that of a network of timm."""
    return backbone.startswith(TIMM_PREFIX)


def make_network(backbone: str, size: tuple[int, int]) -> nn.Module:
    """Build an untrained network for images of a size.

    Args:
        backbone: ``timm:NAME``.
        size: (H, W) in pixels. Vision transformers have a position embedding for each patch.

    Raises:
        PatchCoreError: timm is not installed or has no such network, or the network does not take
            images of this size.
    """
    arguments, height, width = _arguments(backbone, size), *size
    try:
        network = _create(backbone, arguments)
    # Each network has its own errors for a size.
    except Exception as error:
        raise PatchCoreError(
            f"{backbone} cannot be built for images of {height}x{width} pixels (size_crop): "
            f"{first_line(error)}"
        ) from error
    # Some would leave out the last rows and columns of the image without an error.
    if arguments and (nearest := nearest_sizes(network, size)):
        raise PatchCoreError(
            f"{backbone} does not take images of {height}x{width} pixels (size_crop){nearest}"
        )
    return network


def trained_state(backbone: str) -> dict[str, torch.Tensor]:
    """Return timm's own weights, for images of the size they were trained with.

    They come from timm's cache or by a download.

    Raises:
        PatchCoreError: timm has no weights for this network.
        WeightsUnavailableError: the weights are not cached and cannot be downloaded.
    """
    if not _config(backbone).has_weights:
        raise PatchCoreError(
            f"expected weights of timm for {backbone}, found that it has none (weights): give "
            "--weights FILE or --weights random"
        )
    name = backbone.removeprefix(TIMM_PREFIX)
    try:
        return _timm().create_model(name, pretrained=True).state_dict()
    # Readers and downloads raise many kinds.
    except Exception as error:
        from huggingface_hub.constants import HF_HUB_CACHE

        file = _cached_file(backbone)
        if file is not None:
            raise PatchCoreError(
                f"expected timm's weights for {name}, found a damaged file: {file} "
                f"({type(error).__name__}). Delete it and start again"
            ) from error
        raise WeightsUnavailableError(
            f"expected timm's weights for {name}, found none that can be read in its cache, and "
            f'the download failed ({first_line(error)}). Run python -c "import timm; '
            f"timm.create_model('{name}', pretrained=True)\" on a machine with internet access "
            f"and copy its cache to {HF_HUB_CACHE} and {torch.hub.get_dir()}, or give --weights "
            "FILE (a state dict of your own) or --weights random (only to test the program)"
        ) from error


def _cached_file(backbone: str) -> Path | None:
    """Return the file in a cache that timm reads weights from; None if there is none."""
    from huggingface_hub import constants, try_to_load_from_cache

    config = _config(backbone)
    if config.hf_hub_id:
        repository = config.hf_hub_id.partition("@")[0]
        names = (config.hf_hub_filename or "model.safetensors", "pytorch_model.bin")
        found = [
            try_to_load_from_cache(repository, file, cache_dir=constants.HF_HUB_CACHE)
            for file in names
        ]
        # The snapshot links to it, and would link to it again.
        files = [Path(file).resolve() for file in found if isinstance(file, str)]
    else:
        files = [Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]]
    return next(filter(Path.is_file, files), None)


def adapted_state(
    backbone: str, size: tuple[int, int], state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Convert weights by timm's own rules for a network.

    These rename the weights of other publications of the network and resample position embeddings
    to another size.

    Args:
        backbone: ``timm:NAME``.
        size: (H, W) in pixels of the images.
        state: The weights.

    Returns:
        The weights of the network that `make_network` returns, by their names in it.

    Raises:
        PatchCoreError: the weights are not those of such a network.
    """
    arguments = _arguments(backbone, size)
    classifier = _config(backbone).classifier or ()
    names = (classifier,) if isinstance(classifier, str) else classifier
    own = _create(backbone, arguments).state_dict()
    # The classifier is cut off, and may be missing or one for other classes.
    head = {name: own[name] for name in own if name.rpartition(".")[0] in names}
    problem = None
    for candidate in (dict(state), {**state, **head}):
        overlay = {"state_dict": candidate, "label_offset": 0}
        try:
            return _create(backbone, arguments, overlay).state_dict()
        # timm's rules meet unexpected names and shapes.
        except Exception as error:
            problem = problem or error
    raise PatchCoreError(
        f"expected weights for {backbone}, which timm can convert, found others "
        f"({first_line(problem)}) (weights)"
    ) from problem


def network_input(network: nn.Module) -> NetworkInput:
    """Return how a network of timm expects its images."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(network)
    interpolation = config["interpolation"]
    mean, std = (tuple(float(value) for value in config[name]) for name in ("mean", "std"))
    # Very few networks name another one, such as a random choice at training.
    return NetworkInput(mean, std, interpolation if interpolation in INTERPOLATIONS else "bicubic")


@torch.no_grad()
def check_order(
    backbone: str, network: nn.Module, images: torch.Tensor, layers: Sequence[LayerLayout]
) -> None:
    """Check that tokens are in the order of the image's rows, by timm's own feature maps.

    Hiera has them in another order inside the network, and gives no sign of it. Since timm's maps
    may be those of other blocks, all modules next to a layer are compared.

    Args:
        backbone: ``timm:NAME``, for the error.
        network: The network in eval mode, not cut.
        images: (B, 3, H, W) float32.
        layers: The layers.

    Raises:
        PatchCoreError: a module gives the values of one of timm's maps in another order.
    """
    tokens = [layer for layer in layers if layer.axes == TOKENS]
    if not tokens:
        return
    outputs: dict[str, list[object]] = {layer.name: [] for layer in tokens}
    handles = [
        module.register_forward_hook(
            lambda m, i, output, name=layer.name: outputs[name].append(output)
        )
        for layer in tokens
        for module in network.get_submodule(layer.name.rpartition(".")[0]).children()
    ]
    try:
        features = network.forward_intermediates(images, intermediates_only=True)
    # Not every network has them, or takes this size there.
    except Exception:
        return
    finally:
        for handle in handles:
            handle.remove()
    for layer in tokens:
        shape = len(images), layer.prefix + math.prod(layer.grid), layer.channels
        found = [
            layer.to_map(output)
            for output in outputs[layer.name]
            if isinstance(output, torch.Tensor) and output.shape == shape
        ]
        if any(_is_permuted(one, own) for one in found for own in features):
            raise PatchCoreError(
                f"expected layer {layer.name!r} of {backbone} to give tokens in the order of the "
                "image's rows, found another order: choose another network (backbone)"
            )


def _is_permuted(layer_map: torch.Tensor, own: torch.Tensor) -> bool:
    """Return whether two maps (B, C, h, w) have the same values at other positions."""
    if layer_map.shape != own.shape:
        return False
    tolerance = 1e-4 * float(own.abs().max())

    def is_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
        return torch.allclose(one, other, rtol=0, atol=tolerance)

    in_order = (values.flatten(2).sort(2).values for values in (layer_map, own))
    return is_equal(*in_order) and not is_equal(layer_map, own)


def licence(backbone: str) -> str:
    """Return the licence that timm states for a network's weights; empty if it states none."""
    return _config(backbone).license or ""


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise PatchCoreError(
            f"expected the package timm for a backbone {TIMM_PREFIX}NAME, found none that can be "
            f"imported ({error}): pip install timm"
        ) from error


def _config(backbone: str):
    """Return timm's description of a network and its weights, a ``PretrainedCfg``."""
    timm, name = _timm(), backbone.removeprefix(TIMM_PREFIX)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise PatchCoreError(
            f"expected a network of timm (timm.list_models() lists all; a module:factory of your "
            f"own needs another module name than timm), found {name!r} (backbone)"
            f"{did_you_mean(architecture, timm.list_models())}"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise PatchCoreError(
            f"expected weights of {architecture} that timm has ({', '.join(tags) or 'none'}), "
            f"found {tag!r} (backbone){did_you_mean(tag, tags)}"
        )
    return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _arguments(backbone: str, size: tuple[int, int]) -> dict[str, object]:
    """Return the arguments by which timm builds a network for images of a size."""
    return {"img_size": size} if _config(backbone).fixed_input_size else {}


def _create(
    backbone: str,
    arguments: Mapping[str, object],
    overlay: Mapping[str, object] | None = None,
) -> nn.Module:
    """Build a network; load the weights of an overlay of its description."""
    name = backbone.removeprefix(TIMM_PREFIX)
    if overlay is None:
        return _timm().create_model(name, **arguments)
    return _timm().create_model(
        name, pretrained=True, pretrained_cfg_overlay=dict(overlay), **arguments
    )
