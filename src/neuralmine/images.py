"""Pictures as numbers that can be climbed: how a picture is made from them, and how it is moved about on the way.

A gradient on pixels gives noise: each pixel goes its own way, and high frequencies win. So a picture is made from
other numbers, from which all pixels hang at once: a Fourier spectrum with the frequencies weighed as in photos (Olah
and others 2017), or its phases alone (MACO, Fel and others 2023), and in colours that photos do not correlate. It is
then padded, shifted, magnified and turned a little at every step, so that only what survives this can grow.

Pictures are n × colours × rows × columns in 0..1; one colour (grey) or three. Every random draw is from a generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .errors import UsageError
from .types import Network

if TYPE_CHECKING:
    from torch import Generator, Tensor

SPREAD = 0.01  # of the numbers at the start
# Square root of the covariance of red, green and blue in photos of ImageNet, as Lucid has it.
COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
# The same as MACO has it; there a row is multiplied from the left.
MACO_COLOURS = np.array([[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0.0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]])  # fmt: skip

PADDING, FIRST_SHIFT, SECOND_SHIFT = 12, 8, 4  # pixels; smaller in pictures of fewer than WHOLE rows
WHOLE = 64
SCALES = tuple(1 + (i - 5) / 50 for i in range(11))
DEGREES = (*range(-10, 11), *(0,) * 5)
CROPS, OFF_CENTRE = 6, 0.15
# MACO adds 0.05 to pictures that go from −2.5 to 2.5; here they go from 0 to 1.
NOISE = 0.05 / 5


# ── From numbers to a picture ─────────────────────────────────────────────────────────────────────────────────────────


def spectrum_start(count: int, size: tuple[int, int, int], generator: Generator) -> Tensor:
    """Random numbers for `fourier_image`: n × colours × rows × frequencies × 2 (real and imaginary).

    >>> import torch
    >>> spectrum_start(2, (3, 8, 9), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 6, 2])
    """
    import torch

    colours, rows, columns = size
    return SPREAD * torch.randn((count, colours, *frequencies(rows, columns).shape, 2), generator=generator)


def fourier_image(spectrum: Tensor, columns: int) -> Tensor:
    """A picture from its spectrum: high frequencies scaled down as 1 / frequency, colours correlated, squashed to 0..1.

    >>> import torch
    >>> float(fourier_image(torch.zeros(1, 3, 4, 3, 2), 4).mean())
    0.5
    """
    import torch

    rows = spectrum.shape[-3]
    waves = torch.view_as_complex(spectrum.contiguous()) * _scale(rows, columns).to(spectrum)
    return torch.sigmoid(coloured(torch.fft.irfft2(waves, s=(rows, columns), norm="ortho") / 4))


def pixels_start(count: int, size: tuple[int, int, int], generator: Generator) -> Tensor:
    """Random numbers for `pixel_image`: n × colours × rows × columns.

    >>> import torch
    >>> pixels_start(2, (1, 8, 9), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 8, 9])
    """
    import torch

    return SPREAD * torch.randn((count, *size), generator=generator)


def pixel_image(pixels: Tensor) -> Tensor:
    """A picture from a number for each pixel and colour, the plain way: colours correlated, squashed to 0..1.

    >>> import torch
    >>> float(pixel_image(torch.zeros(1, 1, 2, 2)).mean())
    0.5
    """
    import torch

    return torch.sigmoid(coloured(pixels))


def phase_start(count: int, size: tuple[int, int, int], generator: Generator) -> Tensor:
    """Random phases for `maco_image`: n × colours × rows × frequencies.

    >>> import torch
    >>> phase_start(1, (3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([1, 3, 8, 5])
    """
    import torch

    colours, rows, columns = size
    return torch.randn((count, colours, rows, columns // 2 + 1), generator=generator)


def maco_image(phase: Tensor, columns: int) -> Tensor:
    """A picture from its phases alone: the size of every frequency is fixed as in photos, so none can run away.

    The paper takes the mean spectrum of ImageNet; here it is 1 / frequency, which photos follow closely.

    >>> import torch
    >>> maco_image(torch.randn(1, 3, 8, 5), 8).shape
    torch.Size([1, 3, 8, 8])
    """
    import torch

    rows = phase.shape[-2]
    size = _scale(rows, columns)[:, : columns // 2 + 1].to(phase)
    waves = torch.polar(size.expand_as(phase), _standard(phase))
    maps = _standard(torch.fft.irfft2(waves, s=(rows, columns)))
    if maps.shape[1] == 3:
        maps = torch.einsum("nchw,cd->ndhw", maps, torch.as_tensor(MACO_COLOURS).to(maps))
    return torch.sigmoid(maps)


def coloured(maps: Tensor) -> Tensor:
    """Three uncorrelated maps as red, green and blue, which go together as in photos; a grey map as it is.

    >>> import torch
    >>> coloured(torch.ones(1, 3, 1, 1)).flatten()
    tensor([0.8009, 0.4762, 0.4546])
    """
    import torch

    if maps.shape[1] != 3:
        return maps
    matrix = COLOURS / np.linalg.norm(COLOURS, axis=0).max()
    return torch.einsum("nchw,dc->ndhw", maps, torch.as_tensor(matrix).to(maps))


def frequencies(rows: int, columns: int) -> np.ndarray:
    """The frequency of each entry of a spectrum, in cycles a pixel; odd widths have one column more than they need.

    >>> frequencies(2, 4).round(2).tolist()
    [[0.0, 0.25, 0.5], [0.5, 0.56, 0.71]]
    """
    across = np.fft.fftfreq(columns)[: columns // 2 + (2 if columns % 2 else 1)]
    return np.hypot(np.fft.fftfreq(rows)[:, None], across)


@lru_cache(maxsize=16)
def _scale(rows: int, columns: int) -> Tensor:
    import torch

    return torch.as_tensor(1 / np.maximum(frequencies(rows, columns), 1 / max(rows, columns)))


def _standard(numbers: Tensor) -> Tensor:
    """Each picture's numbers with mean 0 and spread 1."""
    dims = tuple(range(1, numbers.ndim))
    return (numbers - numbers.mean(dims, keepdim=True)) / (numbers.std(dims, keepdim=True) + 1e-4)


# ── Moved about ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Moves:
    """One draw of how pictures are moved: padded, shifted (right, down), scaled, turned, shifted again."""

    padding: int
    first: tuple[int, int]
    scale: float
    degrees: float
    second: tuple[int, int]


def drawn_moves(rows: int, columns: int, generator: Generator) -> Moves:
    """Lucid's moves, drawn anew for each step; padding and shifts are smaller for pictures below 64 pixels.

    >>> import torch
    >>> drawn_moves(8, 8, torch.Generator().manual_seed(0)).padding
    2
    """
    import torch

    part = min(1.0, min(rows, columns) / WHOLE)

    def below(most: int) -> int:
        return int(torch.randint(max(1, most), (), generator=generator))

    return Moves(
        math.ceil(PADDING * part),
        (below(round(FIRST_SHIFT * part)), below(round(FIRST_SHIFT * part))),
        SCALES[below(len(SCALES))],
        float(DEGREES[below(len(DEGREES))]),
        (below(round(SECOND_SHIFT * part)), below(round(SECOND_SHIFT * part))),
    )


def moved(pictures: Tensor, moves: Moves) -> Tensor:
    """Pictures padded with grey, shifted, scaled and turned (both bilinear), and shifted again; what is laid bare is 0.

    >>> import torch
    >>> moved(torch.zeros(1, 3, 8, 8), Moves(2, (1, 0), 1.1, -5.0, (0, 0))).shape
    torch.Size([1, 3, 14, 14])
    """
    from torch.nn import functional

    pictures = functional.pad(pictures, (moves.padding,) * 4, value=0.5)
    pictures = turned(scaled(shifted(pictures, *moves.first), moves.scale), moves.degrees)
    return shifted(pictures, *moves.second)


def shifted(pictures: Tensor, right: int, down: int) -> Tensor:
    """Pictures moved by whole pixels, 0 where nothing is left.

    >>> import torch
    >>> shifted(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 1, 0)
    tensor([[[[0., 1., 2.]]]])
    """
    from torch.nn import functional

    return functional.pad(pictures, (right, -right, down, -down)) if right or down else pictures


def scaled(pictures: Tensor, by: float) -> Tensor:
    """Pictures magnified; smaller ones get a border of 0, so that none is smaller than before.

    >>> import torch
    >>> scaled(torch.ones(1, 1, 10, 10), 0.9).shape, scaled(torch.ones(1, 1, 10, 10), 1.1).shape
    (torch.Size([1, 1, 11, 11]), torch.Size([1, 1, 11, 11]))
    """
    from torch.nn import functional

    if by == 1:
        return pictures
    old = pictures.shape[2:]
    new = tuple(math.ceil(by * side) for side in old)
    down, right = (max(0, math.ceil((a - b) / 2)) for a, b in zip(old, new, strict=True))
    pictures = functional.interpolate(pictures, size=new, mode="bilinear", align_corners=True)
    return functional.pad(pictures, (right, right, down, down))


def turned(pictures: Tensor, degrees: float) -> Tensor:
    """Pictures turned about their centre, counter-clockwise, bilinear, 0 where nothing is left.

    >>> import torch
    >>> turned(torch.tensor([[[[0.0, 0, 1], [0, 0, 0], [0, 0, 0]]]]), 90).round(decimals=4)[0, 0, 0]
    tensor([1., 0., 0.])
    """
    import torch
    from torch.nn import functional

    rows, columns = pictures.shape[2:]
    if degrees == 0 or min(rows, columns) < 2:
        return pictures
    angle, ratio = math.radians(degrees), (rows - 1) / (columns - 1)
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[[cosine, -sine * ratio, 0], [sine / ratio, cosine, 0]]]).to(pictures)
    grid = functional.affine_grid(matrix, [1, 1, rows, columns], align_corners=True)
    # All in one: where a pixel comes from is the same for every picture and colour, and is worked out once.
    return functional.grid_sample(pictures.flatten(0, 1)[None], grid, "bilinear", "zeros", True)[0].view_as(pictures)


