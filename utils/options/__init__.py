"""Flags of the commands, without torch, so that mistakes are reported immediately."""
