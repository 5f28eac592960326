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
    "smoke": {
        "cfm_epochs": 5,
        "ast_epochs": 2,
        "m3dm_steps": 20,
    },
    "demo": {},
    "full": {
        "btf_backbone": "wide_resnet50_2",
        "btf_step": 1,
        "cfm_epochs": 250,
        "ast_backbone": "efficientnet_b5",
        "ast_last_kernel": 5,
        "ast_teacher_hidden": 64,
        "ast_student_hidden": 1024,
        "ast_batch": 8,
        "ast_epochs": 72,
        "ast_learning_rate": 2e-4,
        "m3dm_steps": 750,
        "m3dm_patches": 56 * 56,
        "m3dm_cells": "all",
        "rgbd_side": 256,
        "rgbd_width": 32,
        "rgbd_latent": 256,
        "rgbd_batch": 64,
        "rgbd_epochs": 10,
        "rgbd_repeat": 10,
        "depth_side": 256,
        "depth_width": 64,
        "depth_latent": 512,
        "depth_gan_side": 256,
        "depth_gan_width": 64,
        "depth_gan_latent": 512,
        "depth_batch": 8,
        "depth_epochs": 50,
        "depth_copies": 20,
        "depth_learning_rate": 2e-4,
        "depth_gan_rate": 1e-4,
        "depth_encoder_rate": 5e-5,
        "voxel_side": 64,
        "voxel_width": 32,
        "voxel_latent": 512,
        "voxel_gan_side": 64,
        "voxel_gan_width": 32,
        "voxel_gan_latent": 512,
        "voxel_batch": 8,
        "voxel_epochs": 50,
        "voxel_copies": 20,
        "voxel_learning_rate": 2e-4,
        "voxel_gan_rate": 1e-4,
        "voxel_encoder_rate": 5e-5,
    },
}


