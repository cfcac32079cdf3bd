"""SqueezeNet 1.1 (Iandola and others 2016), with every step a module of its own."""

from __future__ import annotations

import torch
from torch import nn


def squeezenet(classes: int = 1000, *, seed: int = 0) -> nn.Module:
    """SqueezeNet 1.1: pictures b × 3 × 227 × 227 in, logits b × classes out; 26 convolutions, 1.2 million weights.

    `features` is a convolution, then eight Fire modules with max-pooling between them; `classifier` is a convolution
    with one map for each class, whose mean is the logit. The random start is that of `seed` alone.

    >>> sum(p.numel() for p in squeezenet().parameters())
    1235496
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SqueezeNet(classes).eval()


class Fire(nn.Module):
    """Few maps (squeeze), then many again: half of them see single places (1×1), half the neighbours too (3×3)."""

    def __init__(self, given: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(given, squeezed, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        few = self.squeeze_activation(self.squeeze(maps))
        return torch.cat(
            [self.expand1x1_activation(self.expand1x1(few)), self.expand3x3_activation(self.expand3x3(few))], 1
        )


class SqueezeNet(nn.Module):
    """What `squeezenet` makes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self._start()

    def _start(self) -> None:
        for name, parameter in self.named_parameters():
            if name == "classifier.1.weight":
                nn.init.normal_(parameter, std=0.01)
            elif parameter.ndim > 1:
                nn.init.kaiming_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(pictures))
