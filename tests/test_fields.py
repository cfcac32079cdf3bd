"""Receptive fields by arithmetic, against where gradients really arrive."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralmine as nm
from neuralmine.errors import UnknownName
from neuralmine.fields import field_of, fields_of

nn = torch.nn


def support(module, shape, row, column):
    """The rows and columns of the picture from which a value at this place has a gradient."""
    x = torch.rand(20, *shape, requires_grad=True)
    module.eval()(x * 1)[..., row, column].sum().backward()
    seen = (x.grad != 0).any(0).any(0)
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]


def open_to_all(module):
    """The same windows, but every value in them counts: means for maxima, weights above 0."""
    module = copy.deepcopy(module)
    for i, part in enumerate(list(module) if isinstance(module, nn.Sequential) else []):
        if isinstance(part, nn.MaxPool2d):
            module[i] = nn.AvgPool2d(part.kernel_size, part.stride, part.padding, part.ceil_mode)
        elif isinstance(part, nn.AdaptiveMaxPool2d):
            module[i] = nn.AdaptiveAvgPool2d(part.output_size)
        elif isinstance(part, nn.ReLU):
            module[i] = nn.ReLU()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    return module


conv = st.builds(
    lambda k, s, p, d: nn.Conv2d(2, 2, k, s, [min(p, q) for q in k] if p else 0, d),
    st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2),
)  # fmt: skip
pool = st.builds(
    lambda kind, k, s, ceil: kind(k, s, padding=k // 2 if s % 2 else 0, ceil_mode=ceil),
    st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]), st.integers(1, 3), st.integers(1, 3), st.booleans(),
)  # fmt: skip
other = st.sampled_from(
    [nn.ReLU(inplace=True), nn.BatchNorm2d(2), nn.GELU(), nn.ZeroPad2d((1, 0, 2, 1)), nn.Softplus(), nn.Dropout()]
)
ended = st.sampled_from([nn.Identity(), nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d(3), nn.AdaptiveMaxPool2d(1)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.one_of(conv, pool, other), min_size=1, max_size=4), ended, st.data())
def test_gradients_arrive_where_arithmetic_says(parts, last, data):
    module = nn.Sequential(*parts, last)
    shape = (2, 23, 19)
    try:
        rows, columns = module.eval()(torch.zeros(1, *shape)).shape[2:]
    except RuntimeError:
        return  # smaller than a kernel
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    wanted = support(open_to_all(module), shape, row, column)
    field = field_of(nm.load(module, shape=shape), str(len(parts)))
    assert not field.whole
    box = field.box(row, column).tolist()
    if not wanted[2]:  # only padding is seen
        assert box[0] == box[2] or box[1] == box[3]
        return
    assert box == wanted
    if field.stride[0]:
        top = field.offset[0] + row * field.stride[0]
        clipped = [max(0, top), min(23, top + field.size[0])]
        assert clipped[0] <= wanted[0] or wanted[0] == 0  # padding and cut windows only take away
        assert wanted[2] <= clipped[1]


class Fire(nn.Module):
    def __init__(self, given, squeezed):
        super().__init__()
        self.squeeze, self.act = nn.Conv2d(given, squeezed, 1), nn.ReLU(inplace=True)
        self.expand1, self.expand3 = nn.Conv2d(squeezed, 4, 1), nn.Conv2d(squeezed, 4, 3, padding=1)

    def forward(self, x):
        x = self.act(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1(x)), torch.relu_(self.expand3(x))], 1)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 1, 1), nn.Conv2d(2, 2, 1, 2)

    def forward(self, x):
        y = self.b(torch.relu(self.a(x)))
        y += self.c(x)
        return torch.relu_(y)


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.conv(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Excite(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(2, 4, 3, 2), Fire(4, 2), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 3)),
        nn.Sequential(Residual(), Residual()),
        nn.Sequential(nn.Conv2d(2, 2, 3), Shuffle(), nn.Conv2d(2, 2, 3)),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.LocalResponseNorm(2), nn.Conv2d(2, 2, 3)),
        nn.Sequential(nn.Conv2d(2, 2, 3), Excite()),
    ],
)
def test_branches_take_the_largest(module):
    net, last = nm.load(module, shape=(2, 23, 19)), str(len(module) - 1)
    field = field_of(net, last)
    rows, columns = net.layer(last).shape[2:]
    for row, column in [(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1)]:
        assert field.box(row, column).tolist() == support(open_to_all(module), (2, 23, 19), row, column)
    assert not field.whole


def test_squeezenet_by_hand():
    fires = [nn.MaxPool2d(3, 2, ceil_mode=True), Fire(16, 4), Fire(8, 4)]
    net = nm.load(nn.Sequential(nn.Conv2d(3, 16, 7, 2), nn.ReLU(True), *fires), shape=(3, 64, 64))
    fields = fields_of(net, ["0", "2", "3", "3.squeeze", "4"])
    # 7; + 2·2; + 2·4 for each 3 × 3 on a grid of 4
    assert [field.size[0] for field in fields.values()] == [7, 11, 19, 11, 27]
    assert [field.stride[0] for field in fields.values()] == [2, 4, 4, 4, 4]
    assert [field.offset[0] for field in fields.values()] == [0, 0, -4, 0, -8]


class Strange(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(2, 2, 1)

    def forward(self, x):
        if self.kind == "fft":
            x = torch.fft.fft2(x).real
        elif self.kind == "written in place":
            y = torch.zeros_like(x)
            y[:, :, :4] = x[:, :, 4:8]
            x = y
        elif self.kind == "transposed":
            x = x.transpose(2, 3)
        elif self.kind == "flat":
            x = nn.functional.linear(x.flatten(1), torch.ones(128, 128)).view(-1, 2, 8, 8)
        return self.conv(x)


@pytest.mark.parametrize("kind", ["fft", "written in place", "transposed", "flat"])
def test_what_is_not_known_is_the_whole_picture_and_said(kind):
    field = field_of(nm.load(Strange(kind), shape=(2, 8, 8)), "conv")
    assert field.whole
    assert field.box(np.array([3, 0]), np.array([1, 2])).tolist() == [[0, 0, 8, 8]] * 2
    assert (field.size, field.stride) == ((8, 8), (0, 0))


def test_a_layer_that_does_not_exist():
    with pytest.raises(UnknownName):
        field_of(nm.load(Strange(""), shape=(2, 8, 8)), "convx")