@dataclass(frozen=True)
class BaselineSettings:
    """Settings of the compared methods; each name begins with its method's prefix."""

    # --- CFM and CFM-M (mafr.baselines.cfm)
    cfm_epochs: int = 15  # published: 250, two and a half times as many as MAFR's
    cfm_batch: int = 4
    cfm_learning_rate: float = 1e-3

    # --- memory banks of BTF and M3DM (mafr.baselines.parts.memory_bank)
    bank_ratio: float = 0.1  # share of the training features that a bank keeps (published)
    bank_eps: float = 0.9  # of the Johnson-Lindenstrauss width of the projection that they are chosen in (published)

    # --- BTF (mafr.baselines.btf)
    btf_backbone: str = "shared"  # colour features: the stored tokens, or "wide_resnet50_2" (published)
    btf_step: int = 2  # FPFH at every so many pixels in both directions; published: 1

    # --- M3DM (mafr.baselines.m3dm)
    m3dm_steps: int = 160  # of the feature fusion's training; published: 750
    m3dm_batch: int = 16  # samples a step (published)
    m3dm_patches: int = 16  # patches of a sample a step; published: all of its 56 x 56
    m3dm_rate: float = 0.003  # highest learning rate (published)
    m3dm_temperature: float = 1.0  # of the contrastive loss (published code)
    m3dm_cells: str = "valid"  # which cells banks and maps hold: those with a 3D point, or "all" (published code)
    m3dm_weight_rgb: float = 0.1  # what scores and maps are multiplied by before they are joined (published code)
    m3dm_weight_xyz: float = 1.0
    m3dm_weight_fused: float = 1.0
    m3dm_nu: float = 0.5  # of both one-class SVMs (published code)
    m3dm_iterations: int = 1000  # their passes over the data at most (published code)
    m3dm_sigma: float = 4.0  # of the blur, pixels (published code)

    # --- AST (mafr.baselines.ast)
    ast_backbone: str = "tokens"  # image features: the shared stored tokens, or "efficientnet_b5" (published)
    ast_mode: str = "combi"  # what the networks see: image and depth ("combi"), "rgb" or "depth"
    ast_stride: int = 16  # pixels of the image a cell, where the features are tokens
    ast_image_side: int = 768  # pixels of the image that efficientnet_b5 sees (published)
    ast_depth_pixels: int = 8  # pixels of the depth map along a cell's edge (published)
    ast_positions: int = 32  # channels of the positional encoding (published)
    ast_coupling_blocks: int = 4  # of the teacher (published)
    ast_last_kernel: int = 3  # of its last block; published: 5, the same part of the map
    ast_clamp: float = 1.9  # bound of its log-scales (published)
    ast_teacher_hidden: int = 16  # width of its subnets; published: 64
    ast_student_blocks: int = 4  # residual blocks (published)
    ast_student_hidden: int = 64  # their width; published: 1,024
    ast_batch: int = 2  # published: 8, the same share of the training samples
    ast_epochs: int = 4  # of each of the two networks; published: 72
    ast_learning_rate: float = 3e-3  # published: 2e-4 for fifteen times as many steps
    ast_weight_decay: float = 1e-5  # (published)

    # --- RGB-D and RGB-cD-n (mafr.baselines.rgbd)
    rgbd_side: int = 64  # pixels of the autoencoder's input; published: 256
    rgbd_width: int = 8  # channels of its first block; published: 32
    rgbd_latent: int = 64  # values of its bottleneck; published: 256
    rgbd_batch: int = 8  # published: 64
    rgbd_epochs: int = 6  # of the training set repeated rgbd_repeat times; published: 10
    rgbd_repeat: int = 1  # published: 10
    rgbd_learning_rate: float = 1e-3  # (published)

    # --- DepthGAN, DepthAE, DepthVM (mafr.baselines.depth)
    depth_side: int = 64  # pixels of the autoencoder's input, a power of two; published: 256
    depth_width: int = 16  # channels of its largest maps; full profile: 64
    depth_latent: int = 128  # values of its code; full profile: 512
    depth_gan_side: int = 32  # the same of the GAN; published: 256
    depth_gan_width: int = 8  # f-AnoGAN: 64
    depth_gan_latent: int = 64  # full profile: 512
    depth_batch: int = 4  # full profile: 8
    depth_epochs: int = 3  # of all copies of the training samples, with 2 as many as of MAFR; full profile: 50
    depth_copies: int = 2  # turned copies of a training sample; published: 20
    depth_learning_rate: float = 1e-3  # of the autoencoder; full profile: 2e-4
    depth_gan_rate: float = 1e-3  # of generator and critic; f-AnoGAN: 1e-4
    depth_encoder_rate: float = 1e-3  # of f-AnoGAN's encoder; there 5e-5
    depth_floor: float = 0.04  # least standard deviation of the variation model, of values in [-1, 1]

    # --- VoxelGAN, VoxelAE, VoxelVM (mafr.baselines.voxel)
    voxel_side: int = 16  # voxels along the autoencoder's grid, a power of two; published: 64
    voxel_width: int = 8  # channels of its largest maps; full profile: 32
    voxel_latent: int = 128  # values of its code; full profile: 512
    voxel_gan_side: int = 8  # the same of the GAN; published: 64
    voxel_gan_width: int = 4  # full profile: 32
    voxel_gan_latent: int = 64  # full profile: 512
    voxel_batch: int = 4  # full profile: 8
    voxel_epochs: int = 3  # of all copies of the training samples, with 2 as many as of MAFR; full profile: 50
    voxel_copies: int = 2  # turned copies of a training sample; published: 20
    voxel_learning_rate: float = 1e-3  # of the autoencoder; full profile: 2e-4
    voxel_gan_rate: float = 1e-3  # of generator and critic; f-AnoGAN: 1e-4
    voxel_encoder_rate: float = 1e-3  # of f-AnoGAN's encoder; there 5e-5
    voxel_floor: float = 0.04  # least standard deviation of the variation model, of values in [-1, 1]


BASELINE_CHOICES: dict[str, tuple[str, ...]] = {
    "btf_backbone": ("shared", "wide_resnet50_2"),
    "ast_backbone": ("tokens", "efficientnet_b5"),
    "ast_mode": ("combi", "rgb", "depth"),
    "m3dm_cells": ("valid", "all"),
}
BASELINE_POSITIVE: tuple[str, ...] = (
    "bank_ratio", "bank_eps", "btf_step",
    "cfm_epochs", "cfm_batch", "cfm_learning_rate",
    "ast_stride", "ast_image_side", "ast_depth_pixels", "ast_positions", "ast_coupling_blocks", "ast_clamp",
    "ast_teacher_hidden", "ast_student_blocks", "ast_student_hidden", "ast_batch", "ast_epochs", "ast_learning_rate",
    "ast_last_kernel",
    "m3dm_steps", "m3dm_batch", "m3dm_patches", "m3dm_rate", "m3dm_temperature", "m3dm_nu", "m3dm_iterations",
    "m3dm_sigma",
    "rgbd_side", "rgbd_width", "rgbd_latent", "rgbd_batch", "rgbd_epochs", "rgbd_repeat", "rgbd_learning_rate",
    "depth_side", "depth_width", "depth_latent", "depth_gan_side", "depth_gan_width", "depth_gan_latent",
    "depth_batch", "depth_epochs", "depth_copies", "depth_learning_rate", "depth_gan_rate", "depth_encoder_rate",
    "depth_floor", "voxel_side", "voxel_width", "voxel_latent", "voxel_gan_side", "voxel_gan_width",
    "voxel_gan_latent", "voxel_batch", "voxel_epochs", "voxel_copies", "voxel_learning_rate", "voxel_gan_rate",
    "voxel_encoder_rate", "voxel_floor",
)
