"""Frozen features: the image's tokens, the cloud's tokens, and the compact store that keeps both."""
