"""The student of AST (Rudolph et al., WACV 2023, Sec. 3): a residual convolutional network."""

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and leaky ReLU, added to the input (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def student_network(inputs: int, outputs: int, hidden: int, blocks: int) -> nn.Sequential:
    """The student, (B, inputs, H, W) -> (B, outputs, H, W): residual blocks between two convolutions."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 3, padding=1),
        nn.LeakyReLU(),
        *(ResidualBlock(hidden) for _ in range(blocks)),
        nn.Conv2d(hidden, outputs, 3, padding=1),
    )


def distance(target: Tensor, output: Tensor, weight: Tensor) -> Tensor:
    """Weighted squared distance, mean over channels: (B, C, H, W) twice, weight (B, 1, H, W) -> (B, 1, H, W)."""
    return weight * (target - output).square().mean(dim=1, keepdim=True)
