"""Solid models, their surfaces, defects and the camera: what both generated data sets are made with."""
