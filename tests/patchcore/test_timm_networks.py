"""Networks of timm, compared with what timm itself computes. No model hub is needed."""

import json
import logging
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from patchcore import PatchCore, PatchCoreError, timm_networks
from patchcore.backbone import Backbone
from patchcore.errors import WeightsUnavailableError
from patchcore.export import export
from patchcore.network_input import IMAGENET_MEAN, IMAGENET_STD, NetworkInput
from patchcore.timm_networks import (
    _is_permuted,
    adapted_state,
    check_order,
    licence,
    network_input,
    trained_state,
)
from patchcore.weights import load_backbone
from tests.patchcore.test_backbone import randomise_batch_norms
from tests.patchcore.test_feature_axes import Blocks
from tests.patchcore.test_model import make_images
from tests.support import ROOT, one_thread, truncate

VIT, LAYERS = "vit_tiny_patch16_224", ("blocks.8", "blocks.11")
SIZE = (64, 96)
SETTINGS = {"size_resize": (72, 104), "size_crop": SIZE, "embed_dim": 64}


@pytest.fixture(autouse=True)
def in_one_thread():
    with one_thread():
        yield


def make(name, **options):
    """Build a network of timm with random weights and random statistics of its batch norms."""
    torch.manual_seed(3)
    network = timm.create_model(name, **options).eval()
    randomise_batch_norms(network)
    return network


def save(network, path):
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return str(path)


def images_of(size, count=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def intermediates(network, images, indices, norm=False):
    """Return timm's own feature maps (B, C, h, w)."""
    with torch.inference_mode():
        return network.forward_intermediates(
            images, indices=indices, norm=norm, output_fmt="NCHW", intermediates_only=True
        )


def assert_close(maps, expected):
    assert len(maps) == len(expected)
    for layer_map, wanted in zip(maps, expected, strict=True):
        largest = float(wanted.abs().max())
        torch.testing.assert_close(layer_map, wanted, rtol=0, atol=1e-5 * largest)


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    """Return a weights file of a vision transformer for images of 224x224 pixels."""
    return save(make(VIT), tmp_path_factory.mktemp("weights") / "vit.safetensors")


def load_vit(weights, size=SIZE, **options):
    return load_backbone(f"timm:{VIT}", LAYERS, weights, size=size, **options)


# Network, size, and timm's numbers of the features that are read by default.
CASES = [
    ("vit_tiny_patch16_224", SIZE, (8, 11)),
    ("vit_small_patch14_dinov2", (112, 112), (8, 11)),  # class token
    ("vit_small_patch14_reg4_dinov2", (112, 140), (8, 11)),  # class token and registers
    ("swin_tiny_patch4_window7_224", (224, 224), (1, 2)),
    ("convnext_atto", SIZE, (1, 2)),
    ("efficientnet_b0", SIZE, (2, 3)),
    ("tf_mobilenetv3_small_minimal_100", SIZE, (2, 3)),
    ("resnet10t", SIZE, (2, 3)),
]


@pytest.mark.parametrize(("name", "size", "indices"), CASES)
def test_the_default_layers_give_timms_own_features(tmp_path, caplog, name, size, indices):
    is_vit = name.startswith("vit")
    network = make(name, **({"img_size": size} if is_vit else {}))
    path = save(network, tmp_path / "weights.safetensors")
    with caplog.at_level(logging.INFO):
        backbone = load_backbone(f"timm:{name}", (), path, size=size)
    images = images_of(size)
    with torch.inference_mode():
        maps = backbone(images)
    assert_close(list(maps.values()), intermediates(network, images, indices))
    if is_vit:
        assert backbone.layers == LAYERS
        message = "layers: blocks.8 blocks.11 (blocks at two thirds and last; --layers selects"
    else:
        message = f"layers: {' '.join(backbone.layers)} (stages of stride 8 and 16; --layers"
        stages = [info for info in network.feature_info if info["reduction"] in (8, 16)]
        assert backbone.channels == tuple(stage["num_chs"] for stage in stages)
    assert caplog.text.count(message) == 1
    # All batch norms are folded, with and without an activation of their own.
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert sum(p.numel() for p in backbone.parameters()) <= sum(
        p.numel() for p in network.parameters()
    )


class TestAttentionBiases:
    """Some networks of timm keep them from their first call on."""

    @pytest.fixture(
        scope="class", params=[("levit_128s", "stages.0"), ("efficientvit_m0", "stages.0")]
    )
    @classmethod
    def network(cls, request, tmp_path_factory):
        """Return a network, its layer, timm's own map of it, and a file of its weights."""
        name, layer = request.param
        network = make(name)
        biases = [p for key, p in network.named_parameters() if "attention_biases" in key]
        with torch.no_grad():
            for bias in biases:
                bias.normal_(0, 3)
        assert biases
        path = save(network, tmp_path_factory.mktemp("weights") / f"{name}.safetensors")
        return name, layer, network, path

    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)]
    )
    def test_are_those_of_the_weights(self, network, dtype, tolerance):
        name, layer, own, path = network
        expected = []
        handle = own.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output: expected.append(output)
        )
        images = images_of((224, 224))
        with torch.inference_mode():
            own(images)
            handle.remove()
            loaded = load_backbone(f"timm:{name}", (layer,), path)
            converted = loaded.converted(torch.device("cpu"), dtype)
            found = converted(images.to(dtype))[layer].float()
        wanted = loaded.layouts[0].to_map(expected[0])
        assert (found - wanted).abs().max() < tolerance * wanted.abs().max()

    def test_are_the_same_after_saving_and_loading(self, network, tmp_path):
        name, layer, _, path = network
        images = make_images(2)
        model = PatchCore(f"timm:{name}", (layer,), weights=path, embed_dim=16).fit(images)
        model.save(tmp_path / "model")
        found = PatchCore.load(tmp_path / "model").predict(images).anomaly_map
        np.testing.assert_array_equal(found, model.predict(images).anomaly_map)


