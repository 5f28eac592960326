"""Settings of MAFR and of all methods, by section. The defaults are the demo's and the variant `paper`'s.

Lengths are in pixels of the `image_size` map unless said otherwise.
"""

import math

from mafr.settings.field import ALL, AT_LEAST_3, MAFR, NONNEGATIVE, ODD, POSITIVE, QUANTILE, SHARE, section, setting

PROFILES = ("smoke", "demo", "full", "parts")
VARIANTS = ("paper", "released")
CATEGORIES = {
    "mvtec3d": (
        "bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire",
    ),
    "eyecandies": (
        "CandyCane", "ChocolateCookie", "ChocolatePraline", "Confetto", "GummyBear", "HazelnutTruffle",
        "LicoriceSandwich", "Lollipop", "Marshmallow", "PeppermintCandy",
    ),
    "adam3d": (),  # as found: it is in no table
}  # fmt: skip
# Generated categories in MVTec 3D-AD's layout on which choices are made. No table shows them.
DEVELOPMENT = ("biscuit", "bolt", "bracket", "plug", "walnut")
LOSS_TERMS = ("sim", "smooth", "census")
FUSIONS = ("product", "sum", "max", "rgb", "xyz")  # the paper's
CALIBRATED = ("calibrated_sum", "calibrated_max")  # ours, of maps standardised by good validation parts


@section()
class RunSettings:
    """Profile, variant and seed."""

    profile: str = setting("demo", choices=PROFILES)
    variant: str = setting("paper", choices=VARIANTS, of=MAFR)
    seed: int = setting(115, NONNEGATIVE)  # the released code's training seed


@section(POSITIVE, decides="data")
class DataSettings:
    """Generated data, and the preparation of all data."""

    generated: bool = setting(True, full=False, parts=False, decides="result")
    # Of the parts' scans; the second one has the noise, gaps and table of real ones.
    generator: str = setting("second", choices=("first", "second"), absent_is="first")
    data_seed: int = setting(2024, NONNEGATIVE, absent_is=2024)  # of the generated parts
    # Longer side of a generated image; preprocessing pads to the next hundred. 0 for real data.
    raw_side: int = setting(300, NONNEGATIVE, smoke=100, full=0, parts=0)
    mvtec3d_categories: tuple[str, ...] = setting(CATEGORIES["mvtec3d"], smoke=("bagel", "tire"), decides="runs")
    eyecandies_categories: tuple[str, ...] = setting(
        CATEGORIES["eyecandies"], smoke=("CandyCane", "Lollipop"), decides="runs"
    )
    adam3d_categories: tuple[str, ...] = setting((), decides="runs", absent_is=())  # those that are there
    mvtec3d_train: int = setting(80, smoke=6)  # counts of generated samples per category
    eyecandies_train: int = setting(24, smoke=4)
    validation_count: int = setting(8, smoke=2)
    test_good: int = setting(20, smoke=3)
    test_defective: int = setting(20, smoke=5)
    # Preprocessing of real data: remove the table and what is not the part, or "none".
    plane: str = setting("remove", choices=("remove", "none"), decides="result")