def cropped(pictures: Tensor, size: tuple[int, int], generator: Generator) -> Tensor:
    """MACO's view of each picture: CROPS random windows about its middle at the size given, with a little noise.

    Gives n · CROPS pictures, those of one picture one after another; the windows are the same for all of them. Their
    sides are 25 to 30 % of the picture's, and more when that would be far fewer pixels than the network takes.

    >>> import torch
    >>> cropped(torch.zeros(2, 3, 32, 32), (8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([12, 3, 8, 8])
    """
    import torch
    from torch.nn import functional

    offsets = OFF_CENTRE * torch.randn((CROPS, 2), generator=generator)
    least = min(0.75, max(0.25, max(size) / max(pictures.shape[2:]) * 0.75))
    sides = least * (1 + 0.2 * torch.rand((CROPS,), generator=generator))
    matrices = torch.zeros(CROPS, 2, 3)
    matrices[:, 0, 0] = matrices[:, 1, 1] = sides
    # No window reaches over the edge: what would be filled in there could be climbed too.
    matrices[:, :, 2] = 2 * offsets.clamp((sides[:, None] - 1) / 2, (1 - sides[:, None]) / 2)
    grid = functional.affine_grid(matrices.to(pictures), [CROPS, 1, *size], align_corners=False)
    windows = functional.grid_sample(
        pictures.repeat_interleave(CROPS, 0), grid.repeat(len(pictures), 1, 1, 1), "bilinear", "border", False
    )
    shape = (CROPS, *windows.shape[1:])
    noise = torch.randn(shape, generator=generator) + torch.rand(shape, generator=generator) - 0.5
    return windows + NOISE * noise.repeat(len(pictures), 1, 1, 1).to(windows)


