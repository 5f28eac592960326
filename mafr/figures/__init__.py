"""Pictures: the figures of the reproduction, and what notebooks show. What notebooks call returns matplotlib figures.

`write` draws all figures into files; `fig1`, `fig2`, `overview`, `curves` and `costs` hold them, `samples` the pictures
of single samples, `style` what all share. `view` and `explorer` are the heatmap explorer.
"""

from importlib import import_module

_HOMES = {
    "architecture": "fig1",
    "figure2": "fig2",
    "draw_scores": "curves",
    "plot_history": "curves",
    "pro_curves": "curves",
    "roc_curves": "curves",
    "score_histograms": "curves",
    "training_curves": "curves",
    "cost_accuracy": "costs",
    "plot_contact_sheet": "samples",
    "plot_heatmap": "samples",
    "plot_maps": "samples",
    "plot_sample": "samples",
    "save_heatmap": "samples",
    "save_png": "style",
    "write_figures": "write",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    # Imported on first use: a picture of a sample needs neither seaborn nor stored runs.
    # No module here has the name of one of these functions: once imported, it would stand in its place.
    if name in _HOMES:
        return getattr(import_module(f"mafr.figures.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mafr.figures' has no attribute {name!r}")