def test_the_final_norm_is_that_of_timm(vit_file):
    network = make(VIT)
    with torch.no_grad():
        network.norm.weight.uniform_(0.5, 2)
        network.norm.bias.normal_()
    backbone = Backbone(network, LAYERS, (224, 224), norm_tokens=True)
    images = images_of((224, 224), 1)
    with torch.inference_mode():
        maps = list(backbone(images).values())
    assert_close(maps, intermediates(network, images, (8, 11), norm=True))
    plain = intermediates(network, images, (8, 11))
    assert not torch.allclose(maps[0], plain[0], rtol=0.1)


def test_tokens_that_are_in_another_order_are_refused():
    """Those of Hiera, which restores their order only in what it returns."""
    with pytest.raises(PatchCoreError, match=r"'blocks\.1' of timm:hiera_tiny.* another order"):
        load_backbone("timm:hiera_tiny_224", ("blocks.1",), "random", size=SIZE)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda own: own.flip(3), True),
        (lambda own: own.flip(3) + 1e-4, True),  # rounding
        (lambda own: own + 1e-4, False),
        (lambda own: 1.2 * own.flip(3), False),  # the map of another block
        (lambda own: own.mT, False),
    ],
)
def test_maps_with_the_same_values_at_other_positions_are_permuted(change, expected):
    own = torch.arange(1.0, 2 * 3 * 4 * 2 + 1).view(2, 3, 4, 2)
    assert _is_permuted(change(own), own) == expected


def test_layers_without_tokens_have_no_final_norm():
    with pytest.raises(PatchCoreError, match=r"found 'layer2', which gives a map \(norm_tokens"):
        load_backbone("timm:resnet10t", ("layer2",), "random", size=SIZE, norm_tokens=True)
    expected = r"one final norm for norm_tokens, found none \(norm_tokens\)"
    with pytest.raises(PatchCoreError, match=expected):
        Backbone(Blocks(), ("blocks.1",), (32, 48), norm_tokens=True)


