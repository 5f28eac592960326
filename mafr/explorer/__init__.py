"""The heatmap explorer: a widget for Jupyter, and a page for any browser; both show `mafr.page`."""

from mafr.explorer.widget import Explorer

__all__ = ["Explorer"]
