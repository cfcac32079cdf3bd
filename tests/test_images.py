"""Pictures as numbers: each parameterisation and each move against its definition, written out by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import neuralmine as nm
from neuralmine import images
from neuralmine.errors import UsageError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("rows", "columns"), [(6, 8), (7, 9), (8, 7)])
def test_a_fourier_picture_is_its_definition(rows, columns):
    spectrum = images.spectrum_start(2, (3, rows, columns), generator()) * 100
    kept = columns // 2 + (2 if columns % 2 else 1)
    assert spectrum.shape == (2, 3, rows, kept, 2)
    waves = spectrum.numpy()[..., 0].astype(complex) + 1j * spectrum.numpy()[..., 1]
    for y in range(rows):
        for x in range(kept):
            down, across = np.fft.fftfreq(rows)[y], np.fft.fftfreq(columns)[x]
            waves[:, :, y, x] /= max(math.hypot(down, across), 1 / max(rows, columns))
    maps = np.fft.irfft2(waves[..., : columns // 2 + 1], s=(rows, columns), norm="ortho") / 4
    red = np.array([0.26, 0.09, 0.02]), np.array([0.27, 0.0, -0.05]), np.array([0.27, -0.09, 0.03])
    longest = math.sqrt(0.26**2 + 0.27**2 + 0.27**2)
    assert longest == pytest.approx(0.4619, abs=1e-4)
    wanted = np.stack([sum(maps[:, c] * row[c] for c in range(3)) / longest for row in red], 1)
    found = images.fourier_image(spectrum, columns)
    np.testing.assert_allclose(found.numpy(), sigmoid(wanted), atol=1e-6)
    assert 0 < found.min() < found.max() < 1


def test_the_start_is_small_and_grey_pictures_have_no_colours():
    spectrum = images.spectrum_start(1, (3, 64, 64), generator())
    assert float(spectrum.std()) == pytest.approx(0.01, rel=0.05)
    one = images.spectrum_start(1, (1, 8, 8), generator()) * 50
    wave = np.zeros((8, 5), complex)
    wave[:] = torch.view_as_complex(one)[0, 0].numpy()
    wave /= np.maximum(np.hypot(np.fft.fftfreq(8)[:, None], np.abs(np.fft.fftfreq(8)[:5])), 1 / 8)
    np.testing.assert_allclose(
        images.fourier_image(one, 8)[0, 0].numpy(), sigmoid(np.fft.irfft2(wave, s=(8, 8), norm="ortho") / 4), atol=1e-6
    )


def standard(x):
    return (x - x.mean()) / (x.std(ddof=1) + 1e-4)


@pytest.mark.parametrize("colours", [1, 3])
def test_a_maco_picture_is_its_definition(colours):
    phase = images.phase_start(2, (colours, 8, 10), generator())
    size = 1 / np.maximum(np.hypot(np.fft.fftfreq(8)[:, None], np.abs(np.fft.fftfreq(10)[:6])), 1 / 10)
    found = images.maco_image(phase, 10)
    for one, picture in zip(phase.numpy(), found.numpy(), strict=True):
        maps = standard(np.fft.irfft2(size * np.exp(1j * standard(one)), s=(8, 10)))
        if colours == 3:
            maps = np.stack([sum(maps[c] * images.MACO_COLOURS[c, d] for c in range(3)) for d in range(3)])
        np.testing.assert_allclose(picture, sigmoid(maps), atol=1e-5)


def test_maco_fixes_the_size_of_every_frequency():
    """Whatever the phases, the spectrum before the colours is 1 / frequency: only where things are can change."""
    found = images.maco_image(images.phase_start(2, (1, 16, 16), generator(3)), 16).double()
    maps = torch.log(found / (1 - found))
    sizes = torch.fft.rfft2(maps).abs()[:, 0, 1:8, 1:8]
    ratio = sizes * torch.as_tensor(images.frequencies(16, 16)[1:8, 1:8])
    assert float((ratio / ratio.mean((1, 2), keepdim=True) - 1).abs().max()) < 1e-3


def test_pixels_are_squashed_and_coloured():
    pixels = images.pixels_start(1, (3, 4, 4), generator())
    coloured = images.coloured(pixels)
    assert torch.equal(images.pixel_image(pixels), torch.sigmoid(coloured))
    grey = torch.randn(1, 1, 3, 3)
    assert images.coloured(grey) is grey


# ── Moves ──


def test_moves_are_those_of_lucid_and_smaller_for_small_pictures():
    drawn = [images.drawn_moves(224, 224, generator(seed)) for seed in range(300)]
    assert {m.padding for m in drawn} == {12}
    assert {s for m in drawn for s in m.first} == set(range(8))
    assert {s for m in drawn for s in m.second} == set(range(4))
    assert {round(m.scale, 4) for m in drawn} == {round(1 + (i - 5) / 50, 4) for i in range(11)}
    assert {m.degrees for m in drawn} == set(map(float, range(-10, 11)))
    assert np.mean([m.degrees == 0 for m in drawn]) > 0.15  # five more times than the others
    small = [images.drawn_moves(28, 28, generator(seed)) for seed in range(100)]
    assert {m.padding for m in small} == {6}
    assert max(s for m in small for s in m.first) == 3
    tiny = images.drawn_moves(8, 8, generator())
    assert (tiny.padding, tiny.first, tiny.second) == (2, (0, 0), (0, 0))


def bilinear(picture, rows, columns):
    """Read a picture (c × h × w) between its pixels, 0 outside, one place after another."""
    c, h, w = picture.shape
    found = np.zeros((c, *rows.shape))
    for place in np.ndindex(rows.shape):
        y, x = rows[place], columns[place]
        for yy in (math.floor(y), math.floor(y) + 1):
            for xx in (math.floor(x), math.floor(x) + 1):
                if 0 <= yy < h and 0 <= xx < w:
                    found[(slice(None), *place)] += picture[:, yy, xx] * (1 - abs(y - yy)) * (1 - abs(x - xx))
    return found


@pytest.mark.parametrize("degrees", [-10.0, 3.0, 90.0])
def test_turning_is_counter_clockwise_about_the_centre(degrees):
    pictures = torch.rand(2, 3, 9, 12, generator=generator())
    found = images.turned(pictures, degrees)
    angle = math.radians(degrees)
    down, right = np.mgrid[:9, :12].astype(float)
    down, right = down - 4, right - 5.5
    # Upwards is minus the row: what is seen at a place lay, before a turn to the left, clockwise of it.
    rows, columns = 4 + math.cos(angle) * down + math.sin(angle) * right, 5.5 + math.cos(angle) * right - math.sin(angle) * down  # fmt: skip
    for one, picture in zip(pictures.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(picture, bilinear(one, rows, columns), atol=1e-4)


@pytest.mark.parametrize("by", [0.9, 0.98, 1.0, 1.06, 1.1])
def test_scaling_keeps_the_corners_and_never_shrinks_the_sheet(by):
    pictures = torch.rand(1, 1, 20, 14, generator=generator())
    found = images.scaled(pictures, by)[0, 0].numpy()
    new = math.ceil(by * 20), math.ceil(by * 14)
    edge = tuple(max(0, math.ceil((a - b) / 2)) for a, b in zip((20, 14), new, strict=True))
    inside = found[edge[0] : edge[0] + new[0], edge[1] : edge[1] + new[1]]
    rows, columns = np.meshgrid(np.linspace(0, 19, new[0]), np.linspace(0, 13, new[1]), indexing="ij")
    np.testing.assert_allclose(inside, bilinear(pictures[0].numpy(), rows, columns)[0], atol=1e-5)
    assert found.shape[0] >= 20
    assert found.shape[1] >= 14
    assert found.sum() == pytest.approx(inside.sum(), rel=1e-5)


def test_shifting_moves_right_and_down():
    picture = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    assert images.shifted(picture, 1, 2)[0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 2]]
    assert images.shifted(picture, 0, 0) is picture


def test_windows_lie_in_the_middle_and_are_the_same_for_all_pictures():
    one = torch.rand(1, 3, 64, 64, generator=generator(1))
    windows = images.cropped(torch.cat([one, one]), (16, 16), generator(2))
    assert windows.shape == (12, 3, 16, 16)
    assert torch.equal(windows[:6], windows[6:])
    ramp = torch.linspace(0, 1, 400).expand(1, 1, 400, 400).contiguous()
    widths = [w[:, -1].mean() - w[:, 0].mean() for s in range(30) for w in images.cropped(ramp, (40, 40), generator(s))[:, 0]]  # fmt: skip
    # 25 to 30 % of the picture between the outer edges, one pixel of 40 less between the outer centres; fewer at the rim.
    assert 0.23 < np.median(widths) < 0.30


# ── Into the network ──


def test_encoding_is_the_networks_own_and_has_a_gradient():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    net = nm.load(module, shape=(3, 6, 5), mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.3])
    pictures = torch.rand(2, 3, 6, 5, generator=generator()).requires_grad_()
    encoded = images.encoding(net)(pictures)
    torch.testing.assert_close(encoded, net.encode(pictures.detach().numpy()))
    (slope,) = torch.autograd.grad(encoded.sum(), pictures)
    torch.testing.assert_close(slope[0, :, 0, 0], 1 / torch.tensor([0.1, 0.2, 0.3]))
    assert images.encoding(net)(torch.rand(1, 3, 11, 9)).shape == (1, 3, 11, 9)


def test_encoding_may_differ_from_place_to_place():
    net = nm.load("digits")
    from dataclasses import replace

    ramp = torch.arange(64.0, dtype=torch.float64).reshape(1, 8, 8)
    odd = replace(net, encode=lambda raw: torch.as_tensor(np.asarray(raw, dtype=float)).reshape(-1, 8, 8) * ramp)
    assert torch.equal(images.encoding(odd)(torch.ones(1, 1, 8, 8)), ramp)


@pytest.mark.parametrize(("shape", "size"), [((8, 8), (1, 8, 8)), ((1, 28, 28), (1, 28, 28)), ((3, 6, 5), (3, 6, 5))])
def test_sizes(shape, size):
    net = nm.load(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(shape)), 2)), shape=shape)
    assert images.size_of(net) == size


def test_what_takes_no_pictures_is_refused():
    net = nm.load(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    with pytest.raises(UsageError, match="not pictures"):
        images.size_of(net)


def test_the_middle_and_other_sizes():
    picture = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert torch.equal(images.centred(picture, (3, 3)), picture[:, :, 1:4, 1:4])
    assert images.resized(picture, (5, 5)) is picture
    torch.testing.assert_close(
        images.resized(picture, (9, 9)), functional.interpolate(picture, (9, 9), mode="bilinear", align_corners=True)
    )


def test_the_same_seed_gives_the_same_bits():
    for start in (images.spectrum_start, images.pixels_start, images.phase_start):
        assert torch.equal(start(2, (3, 9, 8), generator(4)), start(2, (3, 9, 8), generator(4)))
        assert not torch.equal(start(2, (3, 9, 8), generator(4)), start(2, (3, 9, 8), generator(5)))
