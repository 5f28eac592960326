"""Settings of the compared methods: the published values in the full profile, scaled ones in the small profiles."""

from __future__ import annotations

from dataclasses import dataclass

# A setting belongs to the methods whose names stand here; all others belong to MAFR or to all.
PREFIXES: dict[str, tuple[str, ...]] = {
    "cfm_": ("cfm", "cfm_m"),
    "bank_": ("btf", "m3dm"),
    "btf_": ("btf",),
    "m3dm_": ("m3dm",),
    "ast_": ("ast",),
    "rgbd_": ("rgbd", "rgbcdn"),
    "depth_": ("depthgan", "depthae", "depthvm"),
    "voxel_": ("voxelgan", "voxelae", "voxelvm"),
}

# What differs from the defaults below, which are those of the demo.
BASELINE_PROFILES: dict[str, dict[str, object]] = {
    "smoke": {},
    "demo": {},
    "full": {},
}


@dataclass(frozen=True)
class BaselineSettings:
    """Settings of the compared methods; each name begins with its method's prefix."""

    # --- CFM and CFM-M (mafr.baselines.cfm)

    # --- memory banks of BTF and M3DM (mafr.baselines.memory_bank)

    # --- BTF (mafr.baselines.btf)

    # --- M3DM (mafr.baselines.m3dm)

    # --- AST (mafr.baselines.student_teacher)

    # --- RGB-D and RGB-cD-n (mafr.baselines.rgbd)

    # --- DepthGAN, DepthAE, DepthVM (mafr.baselines.depth_methods)

    # --- VoxelGAN, VoxelAE, VoxelVM (mafr.baselines.voxel_methods)


BASELINE_CHOICES: dict[str, tuple[str, ...]] = {}
BASELINE_POSITIVE: tuple[str, ...] = ()