# ── Into the network ──────────────────────────────────────────────────────────────────────────────────────────────────


def size_of(network: Network) -> tuple[int, int, int]:
    """Colours, rows and columns of the pictures a network takes. Raises UsageError when it takes no pictures.

    >>> import neuralmine as nm
    >>> size_of(nm.load("digits"))
    (1, 8, 8)
    """
    shape = network.shape if len(network.shape) == 3 else (1, *network.shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(
            f"{network.name or 'This network'} takes inputs of shape {network.shape}, not pictures of one or three colours.",
            "Choose a network that sees pictures.",
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


def encoding(network: Network) -> Callable[[Tensor], Tensor]:
    """A differentiable function from pictures, of any size where the network's scaling allows it, to encoded batches.

    The network's own encoding is a scaling of each number; it is measured on black and on white.

    >>> import torch, neuralmine as nm
    >>> encoding(nm.load("digits"))(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 8, 8])
    """
    size = size_of(network)
    black, white = (network.encode(np.full(network.shape, value, dtype=np.float32)) for value in (0.0, 1.0))
    black, gain = black.reshape(1, *size), (white - black).reshape(1, *size)
    if all(bool((part == part[:, :, :1, :1]).all()) for part in (black, gain)):
        black, gain = black[:, :, :1, :1], gain[:, :, :1, :1]

    def encode(pictures: Tensor) -> Tensor:
        encoded = black + gain * pictures.to(gain.dtype)
        return encoded if len(network.shape) == 3 else encoded[:, 0]

    return encode


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures of the size given, bilinear; those that have it already as they are.

    >>> import torch
    >>> resized(torch.zeros(1, 3, 8, 8), (12, 12)).shape
    torch.Size([1, 3, 12, 12])
    """
    from torch.nn import functional

    if tuple(pictures.shape[2:]) == tuple(size):
        return pictures
    return functional.interpolate(pictures, size=tuple(size), mode="bilinear", align_corners=True)


def centred(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of pictures that are at least as large.

    >>> import torch
    >>> centred(torch.arange(4.0).reshape(1, 1, 1, 4), (1, 2))
    tensor([[[[1., 2.]]]])
    """
    top, left = ((have - want) // 2 for have, want in zip(pictures.shape[2:], size, strict=True))
    return pictures[:, :, top : top + size[0], left : left + size[1]]
