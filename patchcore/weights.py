"""Builds a `Backbone` from the name of a network and the name or file of its weights."""

import importlib
import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn import init
from torch.overrides import TorchFunctionMode
from torchvision.models import VisionTransformer, WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from patchcore import timm_networks
from patchcore.backbone import Backbone, digest, trial_images
from patchcore.errors import PatchCoreError, WeightsUnavailableError, did_you_mean, first_line
from patchcore.fold import fold_batch_norms, fold_pairs
from patchcore.formulanet import FORMULANET, LAYERS, WEIGHTS_FILE, FormulaNet
from patchcore.layer_choice import choose_layers
from patchcore.layout import Layout
from patchcore.recognise import fitting_networks
from patchcore.settings import DEFAULT, RANDOM, Settings, is_own_network
from patchcore.torch_state import torch_defaults

RESNET_LAYERS = ("layer2", "layer3")
# Name of the position embeddings of torchvision's vision transformers.
POSITIONS = "encoder.pos_embedding"

# The functions by which modules of torch and torchvision initialise their weights.
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

# The names of torchvision's ResNets.
_RESNET = re.compile(r"(wide_resnet|resnet|resnext)\d+\w*")
# Licences that allow any use.
_FREE_LICENCES = frozenset({"apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "mit"})

log = logging.getLogger(__name__)


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """Restore the states of the random generators after a block."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


def default_layers(backbone: str) -> tuple[str, ...]:
    """Return the layers of a backbone that are read by default; none if the network decides.

    Those of the paper for torchvision's ResNets, and all three of formulanet.
    """
    if backbone == FORMULANET:
        return LAYERS
    return RESNET_LAYERS if _RESNET.fullmatch(backbone) else ()


@torch_defaults()
@_kept_random_state()
def load_backbone(
    backbone: str,
    layers: Sequence[str],
    weights: str = DEFAULT,
    *,
    size: tuple[int, int] = (224, 224),
    seed: int = 0,
    norm_tokens: bool = False,
    layout: Mapping | None = None,
) -> Backbone:
    """Build a network, cut it, load its weights, and fold its batch norms.

    Args:
        backbone: ``formulanet`` (part of this package), the name of a torchvision classification
            model, ``timm:NAME`` for a network of timm, or ``module:factory``: a callable without
            arguments, in an importable module, that returns a network.
        layers: Names of modules of the network; none for `default_layers`, or where these are none
            for those that `choose_layers` chooses.
        weights: ``default`` (those of formulanet are part of this package; torchvision and timm
            download their own unless they are cached; a factory's network keeps the weights it
            has), ``random``, or the path of a file with a state dict, ``.pth`` or ``.safetensors``.
        size: (H, W) in pixels of the images.
        seed: Seed of random weights.
        norm_tokens: Whether to apply the final norm of a vision transformer to its tokens.
        layout: `Backbone.layout` of a backbone that was loaded with the same arguments. The
            network is then not run, which is faster; the result is the same.

    Raises:
        PatchCoreError: a name, a file or its content, or the layout does not fit.
        WeightsUnavailableError: the default weights are not cached and cannot be downloaded.
    """
    if not isinstance(backbone, str):
        raise PatchCoreError(
            "expected a patchcore.backbone.Backbone or the name of a network, found "
            f"{type(backbone).__name__}: give a network of your own as Backbone(network, layers) "
            "(backbone)"
        )
    own_network = is_own_network(backbone)
    record = None if layout is None else Layout.from_record(layout)
    # Without a trial run, nothing reads weights before they are loaded.
    draws = weights == RANDOM or own_network or record is None
    # A network of the user's may also draw its first weights at random: always seeded.
    with _seeded(seed), nullcontext() if draws else _LeaveUnfilled():
        network = _make_network(backbone, size)
    layers = layers or default_layers(backbone) or choose_layers(network, size)
    cut = Backbone(network, layers, size, record, norm_tokens=norm_tokens)
    # A network of the user's may be one that the factory returns each time.
    cut.shares_weights = own_network
    originals: Mapping[str, torch.Tensor] = {}
    if weights == RANDOM:
        log.warning(
            "RANDOM WEIGHTS: the backbone %s is untrained. The results are meaningless; use this "
            "only to test the program.",
            backbone,
        )
        if own_network:
            _reset(cut, seed)
    elif weights != DEFAULT:
        originals = _load_file(cut, backbone, Path(weights))
    elif backbone == FORMULANET:
        cut.load(read_state(WEIGHTS_FILE))
    elif timm_networks.is_timm(backbone):
        originals = _load(cut, backbone, timm_networks.trained_state(backbone))
    elif not own_network:
        originals = _load(cut, backbone, _torchvision_state(backbone))
        _match_torchvision_input(cut.network)
    cut.name, cut.weights = backbone, weights
    cut.weights_digest = digest(cut.network, originals)
    cut.licence = find_licence(backbone, weights)
    if record is None and timm_networks.is_timm(backbone):
        cut.input = timm_networks.network_input(network)
        images = trial_images(network, size)
        timm_networks.check_order(backbone, network.eval(), images, cut.layouts)
    if record is None:
        fold_batch_norms(cut)
    else:
        fold_pairs(cut, record.folded)
    return cut


def load_backbone_for(
    settings: Settings,
    backbone: str,
    layers: Sequence[str],
    weights: str,
    layout: Mapping | None = None,
) -> Backbone:
    """Build the backbone of a model with these settings, as `load_backbone`."""
    return load_backbone(
        backbone,
        layers,
        weights,
        size=settings.size_network,
        seed=settings.seed,
        norm_tokens=settings.norm_tokens,
        layout=layout,
    )


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
        reason = error.strerror or first_line(error)
        raise PatchCoreError(f"cannot read {path} (weights): {reason}") from error
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


def _make_network(backbone: str, size: tuple[int, int]) -> nn.Module:
    """Build the network of this name, with random weights or those of its factory."""
    if backbone == FORMULANET:
        return FormulaNet()
    if timm_networks.is_timm(backbone):
        return timm_networks.make_network(backbone, size)
    return _import_network(backbone) if ":" in backbone else _torchvision_network(backbone, size)


def _load_file(cut: Backbone, backbone: str, path: Path) -> dict[str, torch.Tensor]:
    """Load the weights of a file, as `_load`."""
    state = read_state(path)
    try:
        return _load(cut, backbone, state)
    except PatchCoreError as error:
        with _kept_random_state(), _LeaveUnfilled():
            fitting = fitting_networks(state)
        hint = f"; they are weights of {' or '.join(fitting)} (backbone)" if fitting else ""
        raise PatchCoreError(
            f"expected weights of {backbone} in {path} (weights): {error}{hint}"
        ) from error


def _load(
    cut: Backbone, backbone: str, state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Load weights, and adapt them to the size of the images where the network depends on it.

    Returns:
        The tensors of ``state`` that had to be resampled, in float32.
    """
    adapted = state
    if timm_networks.is_timm(backbone):
        try:
            cut.load(state)
        except PatchCoreError:  # of another size, or with the names of another publication
            adapted = timm_networks.adapted_state(backbone, cut.size, state)
    elif isinstance(cut.network, VisionTransformer) and POSITIONS in state:
        image_size, patch_size = cut.network.image_size, cut.network.patch_size
        adapted = interpolate_embeddings(image_size, patch_size, OrderedDict(state))
    cut.load(adapted)
    own = cut.network.state_dict()
    resampled = [name for name in own if name in state and state[name].shape != own[name].shape]
    return {name: state[name].float() for name in resampled}


def find_licence(backbone: str, weights: str) -> str:
    """Return the licence of weights; log one that restricts their use.

    Args:
        backbone: Name as `load_backbone` takes it.
        weights: Weights as `load_backbone` takes them. A file for a network of timm is taken for
            the weights that timm names.

    Returns:
        The publisher's name of the licence, or its address; empty if none is stated.
    """
    licence = ""
    if backbone == FORMULANET and weights == DEFAULT:
        licence = "apache-2.0"
    elif timm_networks.is_timm(backbone) and weights != RANDOM:
        licence = timm_networks.licence(backbone)
    elif weights == DEFAULT and not is_own_network(backbone):
        licence = _torchvision_weights(backbone).meta.get("license", "")
    if licence and licence not in _FREE_LICENCES:
        log.warning(
            "the weights that are published for %s have the licence %s, which restricts their use",
            backbone,
            licence,
        )
    return licence


def _torchvision_network(name: str, size: tuple[int, int]) -> nn.Module:
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise PatchCoreError(
            f"expected {FORMULANET}, timm:NAME for a network of timm, module:factory for a network "
            f"of your own, or a network of torchvision ({', '.join(names)}), found {name!r} "
            f"(backbone){did_you_mean(name, [FORMULANET, *names])}"
        )
    if name.startswith("vit_") and size[0] == size[1]:
        # With a size that does not fit its patches there is none: `Backbone` says what would fit.
        with suppress(AssertionError):
            return torchvision.models.get_model(name, weights=None, image_size=size[0])
    return torchvision.models.get_model(name, weights=None)


def _torchvision_weights(name: str) -> WeightsEnum:
    """Return the description of the first ImageNet weights of a model.

    For wide_resnet50_2, these are the weights of the paper.
    """
    choices = torchvision.models.get_model_weights(name)
    return choices.__members__.get("IMAGENET1K_V1", choices.DEFAULT)


def _torchvision_state(name: str) -> Mapping[str, torch.Tensor]:
    """Return torchvision's weights for a model, from its cache or by a download."""
    chosen = _torchvision_weights(name)
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
            f"the download failed ({first_line(error)}). Put the file at {file}, or give "
            f"--weights FILE (a state dict of your own) or --weights {RANDOM} (only to "
            "test the program)"
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
    backbone.own_weights()
    with _seeded(seed):
        for module in backbone.network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the random generators within a block, and restore their states afterwards."""
    with _kept_random_state():
        torch.default_generator.manual_seed(seed)
        # Before CUDA is used, torch would only note this seed, in place of the caller's.
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
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
