"""Pictures of what is ours: which rows of an order are named."""

import pandas as pd

from mafr.experiments.order import most_moved
from mafr.figures import beyond


def test_the_rows_that_change_their_place_most_are_named():
    real, made = [0.9, 0.8, 0.7, 0.6, 0.5], [0.6, 0.9, 0.8, 0.65, 0.5]  # the first falls from place 1 to place 4
    columns = {f"{source}_{metric}": values for source, values in (("real", real), ("second", made), ("first", made))
               for metric in ("i_auroc", "aupro_30")}  # fmt: skip
    rows = pd.DataFrame({"Method": list("abcde"), **columns})
    moved = most_moved(rows, "i_auroc", 2)
    assert moved.iloc[0] == 3 and moved.index[0] == 0 and abs(moved.iloc[1]) == 1
    figure = beyond.plot_order(rows, "title", "GENERATED")
    numbers = [text.get_text() for axes in figure.axes[:2] for text in axes.texts]
    assert numbers == ["1", "2", "3", "4"] * 2
    assert any("1 a; 2 b" in text.get_text().replace("\n", " ") for text in figure.texts)
