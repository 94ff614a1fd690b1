"""Datasets on disk: which training and test images they have, and how their files are read."""
