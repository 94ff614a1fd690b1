"""Pictures by formula to train a network on: textures in shapes, lit, damaged and photographed."""

from datasets.formulas.scenes import Scene, make_scene
from datasets.formulas.sheet import draw_sheet
from datasets.formulas.textures import Texture, TexturePool

__all__ = ["Scene", "Texture", "TexturePool", "draw_sheet", "make_scene"]