@section(POSITIVE, decides="features")
class FeatureSettings:
    """Frozen features (Sec. III-A)."""

    # Side of the network's input and of the maps that the metrics see.
    image_size: int = setting(224, smoke=112)
    rgb_backbone: str = setting(
        "efficientnet_lite0", choices=("efficientnet_lite0", "efficientnet_lite2", "dino_vitb8"),
        full="dino_vitb8", parts="efficientnet_lite2",
    )  # fmt: skip
    # "pointmae_worn" is the small network pretrained with gaps and noise, "fpfh" histograms without any training.
    point_backbone: str = setting(
        "pointmae_small", choices=("pointmae_small", "pointmae_worn", "fpfh", "pointmae"),
        full="pointmae", parts="fpfh",
    )  # fmt: skip
    rgb_dim: int = setting(152, full=768, parts=168)
    xyz_dim: int = setting(192, full=1152, parts=66)
    grid: int = setting(28, smoke=14, full=224)  # side of the feature maps that the head sees; the paper: 224
    groups: int = setting(256, smoke=64, full=1024, parts=512)  # Point-MAE groups per cloud
    group_size: int = setting(32, smoke=16, full=128)  # neighbours per group
    # Side of the average pool over the scattered point features; released code: 3.
    xyz_pool: int = setting(1, POSITIVE, ODD, full=3)
    # Point-MAE's BatchNorm and drop path. "batch-statistics": statistics of the sample's own groups, no drop path, so
    # features can be stored; running ones are those of unit-sphere clouds, and real patches are some fifty times
    # smaller. "eval": running statistics; the small network rescales its patches. "train": as the released code, which
    # never switches to eval: batch statistics and random drop path.
    extractor_mode: str = setting("eval", choices=("eval", "batch-statistics", "train"), full="batch-statistics")
    # The input, in which the variants differ at full size; the small profiles keep one set of features.
    # Pixel of the cloud that a resized pixel takes: under its centre, or torch's "nearest", which rounds down.
    cloud_sampling: str = setting("centre", choices=("centre", "floor"), absent_is="centre")
    point_rule: str = setting("any", choices=("any", "all"), absent_is="any")  # non-zero coordinates of a valid point
    mask_padding: str = setting("zeros", choices=("zeros", "edge"), absent_is="zeros")  # of masks that are not square
    # Farthest-point sampling never picks points within sqrt(0.001) of the origin (the common CUDA kernel).
    skip_origin: bool = setting(False, absent_is=False)
    # What the networks see: the "whole" image, or a window around the "part" (ours; `mafr.data.window`). MAFR only.
    view: str = setting("whole", choices=("whole", "part"), parts="part", absent_is="whole")
    # Where a cell takes its point: at its "centre", or there or else from the "nearest" pixel of the cell (ours).
    cell_point: str = setting("centre", choices=("centre", "nearest"), parts="nearest", absent_is="centre")
    # Pixels without a 3D point in the image of the backbone; M3DM blackens MVTec 3D-AD's at full size.
    image_background: str = setting("kept", choices=("kept", "black"), absent_is="kept")
    # Only the first blocks of a backbone; 0: all. CFM-M: two thirds.
    rgb_blocks: int = setting(0, NONNEGATIVE, unnamed_at=0)
    point_blocks: int = setting(0, NONNEGATIVE, unnamed_at=0)
    random_weights: bool = False  # untrained backbones, for tests and timing; every output says so


@section(of=MAFR)
class HeadSettings:
    """MAFR's head (Sec. III-B, IV-A)."""

    fused_dim: int = setting(0, NONNEGATIVE)  # 0: the variant's rule, see `Config.width`
    dropout: float = setting(0.1, SHARE)
    decoder_layers: int = setting(3, POSITIVE, AT_LEAST_3, decides="head")
    decoder_order: str = setting("gelu-norm", choices=("gelu-norm", "norm-gelu"), decides="head")
    shared_norm: bool = setting(False, decides="head")
    # What attention sees: the map (paper), each cell by itself (released code); "none": left out, an ablation of ours.
    cbam_scope: str = setting("map", choices=("map", "pixel", "none"), decides="head")
    cbam_reduction: int = setting(16, POSITIVE)
    cbam_kernel: int = setting(7, POSITIVE, ODD)


@section(of=MAFR)
class LossSettings:
    """MAFR's loss (eqs. 3-6)."""

    loss_terms: tuple[str, ...] = LOSS_TERMS
    weight_sim: float = setting(1.0, NONNEGATIVE)
    weight_smooth: float = setting(1.0, NONNEGATIVE)
    weight_census: float = setting(1.0, NONNEGATIVE)
    znssd_over: str = setting("pixels", choices=("pixels", "channels"))
    smooth_channels: str = setting("all", choices=("all", "first_two"))
    census_kernel: int = setting(7, POSITIVE, ODD)
    valid_only: bool = True


