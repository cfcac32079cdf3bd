"""A classifier of `transformers`, of whose answer only the logits are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Logits(nn.Module):
    """`model` as it is; pictures b × c × h × w in, logits b × classes out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pictures, return_dict=True).logits
