"""Settings of the compared methods: the published values in the full profile, scaled ones in the small profiles.

Three rules for learning rates meet in the small profiles: CFM, M3DM and RGB-D keep their published rate; AST's is the
published one times the ratio of the steps; the six depth and voxel methods take MAFR's 1e-3.
"""

from mafr.settings.field import AT_LEAST_3, NONNEGATIVE, POSITIVE, section, setting


@section(POSITIVE, of=("cfm", "cfm_m"))
class CFMSettings:
    """CFM and CFM-M (mafr.baselines.cfm)."""

    cfm_epochs: int = setting(30, smoke=5, full=250)  # two and a half times as many as MAFR's
    cfm_batch: int = 4
    cfm_learning_rate: float = 1e-3
    cfm_layers: int = setting(3, AT_LEAST_3, absent_is=3)  # linear layers of a mapping; 7 on Eyecandies


@section(POSITIVE, of=("btf", "m3dm", "fpfh", "raw_depth", "hog", "sift"))
class BankSettings:
    """Memory banks of BTF, M3DM and single features (mafr.baselines.parts.memory_bank)."""

    bank_ratio: float = 0.1  # share of the training features that a bank keeps (published)
    bank_eps: float = 0.9  # of the Johnson-Lindenstrauss width of the projection that they are chosen in (published)
    # The precision of the distances by which they are chosen; published code: float16.
    bank_choice: str = setting("float32", choices=("float32", "float16"), absent_is="float32")


@section(POSITIVE, of=("btf",))
class BTFSettings:
    """BTF (mafr.baselines.btf)."""

    # Colour features: the stored tokens, or "wide_resnet50_2" (published).
    btf_backbone: str = setting("shared", choices=("shared", "wide_resnet50_2"), full="wide_resnet50_2")
    btf_step: int = setting(2, full=1)  # FPFH at every n-th pixel in both directions; published: 1


@section(POSITIVE, of=("raw_depth", "hog", "sift"))
class SingleFeatureSettings:
    """FPFH, raw depth, HoG and SIFT alone (mafr.baselines.single_features). All profiles take the published values."""

    fpfh_step: int = setting(1, of=("fpfh",), absent_is=1)  # FPFH at every n-th pixel in both directions
    # The sides of FPFH's normals: to the "camera", or as Open3D's solver leaves them (published code).
    fpfh_normals: str = setting("camera", of=("fpfh",), choices=("camera", "open3d"), absent_is="camera")
    # The pixels of a patch of raw depth: 64 consecutive ones of the image's rows (published code), or 8 x 8 "blocks".
    raw_patches: str = setting("rows", of=("raw_depth",), choices=("rows", "blocks"), absent_is="rows")
    # Depth: the third coordinate (published, for MVTec 3D-AD), or that along the viewing axis fitted to the clouds.
    depth_along: str = setting("z", choices=("z", "fitted"), absent_is="z")


@section(POSITIVE, of=("m3dm",))
class M3DMSettings:
    """M3DM (mafr.baselines.m3dm)."""

    m3dm_steps: int = setting(320, smoke=20, full=750)  # of the feature fusion's training; published: 750
    m3dm_batch: int = 16  # samples per step (published)
    m3dm_patches: int = setting(16, full=56 * 56)  # patches per sample and step, chosen by time; published: all 56 x 56
    m3dm_rate: float = 0.003  # highest learning rate (published)
    m3dm_temperature: float = 1.0  # of the contrastive loss (published code)
    # Which cells banks and maps hold: those with a 3D point, or "all" (published code).
    m3dm_cells: str = setting("valid", choices=("valid", "all"), full="all")
    m3dm_weight_rgb: float = setting(0.1, NONNEGATIVE)  # of scores and maps before they are joined (published code)
    m3dm_weight_xyz: float = setting(1.0, NONNEGATIVE)
    m3dm_weight_fused: float = setting(1.0, NONNEGATIVE)
    m3dm_most: int = setting(400, absent_is=400)  # training samples at most, the first ones (published code: one more)
    m3dm_nu: float = 0.5  # of both one-class SVMs (published code)
    m3dm_iterations: int = 1000  # their passes over the data at most (published code)
    m3dm_sigma: float = 4.0  # of the blur, pixels (published code)


