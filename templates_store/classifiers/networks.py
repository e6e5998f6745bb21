"""The networks that modeguard can build itself: normalised pixels in, logits out.

The keys of their weights are part of the bundle format: renaming an attribute breaks every stored classifier.
"""

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["CifarResNet", "CifarVgg", "DigitsCnn"]

VGG16_WIDTHS: tuple[tuple[int, ...], ...] = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)


class DigitsCnn(nn.Module):
    """Three convolutions and two linear layers, for images of about 8×8 pixels.

    Args:
        input_shape: (c, h, w), h and w at least 2.
        n_classes: number of logits.
    """

    def __init__(self, input_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * (height // 2) * (width // 2), 128), nn.ReLU(), nn.Linear(128, n_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes) of normalised images (n, c, h, w)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; a 1×1 convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(images)))
        out: Tensor = self.relu(self.bn2(self.conv2(hidden)) + self.downsample(images))
        return out


class CifarResNet(nn.Module):
    """The residual network for 32×32 images of He et al. 2016, §4.2, with 1×1 convolutions in the shortcuts.

    Args:
        channels: channels of the input.
        n_classes: number of logits.
        blocks_per_stage: 3 makes ResNet-20, n makes ResNet-(6n+2).
    """

    def __init__(self, channels: int, n_classes: int, *, blocks_per_stage: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, 1, blocks_per_stage)
        self.layer2 = _stage(16, 32, 2, blocks_per_stage)
        self.layer3 = _stage(32, 64, 2, blocks_per_stage)
        self.fc = nn.Linear(64, n_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes) of normalised images (n, c, h, w)."""
        hidden = self.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.fc(hidden.mean(dim=(2, 3)))
        return logits


def _stage(in_channels: int, channels: int, stride: int, n_blocks: int) -> nn.Sequential:
    blocks = [_BasicBlock(in_channels, channels, stride)]
    blocks += [_BasicBlock(channels, channels, 1) for _ in range(n_blocks - 1)]
    return nn.Sequential(*blocks)


class CifarVgg(nn.Module):
    """VGG-16 for 32×32 images: (convolution, batch norm, ReLU) triples and max-pools in one sequence.

    The ReLUs are `features` 2, 5, 9, 12, 16, 19, 22, 26, 29, 32, 36, 39 and 42. Fewer than 100
    classes take one linear layer, 100 and more 512→4096→4096→n with ReLU and dropout.

    Args:
        channels: channels of the input; its height and width must be 32.
        n_classes: number of logits.
        widths: output channels of the convolutions, a tuple for each stage that ends in a max-pool.
    """

    def __init__(self, channels: int, n_classes: int, *, widths: Sequence[Sequence[int]] = VGG16_WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in widths:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier: nn.Module = nn.Linear(channels, n_classes)
        if n_classes >= 100:
            self.classifier = nn.Sequential(
                nn.Linear(channels, 4096),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(4096, n_classes),
            )
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes) of normalised images (n, c, 32, 32)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def _initialise(network: nn.Module) -> None:
    """He et al. 2015, eq. 10, for the convolutions: deep rectifier networks start with signals of one scale."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