def test_the_order_of_tokens_is_only_checked_where_timm_gives_maps():
    network = Blocks()
    layers = Backbone(network, ("blocks.1",), (32, 48)).layouts
    check_order("timm:blocks", network, images_of((32, 48)), layers)
    assert not any(block._forward_hooks for block in network.blocks)


class TestSize:
    """Position embeddings are resampled by timm's own rules; the digest stays that of the file."""

    @pytest.mark.parametrize("size", [pytest.param((448, 448), marks=pytest.mark.slow), (64, 96)])
    def test_another_size_gives_what_timm_gives_at_that_size(self, vit_file, size):
        backbone = load_vit(vit_file, size)
        network = timm.create_model(
            VIT,
            img_size=size,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": load_file(vit_file)},
        ).eval()
        images = images_of(size, 1)
        with torch.inference_mode():
            maps = backbone(images)
        assert backbone.grids == ((size[0] // 16, size[1] // 16),) * 2
        assert_close(list(maps.values()), intermediates(network, images, (8, 11)))

    def test_the_digest_does_not_depend_on_the_resampling(self, vit_file):
        """It may round differently on another processor, on which the model must load too."""
        resampled, as_stored = load_vit(vit_file), load_vit(vit_file, (224, 224))
        assert resampled.weights_digest == as_stored.weights_digest
        shapes = [tuple(b.network.pos_embed.shape) for b in (resampled, as_stored)]
        assert shapes == [(1, 25, 192), (1, 197, 192)]

    def test_the_resampling_leaves_the_random_state_alone(self, vit_file):
        """It loads the weights into a network that timm fills at random first."""
        before = torch.get_rng_state()
        load_vit(vit_file)
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_size_between_patches_names_the_two_nearest(self):
        with pytest.raises(
            PatchCoreError, match=r"of 100x64 pixels .*16x16 pixels; .* fit are 96 64 or 112 64 \("
        ):
            load_vit("random", (100, 64))

    def test_a_size_for_which_timm_builds_no_network(self):
        expected = "timm:xcit_nano_12_p16_224 cannot be built for images of 8x8 pixels (size_crop):"
        with pytest.raises(PatchCoreError, match=re.escape(expected)):
            load_backbone("timm:xcit_nano_12_p16_224", (), "random", size=(8, 8))


class TestWeights:
    """Weights come from a file, from timm's cache, or are random."""

    def test_timms_rules_apply_to_weights_of_another_publication(self, vit_file, tmp_path):
        """Here the embedding of patches is a matrix, as originally, and there is no classifier."""
        state = make(VIT).state_dict()
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
        del state["head.weight"], state["head.bias"]
        torch.save({"model": state}, tmp_path / "original.pth")
        found = load_vit(str(tmp_path / "original.pth")).network.state_dict()
        expected = load_vit(vit_file).network.state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_weights_of_another_network_are_refused(self, tmp_path):
        torch.save({"layer": torch.zeros(3)}, tmp_path / "other.pth")
        with pytest.raises(PatchCoreError, match=r"weights for timm:vit_tiny.* \(weights\)"):
            load_vit(str(tmp_path / "other.pth"))

    def test_random_weights_are_seeded(self):
        first, again, other = (load_vit("random", seed=seed).weights_digest for seed in (1, 1, 2))
        assert first == again != other

    @pytest.fixture
    def cache(self, monkeypatch, tmp_path):
        """Return an empty cache of the hub, which cannot be reached."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        return tmp_path

    @pytest.fixture
    def cached(self, cache, vit_file):
        """Return the weights of a network in the cache."""
        hub_id = timm.get_pretrained_cfg(VIT).hf_hub_id
        folder = cache / f"models--{hub_id.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text("0" * 40)
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (folder / "blobs").mkdir()
        shutil.copyfile(vit_file, folder / "blobs/abc")
        (snapshot / "model.safetensors").symlink_to(folder / "blobs/abc")
        return folder / "blobs/abc"

    def test_default_weights_come_from_timms_cache(self, cached, vit_file):
        assert load_vit("default").weights_digest == load_vit(vit_file).weights_digest

    def test_weights_without_a_hub_come_from_torchs_cache(self, monkeypatch, tmp_path):
        """As timm stores what it downloads from an address alone."""
        config = SimpleNamespace(hf_hub_id=None, url="https://example.org/a/network-1.pth")
        monkeypatch.setattr(timm_networks, "_config", lambda backbone: config)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        assert timm_networks._cached_file("timm:network") is None
        file = tmp_path / "checkpoints" / "network-1.pth"
        file.parent.mkdir()
        file.touch()
        assert timm_networks._cached_file("timm:network") == file

    def test_weights_in_the_cache_that_are_cut_short_are_named(self, cached):
        truncate(cached)
        with pytest.raises(PatchCoreError, match=f"found a damaged file: {cached} ") as caught:
            load_vit("default")
        assert not isinstance(caught.value, WeightsUnavailableError)
        assert "download" not in str(caught.value)

    def test_without_a_network_the_error_says_what_to_do(self, cache):
        with pytest.raises(WeightsUnavailableError) as caught:
            load_vit("default")
        message = str(caught.value)
        assert str(cache) in message
        assert f"timm.create_model('{VIT}', pretrained=True)" in message
        assert "--weights FILE" in message
        assert "--weights random" in message

    def test_a_network_without_trained_weights(self):
        name = next(n for n in timm.list_models() if not timm.get_pretrained_cfg(n).has_weights)
        with pytest.raises(PatchCoreError, match=f"timm for timm:{name}, found that it has none"):
            trained_state(f"timm:{name}")


class TestLicence:
    """A licence that restricts the use of weights is reported once."""

    def test_of_certain_weights(self):
        assert licence("timm:vit_small_patch16_dinov3.lvd1689m") == "dinov3-license"
        assert licence("timm:resnet50.a1_in1k") == "apache-2.0"

    @pytest.mark.parametrize(("tag", "count"), [("fcmae_ft_in1k", 1), ("d2_in1k", 0)])
    def test_is_reported_where_it_is_not_free(self, tmp_path, caplog, tag, count):
        name = {1: "convnextv2_atto", 0: "convnext_atto"}[count] + f".{tag}"
        path = save(make(name), tmp_path / "weights.safetensors")
        with caplog.at_level(logging.WARNING):
            backbone = load_backbone(f"timm:{name}", (), path, size=SIZE)
        assert backbone.licence == ("cc-by-nc-4.0" if count else "apache-2.0")
        assert caplog.text.count("have the licence cc-by-nc-4.0, which restricts") == count

    def test_random_weights_have_none(self):
        assert load_vit("random").licence == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:vit_tiny_patch16_225", r"found 'vit_.*'.* mean vit_tiny_patch16_224 or"),
        ("timm:make", "module:factory of your own needs another module name than timm"),
        ("timm:hf-hub:someone/network", "found 'hf-hub:someone/network'"),
        ("timm:resnet50.best", r"weights of resnet50 that timm has \(.*a1_in1k.*found 'best'"),
    ],
)
def test_refuses_names_that_timm_does_not_have(name, message):
    with pytest.raises(PatchCoreError, match=message):
        load_backbone(name, (), "random")


def test_says_how_to_install_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PatchCoreError, match=r"expected the package timm .*: pip install timm"):
        load_backbone("timm:resnet10t", (), "random")


def test_timm_is_imported_only_for_its_networks():
    code = (
        "import sys\n"
        "from patchcore import PatchCore\n"
        "PatchCore('formulanet', size_resize=64, size_crop=64)\n"
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("bilinear", "bilinear"), ("bicubic", "bicubic"), ("random", "bicubic")],
)
def test_the_interpolation_is_the_networks_if_it_is_known(stated, expected):
    network = nn.Module()
    network.pretrained_cfg = {"interpolation": stated, "mean": (0.1,) * 3, "std": (0.2,) * 3}
    assert network_input(network) == NetworkInput((0.1,) * 3, (0.2,) * 3, expected)


def test_weights_that_timm_cannot_convert_are_refused_with_its_reason():
    state = {"patch_embed.proj.weight": torch.zeros(2)}
    with pytest.raises(PatchCoreError, match=r"can convert, found others \(shape .* size 2\)"):
        adapted_state(f"timm:{VIT}", SIZE, state)


class TestModel:
    """A model on a network of timm."""

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, vit_file):
        with one_thread():
            return PatchCore(f"timm:{VIT}", weights=vit_file, norm_tokens=True, **SETTINGS).fit(
                make_images(4)
            )

    def test_images_are_prepared_as_the_network_was_trained(self, fitted):
        half = (0.5, 0.5, 0.5)
        assert fitted.backbone.input == NetworkInput(half, half, "bicubic")
        preprocess = fitted.preprocess
        found = preprocess.mean, preprocess.std, preprocess.interpolation
        assert found == (half, half, "bicubic")
        white = np.full((1, *SIZE, 3), 255, np.uint8)
        assert (preprocess.normalise(torch.from_numpy(white)) == 1).all()

    def test_a_given_interpolation_takes_precedence(self, fitted):
        model = PatchCore(fitted.backbone, norm_tokens=True, interpolation="area", **SETTINGS)
        assert model.preprocess.interpolation == "area"

    def test_the_backbone_and_the_settings_agree_on_the_final_norm(self, fitted):
        with pytest.raises(PatchCoreError, match=r"norm_tokens=False, .*=True \(norm_tokens\)"):
            PatchCore(fitted.backbone, **SETTINGS)

    def test_is_saved_and_loaded_by_its_name(self, fitted, tmp_path, monkeypatch):
        fitted.save(tmp_path / "model")
        record = json.loads((tmp_path / "model/model.json").read_text())
        stored = record["backbone"]
        assert (stored["name"], stored["licence"]) == (f"timm:{VIT}", fitted.backbone.licence)
        assert stored["layout"]["norm"] == "norm"
        assert stored["layout"]["input"]["interpolation"] == "bicubic"
        with monkeypatch.context() as patch:
            patch.setattr(timm.models.VisionTransformer, "forward", None)  # no trial run
            again = PatchCore.load(tmp_path / "model")
        assert again.backbone.layers == LAYERS
        assert again.preprocess == fitted.preprocess
        images = make_images(3, seed=2)
        found, expected = again.predict(images), fitted.predict(images)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)

    @pytest.mark.slow
    @pytest.mark.parametrize(("form", "suffix"), [("onnx", "onnx"), ("torch", "pt2")])
    def test_is_exported(self, fitted, tmp_path, form, suffix):
        assert export(fitted, tmp_path / f"model.{suffix}", form).difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("swin_tiny_patch4_window7_224", (224, 224)),
        ("efficientnet_b0", SIZE),
        ("convnext_atto", SIZE),
        ("vit_small_patch14_reg4_dinov2", (112, 112)),
        ("vit_small_patch16_dinov3", SIZE),
    ],
)
@pytest.mark.parametrize(("form", "suffix"), [("onnx", "onnx"), ("torch", "pt2")])
def test_networks_of_each_kind_are_exported(tmp_path, name, size, form, suffix):
    model = PatchCore(
        f"timm:{name}", weights="random", size_resize=size, size_crop=size, embed_dim=64
    ).fit(make_images(3))
    assert export(model, tmp_path / f"model.{suffix}", form).difference < 1e-4


def test_networks_of_torchvision_expect_imagenets_mean():
    expected = NetworkInput(IMAGENET_MEAN, IMAGENET_STD, "bilinear")
    assert load_backbone("formulanet", (), size=(64, 64)).input == expected
