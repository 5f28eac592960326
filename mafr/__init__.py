"""mafr: a reproducible companion to the MAFR paper on 2D-3D feature fusion for anomaly detection.

The paper is in the modules at the top: `model` (eqs. 1-2), `losses` (eqs. 3-6), `scoring` (eqs. 7-8), `metrics`,
`training` and `detector`. Everything else is in folders, each of which describes itself in its `__init__`.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["Config", "Detector", "Prediction", "__version__", "open_dataset"]

_HOMES = {
    "Config": "mafr.config",
    "Detector": "mafr.detector",
    "Prediction": "mafr.detector",
    "open_dataset": "mafr.data",
}


def __getattr__(name: str):
    # Imported on first use: `mafr --help` need not load torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mafr' has no attribute {name!r}")
