"""Solid models, their surfaces, defects and the renderer, shared by both generated data sets."""
