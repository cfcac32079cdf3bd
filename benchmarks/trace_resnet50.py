"""Trace every layer of a ResNet-50: ours, hooks that keep references, hooks that copy, nnsight and TorchLens.

The floor is the plain forward. Target: time ≤ 1.10 of it, peak memory ≤ 1.15 of hooks by reference, and every value
right although 49 of the modules' outputs are overwritten in place. Most of what keeping costs is fresh pages: with
THP_MEM_ALLOC_ENABLE=1 (huge pages, read by torch at its first allocation) all of them are faster. `--quick` runs a small version of everything.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from trace_rounds import (
    by_copy,
    by_reference,
    compare,
    network_of,
    nnsight_of,
    options,
    torchlens_of,
    wrong_after_in_place,
)

import neuralmine as nm


class Bottleneck(nn.Module):
    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(given, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, width * 4, 1, bias=False), nn.BatchNorm2d(width * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or given != width * 4:
            self.downsample = nn.Sequential(
                nn.Conv2d(given, width * 4, 1, stride, bias=False), nn.BatchNorm2d(width * 4)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        given = 64
        for i, (width, blocks, stride) in enumerate([(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)], 1):
            parts = []
            for k in range(blocks):
                parts.append(Bottleneck(given, width, stride if k == 0 else 1))
                given = width * 4
            setattr(self, f"layer{i}", nn.Sequential(*parts))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(2048, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def main() -> None:
    given = options()
    batch, size = (1, 32) if given.quick else (8, 224)
    module = ResNet50().eval()
    x = torch.randn(batch, 3, size, size)
    network = network_of(module, x)

    def read() -> Any:
        seen = nm.trace(network, x)
        return seen, [activation.value for activation in seen.values()]

    compare(
        f"trace every layer of a ResNet-50, batch {batch}, {size} px",
        given,
        {
            "floor": lambda: module(x),
            "ours": lambda: nm.trace(network, x),
            "ours, every value read": read,
            "by reference": lambda: by_reference(module, x),
            "by copy": lambda: by_copy(module, x),
            **nnsight_of(module, x),
        },
        {"time": ("floor", 1.10), "memory": ("by reference", 1.15)},
        slow=torchlens_of(module, x),
        check=lambda: {"overwritten": wrong_after_in_place(network, x)},
    )


if __name__ == "__main__":
    main()
