"""Procedural product images with exact masks: a dataset that needs no download.

No category has the name of one of MVTec AD. Each category is a module in
`datasets.synthetic.categories`; add a new one there, and its name below.
"""

NAMES = ("weave", "wood_grain", "mosaic", "bottle_mouth", "hex_nut", "wood_screw")
"""Names of the categories: textures, then objects."""
