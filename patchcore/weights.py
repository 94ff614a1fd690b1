"""Builds a `Backbone` from the name of a network and the name or file of its weights."""

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from patchcore.backbone import Backbone, digest
from patchcore.errors import PatchCoreError
from patchcore.fold import fold_batch_norms, fold_pairs
from patchcore.formulanet import FORMULANET, LAYERS, WEIGHTS_FILE, FormulaNet
from patchcore.layout import Layout
from patchcore.settings import DEFAULT, RANDOM

RESNET_LAYERS = ("layer2", "layer3")

# What the initialisations of torch's and torchvision's modules come down to.
_RANDOM_FILLS = frozenset(
    {
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
        init.kaiming_normal_,
        init.kaiming_uniform_,
        init.normal_,
        init.uniform_,
    }
)

log = logging.getLogger(__name__)


class WeightsUnavailableError(PatchCoreError):
    """Torchvision's weights are not in its cache and cannot be downloaded."""


def default_layers(backbone: str) -> tuple[str, ...]:
    """Return the layers of a backbone that are read by default.

    Those of the paper, which ResNets have; for formulanet all three.
    """
    return LAYERS if backbone == FORMULANET else RESNET_LAYERS


def load_backbone(
    backbone: str,
    layers: Sequence[str],
    weights: str = DEFAULT,
    *,
    size: tuple[int, int] = (224, 224),
    seed: int = 0,
    layout: Mapping | None = None,
) -> Backbone:
    """Build a network, cut it, load its weights, and fold its batch norms.

    Args:
        backbone: ``formulanet`` (part of this package), the name of a torchvision classification
            model, or ``module:factory``: a callable without arguments, in an importable module,
            that returns a network.
        layers: Names of modules of the network; none for `default_layers`.
        weights: ``default`` (those of formulanet are part of this package; torchvision downloads
            its own unless they are cached; a factory's network keeps the weights it has),
            ``random``, or the path of a file with a state dict, ``.pth`` or ``.safetensors``.
        size: (H, W) in pixels of the images.
        seed: Seed of random weights.
        layout: `Backbone.layout` of a backbone that was loaded with the same arguments. The
            network is then not run, which is faster; the result is the same.

    Raises:
        PatchCoreError: a name, a file or its content, or the layout does not fit.
        WeightsUnavailableError: torchvision's weights are not cached and cannot be downloaded.
    """
    layers = layers or default_layers(backbone)
    own_network = ":" in backbone
    record = None if layout is None else Layout.from_record(layout)
    # Without a trial run, nothing reads weights before they are loaded.
    draws = weights == RANDOM or own_network or record is None
    # A network of the user's may also draw its first weights at random: always seeded.
    with _seeded(seed), nullcontext() if draws else _LeaveUnfilled():
        network = _make_network(backbone)
    cut = Backbone(network, layers, size, record)
    if weights == RANDOM:
        log.warning(
            "RANDOM WEIGHTS: the backbone %s is untrained. Results show that the program runs, and "
            "mean nothing else.",
            backbone,
        )
        if own_network:
            _reset(cut, seed)
    elif weights != DEFAULT:
        cut.load(read_state(Path(weights)))
    elif backbone == FORMULANET:
        cut.load(read_state(WEIGHTS_FILE))
    elif not own_network:
        cut.load(_torchvision_state(backbone))
        _match_torchvision_input(cut.network)
    cut.name, cut.weights = backbone, weights
    cut.weights_digest = digest(cut.network)
    if record is None:
        fold_batch_norms(cut)
    else:
        fold_pairs(cut, record.folded)
    return cut


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict. Nothing in the file is executed.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote: a state dict, also under
            ``state_dict`` or ``model``, with or without ``module.`` before each name.

    Returns:
        Tensors by name, without ``module.``, on the CPU, in the types of the file.

    Raises:
        PatchCoreError: the file is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise PatchCoreError(
            f"no weights file {path} (weights); give {DEFAULT!r}, {RANDOM!r} or the path of a "
            "state dict"
        )
    try:
        state = _read_tensors(path)
    except OSError as error:
        raise PatchCoreError(f"cannot read {path} (weights): {_first_line(error)}") from error
    # Each reader raises errors of its own for a file that is not what its name says. Their messages
    # are for programmers: torch's advises to read the file unsafely.
    except Exception as error:
        raise PatchCoreError(
            f"cannot read {path} (weights): expected a state dict, found a damaged file or one "
            "with more in it than tensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    is_state = isinstance(state, Mapping) and all(
        isinstance(v, torch.Tensor) for v in state.values()
    )
    if not is_state or not state:
        raise PatchCoreError(f"expected a state dict (tensors by name) in {path} (weights)")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _make_network(backbone: str) -> nn.Module:
    """Build the network of this name, with random weights or those of its factory."""
    if backbone == FORMULANET:
        return FormulaNet()
    return _import_network(backbone) if ":" in backbone else _torchvision_network(backbone)