@section(POSITIVE, of=("ast",))
class ASTSettings:
    """AST (mafr.baselines.ast)."""

    # Image features: the shared stored tokens, or "efficientnet_b5" (published).
    ast_backbone: str = setting("tokens", choices=("tokens", "efficientnet_b5"), full="efficientnet_b5")
    ast_mode: str = setting("combi", choices=("combi", "rgb", "depth"))  # the input: image and depth, or one of them
    ast_stride: int = 16  # pixels of the image per cell, where the features are tokens
    ast_image_side: int = 768  # pixels of the image that efficientnet_b5 sees (published)
    ast_depth_pixels: int = 8  # pixels of the depth map along a cell's edge (published)
    ast_positions: int = 32  # channels of the positional encoding (published)
    ast_coupling_blocks: int = 4  # of the teacher (published)
    ast_last_kernel: int = setting(3, full=5)  # of its last block; published: 5, the same part of the map
    ast_clamp: float = 1.9  # bound of its log-scales (published)
    ast_teacher_hidden: int = setting(16, full=64)  # width of its subnets; published: 64
    ast_student_blocks: int = 4  # residual blocks (published)
    ast_student_hidden: int = setting(64, full=1024)  # their width; published: 1,024
    ast_batch: int = setting(2, full=8)  # published: 8, the same share of the training samples
    ast_epochs: int = setting(8, smoke=2, full=72)  # of each of the two networks; published: 72
    # Published: 2e-4 for seven and a half times as many steps.
    ast_learning_rate: float = setting(1.5e-3, smoke=3e-3, full=2e-4)
    ast_weight_decay: float = setting(1e-5, NONNEGATIVE)  # (published)


@section(POSITIVE, of=("rgbd", "rgbcdn"))
class RGBDSettings:
    """RGB-D and RGB-cD-n (mafr.baselines.rgbd). The full profile's values are published."""

    rgbd_side: int = setting(64, full=256)  # pixels of the autoencoder's input
    rgbd_width: int = setting(8, full=32)  # channels of its first block
    rgbd_latent: int = setting(64, full=256)  # values of its bottleneck
    rgbd_batch: int = setting(8, full=64)
    rgbd_epochs: int = setting(12, smoke=6, full=10)  # of the training set repeated rgbd_repeat times
    rgbd_repeat: int = setting(1, full=10)
    rgbd_learning_rate: float = 1e-3


@section(POSITIVE, of=("depthgan", "depthae", "depthvm"))
class DepthSettings:
    """DepthGAN, DepthAE, DepthVM (mafr.baselines.mvtec_benchmark)."""

    depth_side: int = setting(64, full=256)  # pixels of the autoencoder's input, a power of two; published: 256
    depth_width: int = setting(16, full=64)  # channels of its largest maps
    depth_latent: int = setting(128, full=512)  # values of its code
    depth_gan_side: int = setting(32, full=256)  # the same of the GAN; published: 256
    depth_gan_width: int = setting(8, full=64)  # f-AnoGAN: 64
    depth_gan_latent: int = setting(64, full=512)
    depth_batch: int = setting(4, full=8)
    depth_epochs: int = setting(6, smoke=3, full=50)  # of all copies of the training samples: with 2, as many as MAFR's
    depth_copies: int = setting(2, full=20)  # turned copies of a training sample; published: 20
    depth_learning_rate: float = setting(1e-3, full=2e-4)  # of the autoencoder
    depth_gan_rate: float = setting(1e-3, full=1e-4)  # of generator and critic; f-AnoGAN: 1e-4
    depth_encoder_rate: float = setting(1e-3, full=5e-5)  # of f-AnoGAN's encoder; there 5e-5
    depth_floor: float = 0.04  # least standard deviation of the variation model, of values in [-1, 1]


@section(POSITIVE, of=("voxelgan", "voxelae", "voxelvm"))
class VoxelSettings:
    """VoxelGAN, VoxelAE, VoxelVM (mafr.baselines.mvtec_benchmark)."""

    voxel_side: int = setting(16, full=64)  # voxels along the autoencoder's grid, a power of two; published: 64
    voxel_width: int = setting(8, full=32)  # channels of its largest maps
    voxel_latent: int = setting(128, full=512)  # values of its code
    voxel_gan_side: int = setting(8, full=64)  # the same of the GAN; published: 64
    voxel_gan_width: int = setting(4, full=32)
    voxel_gan_latent: int = setting(64, full=512)
    voxel_batch: int = setting(4, full=8)
    voxel_epochs: int = setting(6, smoke=3, full=50)  # of all copies of the training samples: with 2, as many as MAFR's
    voxel_copies: int = setting(2, full=20)  # turned copies of a training sample; published: 20
    voxel_learning_rate: float = setting(1e-3, full=2e-4)  # of the autoencoder
    voxel_gan_rate: float = setting(1e-3, full=1e-4)  # of generator and critic; f-AnoGAN: 1e-4
    voxel_encoder_rate: float = setting(1e-3, full=5e-5)  # of f-AnoGAN's encoder; there 5e-5
    voxel_floor: float = 0.04  # least standard deviation of the variation model, of values in [-1, 1]
