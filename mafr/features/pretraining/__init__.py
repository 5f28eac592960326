"""Pretraining of the small Point-MAE that the package carries."""