@section(POSITIVE, of=MAFR)
class TrainingSettings:
    """Training (Sec. IV-A)."""

    # Columns of Table III beside the full set.
    shots: tuple[int, ...] = setting((5, 10, 50), POSITIVE, smoke=(2, 3, 4), decides="runs", of=ALL)
    # Demo: chosen by time alone, so that all of run_all.sh takes at most 45 minutes on 2 cores; the paper: 100.
    epochs: int = setting(12, smoke=2, full=100, parts=20)
    # The least number of steps; the paper: none. Of the demo's trainings only AST's on five samples is below it.
    min_steps: int = setting(36, NONNEGATIVE, smoke=8, full=0, parts=10_000, of=ALL)
    learning_rate: float = 1e-3
    # Of the learning rate: "constant" (released code), or down to zero along half a "cosine" (ours).
    schedule: str = setting("constant", choices=("constant", "cosine"), parts="cosine", absent_is="constant")
    # Epochs without a lower loss on the good validation samples after which a training stops; the weights are those of
    # the lowest loss. 0: all epochs, the last weights (the paper).
    patience: int = setting(0, NONNEGATIVE, absent_is=0)
    samples_a_step: int = setting(1, absent_is=1)  # gradients are averaged over them; the released code: 1


@section()
class ScoringSettings:
    """From residuals to maps and scores (eqs. 7-8)."""

    fusion: str = setting(
        "product", choices=FUSIONS + CALIBRATED, parts="calibrated_sum", of=MAFR, decides="report"
    )  # all are computed
    blur: str = setting("gaussian", choices=("gaussian", "box"))
    sigma: float = setting(math.sqrt(22.0), POSITIVE, parts=3.5)
    # Pixels that are scored: those with a 3D "point", or the part's outline "filled", as a defect may leave no point.
    scored: str = setting("point", choices=("point", "filled"), parts="filled", of=MAFR, absent_is="point")
    # Weight of the calibrated 3D map beside the 2D one.
    xyz_weight: float = setting(1.0, POSITIVE, parts=0.5, of=MAFR, absent_is=1.0)
    # Power of the residual expected of a good cell, see `mafr.expected`, that is divided away; 0: none (the paper).
    expected_share: float = setting(0.0, SHARE, parts=0.5, of=MAFR, absent_is=0.0)
    image_score: str = setting("max", choices=("max", "max-over-root-mean"), of=MAFR)
    map_scaling: str = setting("none", choices=("none", "per-metric"), of=MAFR)


@section()
class ComputingSettings:
    """Device, threads and precision."""

    # torch threads of a run; 0: torch's own choice. One, so that results repeat exactly.
    threads: int = setting(1, NONNEGATIVE, full=0, parts=0, decides="report")
    # Of matrix products. "auto": bfloat16 where that is faster, which is on GPUs from compute capability 8.0 on and on
    # processors with AMX; "bfloat16": wherever the hardware multiplies it natively; "tf32": a GPU's, in training and
    # scoring of MAFR, CFM and AST, with all else in float32.
    precision: str = setting(
        "float32", choices=("auto", "float32", "tf32", "bfloat16"), full="auto", decides="features"
    )
    device: str = setting("cpu", choices=("auto", "cpu", "cuda"), full="auto", decides="place")  # "auto": a GPU if any
    # The head's pointwise kernels by torch.compile, which needs a compiler and warms up.
    compiled: bool = setting(False, absent_is=False, decides="place")


@section(POSITIVE, decides="report")
class ReportingSettings:
    """The metrics and curves that are reported of a result."""

    # Resamples behind the interval of a paired difference.
    bootstrap: int = setting(1000, smoke=100, decides="tables")
    quantile: float = setting(0.95, QUANTILE)  # of the good validation scores: the threshold of `mafr predict`
