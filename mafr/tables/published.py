"""The published numbers: Tables I-V as printed, and where they disagree with each other."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from mafr.config import CATEGORIES

OURS = "MAFR"
METRICS = ("i_auroc", "p_auroc", "aupro_30", "aupro_01")  # the columns of Tables IV and V
METRIC_TITLES = {
    "i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_30": "AUPRO@30%", "aupro_01": "AUPRO@1%",
}  # fmt: skip
FUSION_TITLES = {
    "rgb": "Ψ2D", "xyz": "Ψ3D", "sum": "Ψ2D + Ψ3D", "max": "max(Ψ2D, Ψ3D)", "product": "Ψ2D · Ψ3D",
}  # fmt: skip
MAP_TITLES = FUSION_TITLES | {"calibrated_sum": "calibrated sum", "calibrated_max": "calibrated maximum"}  # and ours
SHOTS = (5, 10, 50, None)  # None: all training samples

# Column heads as printed.
HEADINGS = {
    "bagel": "Bagel", "cable_gland": "Cable Gland", "carrot": "Carrot", "cookie": "Cookie", "dowel": "Dowel",
    "foam": "Foam", "peach": "Peach", "potato": "Potato", "rope": "Rope", "tire": "Tire",
    "CandyCane": "Can. C.", "ChocolateCookie": "Cho. C.", "ChocolatePraline": "Cho. P.", "Confetto": "Conf.",
    "GummyBear": "Gum. B.", "HazelnutTruffle": "Haz. T.", "LicoriceSandwich": "Lic. S.",
    "Lollipop": "Lollip.", "Marshmallow": "Marsh.", "PeppermintCandy": "Pep. C.",
    "mean": "Mean",
}  # fmt: skip

# Numbers in the paper's list of references.
REFERENCES = {
    "DepthGAN": 4, "DepthAE": 4, "DepthVM": 4, "VoxelGAN": 4, "VoxelAE": 4, "VoxelVM": 4,
    "BTF": 8, "AST": 7, "M3DM": 6, "CFM": 3, "CFM-M": 3, "RGB-D": 5, "RGB-cD-n": 5,
}  # fmt: skip

# I-AUROC on MVTec 3D-AD: the ten categories in the order of `CATEGORIES`, then the printed mean.
TABLE_1 = {
    "DepthGAN": (0.538, 0.372, 0.580, 0.603, 0.430, 0.534, 0.642, 0.601, 0.443, 0.577, 0.532),
    "DepthAE": (0.648, 0.502, 0.650, 0.488, 0.805, 0.522, 0.712, 0.529, 0.540, 0.552, 0.595),
    "DepthVM": (0.513, 0.551, 0.477, 0.581, 0.617, 0.716, 0.450, 0.421, 0.598, 0.623, 0.555),
    "VoxelGAN": (0.680, 0.324, 0.565, 0.399, 0.497, 0.482, 0.566, 0.579, 0.601, 0.482, 0.517),
    "VoxelAE": (0.510, 0.540, 0.384, 0.693, 0.446, 0.632, 0.550, 0.494, 0.721, 0.413, 0.538),
    "VoxelVM": (0.553, 0.772, 0.484, 0.701, 0.751, 0.578, 0.480, 0.466, 0.689, 0.611, 0.609),
    "BTF": (0.918, 0.748, 0.967, 0.883, 0.932, 0.582, 0.896, 0.912, 0.921, 0.886, 0.865),
    "AST": (0.983, 0.873, 0.976, 0.971, 0.932, 0.885, 0.974, 0.981, 1.000, 0.797, 0.937),
    "M3DM": (0.994, 0.909, 0.972, 0.976, 0.960, 0.942, 0.973, 0.899, 0.972, 0.850, 0.945),
    "CFM": (0.994, 0.888, 0.984, 0.993, 0.980, 0.888, 0.941, 0.943, 0.980, 0.953, 0.954),
    "MAFR": (0.997, 0.934, 0.987, 0.989, 0.983, 0.945, 0.978, 0.960, 0.992, 0.963, 0.972),
}

# I-AUROC on Eyecandies, likewise.
TABLE_2 = {
    "RGB-D": (0.529, 0.861, 0.739, 0.752, 0.594, 0.498, 0.679, 0.651, 0.838, 0.750, 0.689),
    "RGB-cD-n": (0.596, 0.843, 0.819, 0.846, 0.833, 0.550, 0.750, 0.846, 0.940, 0.848, 0.787),
    "AST": (0.574, 0.747, 0.747, 0.889, 0.596, 0.617, 0.816, 0.841, 0.987, 0.987, 0.780),
    "M3DM": (0.624, 0.958, 0.958, 1.000, 0.886, 0.758, 0.949, 0.836, 1.000, 1.000, 0.897),
    "CFM": (0.680, 0.931, 0.952, 0.880, 0.865, 0.782, 0.917, 0.840, 0.998, 0.962, 0.881),
    "CFM-M": (0.645, 0.936, 0.914, 0.901, 0.845, 0.747, 0.877, 0.904, 0.992, 0.885, 0.865),
    "MAFR": (0.683, 0.962, 0.960, 0.995, 0.891, 0.739, 0.953, 0.849, 0.998, 0.988, 0.901),
}

# Few-shot means on MVTec 3D-AD: each metric's values in the order of `SHOTS`.
TABLE_3 = {
    "BTF": {
        "i_auroc": (0.671, 0.695, 0.806, 0.865), "p_auroc": (0.980, 0.983, 0.989, 0.992),
        "aupro_30": (0.920, 0.928, 0.947, 0.959), "aupro_01": (0.288, 0.308, 0.356, 0.383),
    },
    "AST": {
        "i_auroc": (0.680, 0.689, 0.794, 0.937), "p_auroc": (0.950, 0.946, 0.974, 0.976),
        "aupro_30": (0.903, 0.835, 0.929, 0.944), "aupro_01": (0.158, 0.174, 0.335, 0.398),
    },
    "M3DM": {
        "i_auroc": (0.822, 0.845, 0.907, 0.945), "p_auroc": (0.984, 0.986, 0.989, 0.992),
        "aupro_30": (0.937, 0.943, 0.955, 0.964), "aupro_01": (0.330, 0.355, 0.387, 0.394),
    },
    "CFM": {
        "i_auroc": (0.811, 0.845, 0.906, 0.954), "p_auroc": (0.986, 0.987, 0.991, 0.993),
        "aupro_30": (0.949, 0.954, 0.965, 0.971), "aupro_01": (0.382, 0.398, 0.431, 0.455),
    },
    "MAFR": {
        "i_auroc": (0.824, 0.841, 0.920, 0.972), "p_auroc": (0.987, 0.983, 0.998, 0.993),
        "aupro_30": (0.945, 0.951, 0.968, 0.970), "aupro_01": (0.382, 0.383, 0.436, 0.462),
    },
}  # fmt: skip

# Loss terms -> `METRICS`, means on MVTec 3D-AD.
TABLE_4 = {
    ("sim",): (0.540, 0.850, 0.529, 0.006),
    ("census",): (0.957, 0.992, 0.968, 0.450),
    ("smooth",): (0.566, 0.891, 0.640, 0.033),
    ("sim", "census", "smooth"): (0.972, 0.992, 0.968, 0.462),
}

# Fusion operator (the names of `mafr.config.FUSIONS`) -> `METRICS`, means on MVTec 3D-AD.
TABLE_5 = {
    "rgb": (0.847, 0.984, 0.939, 0.366),
    "xyz": (0.802, 0.967, 0.899, 0.309),
    "sum": (0.920, 0.986, 0.954, 0.412),
    "max": (0.869, 0.980, 0.935, 0.363),
    "product": (0.972, 0.992, 0.968, 0.457),
}


def loss_title(terms: Iterable[str]) -> str:
    """A row of Table IV: "L_sim + L_census + L_smooth"."""
    return " + ".join(f"L_{term}" for term in terms)


def by_category(number: int) -> dict[str, dict[str, float]]:
    """Table 1 or 2 as {method: {category: I-AUROC, …, "mean": printed mean}}. Raises KeyError otherwise."""
    rows, dataset = {1: (TABLE_1, "mvtec3d"), 2: (TABLE_2, "eyecandies")}[number]
    names = (*CATEGORIES[dataset], "mean")
    return {method: dict(zip(names, values, strict=True)) for method, values in rows.items()}


def full_model() -> dict[str, dict[str, float]]:
    """The full model on MVTec 3D-AD as each table prints it: {metric: {table: value}}."""
    rows = {
        "III": [TABLE_3[OURS][metric][-1] for metric in METRICS],
        "IV": TABLE_4["sim", "census", "smooth"],
        "V": TABLE_5["product"],
    }
    printed = {metric: {table: row[k] for table, row in rows.items()} for k, metric in enumerate(METRICS)}
    return printed | {"i_auroc": {"I": TABLE_1[OURS][-1]} | printed["i_auroc"]}


def inconsistencies() -> list[dict[str, object]]:
    """Disagreements among the paper's own numbers, computed from the tables above.

    One record each: kind, tables, method, metric, values (printed or computed, by name) and text (one sentence).
    Kinds: "mean", a printed mean is not the rounded mean of its row; "full model", one model has several values;
    "shots", MAFR gets worse with more training samples.
    """
    names = ("kind", "tables", "method", "metric", "values", "text")
    return [dict(zip(names, found, strict=True)) for found in (*_means(), *_full_models(), *_shots())]


def _means() -> Iterator[tuple]:
    for table, rows in (("I", TABLE_1), ("II", TABLE_2)):
        for method, (*values, printed) in rows.items():
            computed = sum(values) / len(values)
            if abs(computed - printed) > 0.0005 + 1e-9:  # beyond rounding to three decimals
                text = f"Table {table}, {method}: the row's mean is {computed:.4f}, printed is {printed:.3f}."
                yield "mean", (table,), method, "i_auroc", {"computed": round(computed, 4), "printed": printed}, text


def _full_models() -> Iterator[tuple]:
    for metric, printed in full_model().items():
        if len(set(printed.values())) > 1:
            listed = ", ".join(f"{value:.3f} in Table {table}" for table, value in printed.items())
            text = f"The full model's {METRIC_TITLES[metric]} on MVTec 3D-AD is {listed}."
            yield "full model", tuple(printed), OURS, metric, printed, text


def _shots() -> Iterator[tuple]:
    names = ["all" if shot is None else f"{shot}-shot" for shot in SHOTS]
    for metric, values in TABLE_3[OURS].items():
        for fewer, more in pairwise(zip(names, values, strict=True)):
            if more[1] < fewer[1]:
                listed = " and ".join(f"{value:.3f} ({name})" for name, value in (fewer, more))
                text = f"Table III, {OURS}: {METRIC_TITLES[metric]} falls with more samples: {listed}."
                yield "shots", ("III",), OURS, metric, dict((fewer, more)), text
