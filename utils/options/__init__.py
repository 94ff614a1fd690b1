"""Flags of the commands. Nothing here imports torch, so that mistakes are reported at once."""
