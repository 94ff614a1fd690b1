"""Procedural product images with exact masks: a dataset that needs no download.

None of the categories has the name of a category of MVTec AD. Each is the module of its name in
`datasets.synthetic.categories`; add a new one there and to the names below.
"""

NAMES = ("weave", "wood_grain", "mosaic", "bottle_mouth", "hex_nut", "wood_screw")
"""The categories: textures, then objects."""
