"""Presets of settings, by the names of the publications that they follow; without torch."""

from collections.abc import Mapping
from types import MappingProxyType

from patchcore.settings import BRIGHTNESS, COSINE, PER_LAYER, PLAIN, ROTATIONS, SHORTER_EDGE

# Presets: settings that differ from the defaults, which are those of the paper's reference code.
# docs/method.md names the source of each, and what it leaves out.
PROTOCOLS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "paper": {},
        "whole_image": {"size_crop": None},
        "paper_320": {"size_resize": (366, 366), "size_crop": (320, 320)},
        "high_resolution": {
            "size_resize": (512, 512),
            "size_crop": (448, 448),
            "percentage_coreset": (0.03,),
            "context": 0.5,
        },
        "patchcore_ex": {"interpolation": "area", "k": 5, "image_score": "max_map"},
        "anomalib_like": {
            "size_resize": (256, 256),
            "size_crop": (256, 256),
            "embed_dim": 1536,
            "image_score": "reweighted",
            "num_reweight": 9,
        },
        "anomalydino": {
            "distance": COSINE,
            "neighbourhood": PLAIN,
            "percentage_coreset": (1.0,),
            "image_score": "top_share",
            "top_share": 0.01,
            "resize": SHORTER_EDGE,
            "size_resize": (448, 448),
            "size_crop": (448, 448),
            "interpolation": "bicubic",
            "norm_tokens": True,
            "augment": (ROTATIONS,),
        },
        "rad": {
            "distance": COSINE,
            "neighbourhood": PLAIN,
            "banks": PER_LAYER,
            "percentage_coreset": (1.0,),
            "image_score": "top_share_map",
            "top_share": 0.01,
            "size_resize": (512, 512),
            "size_crop": (448, 448),
            "interpolation": "bilinear",
            "norm_tokens": True,
            "retrieve_images": 150,
            "search_radius": 1,
            # 1 pixel of a map of 256x256.
            "sigma": 1.75,
        },
        "superadd": {
            "neighbourhood": PLAIN,
            "banks": PER_LAYER,
            "image_score": "max_map",
            "resize": SHORTER_EDGE,
            "size_resize": (1280, 1280),
            "size_crop": (1280, 1536),
            "interpolation": "bicubic",
            "tile": 640,
            "overlap": 256,
            "augment": (BRIGHTNESS,),
            "sigma": 0.0,
        },
    }
)

# The backbone and the layers that a protocol was published with.
PROTOCOL_BACKBONES: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "anomalydino": ("timm:vit_small_patch14_dinov2.lvd142m", ("blocks.11",)),
        "rad": (
            "timm:vit_base_patch16_dinov3.lvd1689m",
            ("blocks.3", "blocks.6", "blocks.9", "blocks.11"),
        ),
        "superadd": (
            "timm:vit_huge_plus_patch16_dinov3.lvd1689m",
            ("blocks.7", "blocks.15", "blocks.23", "blocks.31"),
        ),
    }
)
