"""The figures of the reproduction, and the pictures in notebooks.

`write` draws all figures into files; `fig1`, `fig2`, `overview`, `curves` and `costs` hold them, `samples` the pictures
of single samples, `style` their common parts. `view` computes and draws a sample of the heatmap explorer.
"""

from importlib import import_module

_CONTENTS = {
    "fig1": ("architecture",),
    "fig2": ("figure2",),
    "curves": ("draw_scores", "plot_history", "pro_curves", "roc_curves", "score_histograms", "training_curves"),
    "costs": ("cost_accuracy",),
    "maps": ("plot_maps", "plot_result"),
    "samples": ("plot_contact_sheet", "plot_heatmap", "plot_sample"),
    "style": ("picture_format", "save_figure", "save_png"),
    "write": ("write_figures",),
}
_HOMES = {name: module for module, names in _CONTENTS.items() for name in names}
__all__ = list(_HOMES)


def __getattr__(name: str):
    # Imported on first use: a picture of a sample needs neither seaborn nor stored runs.
    # No module here may have the name of one of these functions: once imported, it would replace the function.
    if name in _HOMES:
        return getattr(import_module(f"mafr.figures.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mafr.figures' has no attribute {name!r}")
