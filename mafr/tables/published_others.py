"""Published numbers of other papers on MVTec 3D-AD, to set beside runs that need no pretrained weights.

BTF's study of single features (Horwitz & Hoshen, CVPR Workshops 2023): README of its public code
(github.com/eliahuhorwitz/3D-ADS), results on the preprocessed data set; AUPRO@30% with 99 thresholds. "RGB iNet" and
"Depth iNet" are features of an ImageNet network, of the image and of the depth; "RGB + FPFH" is BTF itself. Its I-AUROC
there is that of another run than the one in Table I: 0.878 and 0.865 on average, 0.770 and 0.748 on cable gland.

AST (Rudolph et al., WACV 2023, arXiv 2210.07829), Table 3, its variant with depth alone.
"""

from mafr.config import CATEGORIES

STUDY_METRICS = ("i_auroc", "p_auroc", "aupro_30")
STUDY_TITLES = {"fpfh": "FPFH", "raw_depth": "Raw", "hog": "HoG", "sift": "SIFT", "btf": "RGB + FPFH"}  # of our methods
# The ten categories in the order of `CATEGORIES`, then the printed mean.
_STUDY = {
    "i_auroc": {
        "RGB iNet": (0.875, 0.880, 0.777, 0.705, 0.938, 0.720, 0.718, 0.615, 0.859, 0.681, 0.777),
        "Depth iNet": (0.690, 0.597, 0.753, 0.862, 0.881, 0.590, 0.597, 0.598, 0.791, 0.577, 0.694),
        "Raw": (0.627, 0.507, 0.600, 0.654, 0.573, 0.524, 0.532, 0.612, 0.412, 0.678, 0.572),
        "HoG": (0.487, 0.587, 0.691, 0.545, 0.643, 0.596, 0.516, 0.584, 0.507, 0.430, 0.559),
        "SIFT": (0.722, 0.640, 0.892, 0.762, 0.829, 0.678, 0.623, 0.754, 0.767, 0.603, 0.727),
        "FPFH": (0.825, 0.534, 0.952, 0.783, 0.883, 0.581, 0.758, 0.889, 0.929, 0.656, 0.779),
        "RGB + FPFH": (0.923, 0.770, 0.967, 0.905, 0.928, 0.657, 0.913, 0.915, 0.921, 0.881, 0.878),
    },
    "p_auroc": {
        "RGB iNet": (0.983, 0.984, 0.980, 0.974, 0.973, 0.851, 0.976, 0.983, 0.987, 0.977, 0.967),
        "Depth iNet": (0.957, 0.901, 0.966, 0.970, 0.967, 0.771, 0.971, 0.949, 0.977, 0.891, 0.932),
        "Raw": (0.803, 0.750, 0.849, 0.801, 0.610, 0.696, 0.830, 0.772, 0.951, 0.670, 0.773),
        "HoG": (0.911, 0.933, 0.985, 0.823, 0.936, 0.862, 0.923, 0.987, 0.980, 0.955, 0.930),
        "SIFT": (0.986, 0.957, 0.996, 0.952, 0.967, 0.921, 0.986, 0.998, 0.994, 0.983, 0.974),
        "FPFH": (0.995, 0.965, 0.999, 0.947, 0.966, 0.928, 0.996, 0.999, 0.996, 0.991, 0.978),
        "RGB + FPFH": (0.996, 0.992, 0.997, 0.994, 0.981, 0.973, 0.996, 0.998, 0.994, 0.995, 0.992),
    },
    "aupro_30": {
        "RGB iNet": (0.902, 0.948, 0.929, 0.873, 0.891, 0.570, 0.903, 0.933, 0.909, 0.905, 0.876),
        "Depth iNet": (0.763, 0.676, 0.884, 0.883, 0.864, 0.322, 0.881, 0.840, 0.844, 0.634, 0.759),
        "Raw": (0.402, 0.314, 0.639, 0.498, 0.251, 0.259, 0.527, 0.531, 0.808, 0.215, 0.444),
        "HoG": (0.712, 0.761, 0.932, 0.487, 0.833, 0.520, 0.743, 0.949, 0.916, 0.858, 0.771),
        "SIFT": (0.944, 0.845, 0.975, 0.894, 0.909, 0.733, 0.946, 0.981, 0.953, 0.928, 0.911),
        "FPFH": (0.974, 0.878, 0.982, 0.908, 0.892, 0.730, 0.977, 0.982, 0.956, 0.962, 0.924),
        "RGB + FPFH": (0.976, 0.968, 0.979, 0.972, 0.932, 0.884, 0.975, 0.981, 0.950, 0.972, 0.959),
    },
}
# {row: {metric: {category: value, ..., "mean": printed mean}}}
FEATURE_STUDY = {
    row: {m: dict(zip((*CATEGORIES["mvtec3d"], "mean"), _STUDY[m][row], strict=True)) for m in STUDY_METRICS}
    for row in _STUDY["i_auroc"]
}
# I-AUROC of AST from depth alone: mean over runs and standard deviation; of the mean over all categories the former.
AST_DEPTH = {"cable_gland": (0.576, 0.069), "tire": (0.611, 0.034), "mean": (0.833, None)}
