"""mafr: a reproducible companion to the MAFR paper on 2D-3D feature fusion for anomaly detection."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["Config", "Detector", "Prediction", "__version__"]

_HOMES = {"Config": "mafr.config", "Detector": "mafr.detector", "Prediction": "mafr.detector"}


def __getattr__(name: str):
    # Imported on first use: `mafr --help` need not load torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mafr' has no attribute {name!r}")
