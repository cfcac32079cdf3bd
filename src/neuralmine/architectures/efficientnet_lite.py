"""EfficientNet-Lite0 (Tan and Le 2019, in the variant for small devices), with every step a module of its own."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

# Kernel, stride, how many times wider inside, maps out, how many blocks.
STAGES = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4)]
STAGES += [(3, 1, 6, 320, 1)]


def efficientnet_lite0(classes: int = 1000, *, seed: int = 0) -> nn.Module:
    """EfficientNet-Lite0: pictures b × 3 × 224 × 224 in, logits b × classes out; 16 blocks, 4.7 million weights.

    Each block widens (expand), looks around in each map alone (depthwise), narrows (project) and adds what it was
    given where the shapes allow (add). The random start is that of `seed` alone.

    >>> sum(p.numel() for p in efficientnet_lite0().parameters())
    4652008
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EfficientNetLite(classes).eval()


def _step(given: int, out: int, kernel: int, stride: int, groups: int = 1, active: bool = True) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    # TensorFlow's "same": with stride 2 and an even side there is one row less to fill at the top and left.
    if stride == 2:
        parts["pad"] = nn.ZeroPad2d(((kernel - 2) // 2, kernel // 2, (kernel - 2) // 2, kernel // 2))
    parts["conv"] = nn.Conv2d(given, out, kernel, stride, 0 if stride == 2 else kernel // 2, groups=groups, bias=False)
    parts["norm"] = nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)
    if active:
        parts["activation"] = nn.ReLU6()
    return nn.Sequential(parts)


class Add(nn.Module):
    """The sum of two tensors, as a module so that it can be looked at."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


class Block(nn.Module):
    """expand, depthwise, project, and a shortcut around them where the shapes allow."""

    def __init__(self, given: int, out: int, kernel: int, stride: int, wider: int) -> None:
        super().__init__()
        inside = given * wider
        self.expand = _step(given, inside, 1, 1) if wider > 1 else None
        self.depthwise = _step(inside, inside, kernel, stride, groups=inside)
        self.project = _step(inside, out, 1, 1, active=False)
        self.add = Add() if stride == 1 and given == out else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        wide = self.expand(maps) if self.expand is not None else maps
        narrow = self.project(self.depthwise(wide))
        return self.add(narrow, maps) if self.add is not None else narrow


class EfficientNetLite(nn.Module):
    """What `efficientnet_lite0` makes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks, given = [], 32
        for kernel, stride, wider, out, count in STAGES:
            for place in range(count):
                blocks.append(Block(given, out, kernel, stride if place == 0 else 1, wider))
                given = out
        self.stem = _step(3, 32, 3, 2)
        self.blocks = nn.Sequential(*blocks)
        self.head = _step(given, 1280, 1, 1)
        self.classifier = nn.Sequential(
            OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), dropout=nn.Dropout(0.2))
        )
        self.classifier.add_module("logits", nn.Linear(1280, classes))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.head(self.blocks(self.stem(pictures))))