def _torchvision_network(name: str) -> nn.Module:
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise PatchCoreError(
            f"no backbone {name!r} (backbone); give {FORMULANET}, module:factory for a network of "
            f"your own, or one of torchvision's: {', '.join(names)}"
        )
    return torchvision.models.get_model(name, weights=None)


def _torchvision_state(name: str) -> Mapping[str, torch.Tensor]:
    """Return torchvision's weights for a model, from its cache or by a download.

    These are the first ImageNet weights where there are several: for wide_resnet50_2, those of the
    paper.
    """
    choices = torchvision.models.get_model_weights(name)
    chosen = choices.__members__.get("IMAGENET1K_V1", choices.DEFAULT)
    file = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rpartition("/")[2]
    cached = file.is_file()
    try:
        return chosen.get_state_dict(progress=True, check_hash=True, weights_only=True)
    # Readers raise many kinds for a damaged file; torch raises for a download with a wrong digest.
    except Exception as error:
        if cached:
            raise PatchCoreError(
                f"expected torchvision's weights, found a damaged file: {file} "
                f"({type(error).__name__}). Delete it and start again"
            ) from error
        raise WeightsUnavailableError(
            f"expected torchvision's weights {file.name} for {name}, found none in its cache, and "
            f"the download failed ({_first_line(error)}). Put the file at {file}, or give "
            f"--weights FILE (a state dict of your own) or --weights {RANDOM} (to see that the "
            "program runs)"
        ) from error


def _match_torchvision_input(network: nn.Module) -> None:
    """Set what torchvision sets when it loads its own weights.

    The ImageNet weights of GoogLeNet and Inception expect another normalisation. With this setting
    the networks apply it themselves.
    """
    if hasattr(network, "transform_input"):
        network.transform_input = True


def _import_network(target: str) -> nn.Module:
    module_name, _, factory_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise PatchCoreError(
            f"cannot import {module_name!r} of --backbone {target}: {error}. Is its folder on "
            "PYTHONPATH?"
        ) from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise PatchCoreError(f"module {module_name} has no callable {factory_name!r} (backbone)")
    network = factory()
    if not isinstance(network, nn.Module):
        raise PatchCoreError(
            f"expected {target} to return a torch.nn.Module, found {type(network).__name__} "
            "(backbone)"
        )
    return network


def _reset(backbone: Backbone, seed: int) -> None:
    """Draw new random weights, also if a factory's network came with trained ones."""
    with _seeded(seed):
        for module in backbone.network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the random generators within a block, and restore their states afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _LeaveUnfilled(TorchFunctionMode):
    """Leaves out the random initialisation of weights, for networks that get loaded weights.

    It takes a second for a WideResNet50. Tensors that are not weights are filled: some
    initialisations draw into such a tensor until all values are within bounds.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if func in _RANDOM_FILLS and isinstance(tensor, nn.Parameter):
            return tensor
        return func(*args, **kwargs)


def _read_tensors(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
