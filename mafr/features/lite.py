"""EfficientNet-Lite0 and Lite2, with the names and the arithmetic of timm's `tf_efficientnet_lite0` and `_lite2`.

Its own module because loading timm takes longer than everything else that the small backbones need. A test holds it to
timm's, to the byte. Source: github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-3  # of BatchNorm, TensorFlow's default
# Of each stage: number of blocks, side of the depthwise kernel, stride of the first block, channels.
STAGES = {
    0: ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320)),
    2: ((1, 3, 1, 16), (3, 3, 2, 24), (3, 5, 2, 48), (4, 3, 2, 88), (4, 5, 1, 120), (5, 5, 2, 208), (1, 3, 1, 352)),
}
_STEM, _EXPANSION, _HEAD, _CLASSES = 32, 6, 1280, 1000


class Lite(nn.Module):
    """The whole network, classifier included, with untrained weights; `default_cfg` as of timm's networks."""

    def __init__(self, number: int = 0) -> None:
        """number: 0 or 2, of `STAGES`."""
        super().__init__()
        self.default_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        self.conv_stem, self.bn1 = SameConv2d(3, _STEM, 3, 2), NormAct(_STEM)
        stages, width = [], _STEM
        for count, kernel, stride, channels in STAGES[number]:
            blocks = []
            for k in range(count):
                kind = InvertedResidual if stages else DepthwiseSeparable
                blocks.append(kind(width, channels, kernel, stride if k == 0 else 1))
                width = channels
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = SameConv2d(width, _HEAD, 1), NormAct(_HEAD)
        self.classifier = nn.Linear(_HEAD, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, 1000)."""
        x = self.blocks(self.bn1(self.conv_stem(x)))
        return self.classifier(self.bn2(self.conv_head(x)).mean(dim=(2, 3)))


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME": what is odd goes to the bottom and the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride), rounded up."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if stride > 1:
            high, wide = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
            x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return super().forward(x)


class NormAct(nn.BatchNorm2d):
    """BatchNorm and its activation `act`, ReLU6 or none."""

    def __init__(self, channels: int, active: bool = True) -> None:
        super().__init__(channels, eps=_EPS)
        self.act = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class DepthwiseSeparable(nn.Module):
    """Depthwise and pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.has_skip = stride == 1 and inputs == outputs
        self.conv_dw, self.bn1 = SameConv2d(inputs, inputs, kernel, stride, groups=inputs), NormAct(inputs)
        self.conv_pw, self.bn2 = SameConv2d(inputs, outputs, 1), NormAct(outputs, active=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return out + x if self.has_skip else out


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, pointwise projection."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.has_skip, wide = stride == 1 and inputs == outputs, _EXPANSION * inputs
        self.conv_pw, self.bn1 = SameConv2d(inputs, wide, 1), NormAct(wide)
        self.conv_dw, self.bn2 = SameConv2d(wide, wide, kernel, stride, groups=wide), NormAct(wide)
        self.conv_pwl, self.bn3 = SameConv2d(wide, outputs, 1), NormAct(outputs, active=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.has_skip else out
