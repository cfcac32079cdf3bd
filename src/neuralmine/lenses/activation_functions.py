from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ..dense import weighted_sums
from ..lens import lens
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Lines, Table

STEP = 1e-5  # of the central difference


@lens()
def activation_functions(
    network: Network,
    data: Dataset,
    *,
    reach: Annotated[float, Between(1, 50)] = 6.0,
    flat: Annotated[float, Between(0, 0.5)] = 0.05,
) -> Finding:
    """Each activation and its slope, and where this network's own sums lie on it: how many are on its flat part?

    A sum is saturated where the slope is at most `flat` times the function's steepest: little of the error comes back
    through it. For ReLU that is every sum at or below 0.

    Numbers, functions in the order of the table: "sums" (from −reach to reach, 0 left out), "values" and "slopes"
    (functions × sums), "centred_mean" and "centred_saturated" (of each function, on sums that lie evenly around 0, as a
    standard normal does); for the network's blocks of neurons, blocks × functions: "mean" (what the function would put
    out on the block's own sums, on average) and "saturated" (the share of sums on its flat part); "own", which
    function each block has (−1 for one that is not in the table). One function's "saturated" is what happens, the
    others' what would happen if it were put in its place now.

    Options:
        reach: how far the plots go.
        flat: a slope of at most this share of the steepest counts as flat.

    Raises NetworkError for a network without weighted sums.

    >>> import neuralmine as nm
    >>> finding = nm.look("activation_functions", nm.load("digits"), nm.datasets.load("digits"))
    >>> finding.numbers["saturated"].shape
    (2, 6)
    """
    from scipy.stats import norm

    from ..architectures.mlp import ACTIVATIONS

    names, made = tuple(ACTIVATIONS), [kind() for kind in ACTIVATIONS.values()]
    sums = np.linspace(-reach, reach, 240)
    values, slopes = (np.stack(part) for part in zip(*(_curve(f, sums) for f in made), strict=True))
    steepest = np.array([_curve(f, np.linspace(-8, 8, 3202))[1].max() for f in made])
    even = norm.ppf((np.arange(2000) + 0.5) / 2000)
    centred = np.array([_on(f, even, flat * top) for f, top in zip(made, steepest, strict=True)])
    found, _, _ = weighted_sums(network, data.images)
    own_sums = [w.sums.detach().cpu().double().numpy().ravel() for w in found]
    inside = np.array([[_on(f, own, flat * top) for f, top in zip(made, steepest, strict=True)] for own in own_sums])
    kinds = [kind.__name__ for kind in ACTIVATIONS.values()]
    own = np.array(
        [kinds.index(w.activation or "Identity") if (w.activation or "Identity") in kinds else -1 for w in found]
    )
    around = [(_curve(f, sums + STEP)[0] - _curve(f, sums - STEP)[0]) / (2 * STEP) for f in made]
    error = float(np.abs(np.stack(around) - slopes).max())
    saturated = [float(inside[i, k, 1]) for i, k in enumerate(own) if k >= 0]
    rows = tuple(
        (names[k], float(centred[k, 0]), float(centred[k, 1]), *(float(part[k, 1]) for part in inside))
        for k in range(len(names))
    )
    return Finding(
        {
            "sums": sums, "values": values, "slopes": slopes, "centred_mean": centred[:, 0],
            "centred_saturated": centred[:, 1], "mean": inside[:, :, 0], "saturated": inside[:, :, 1], "own": own,
        },
        (
            Lines("activations", sums, dict(zip(names, values, strict=True)), "sum", "value"),
            Lines("their slopes", sums, dict(zip(names, slopes, strict=True)), "sum", "slope"),
            Table("share of sums on the flat part", ("function", "mean around 0", "flat around 0", *(w.block for w in found)), rows),
        ),
        (
            Check("the slopes are those of the curves", error, None, None, error < 1e-6,
                  f"The largest difference to (f(z + h) − f(z − h)) ÷ 2h with h = {STEP:g}."),
            *([Check("share of this network's sums on a flat part", float(np.mean(saturated)), None, None, None,
                     "With the activations it has, mean over its blocks: the larger, the less of the error comes back.")] if saturated else ()),
        ),
        "; ".join(
            f"{w.block}: {names[k] if k >= 0 else w.activation}"
            + (f", {100 * inside[i, k, 1]:.3g} % of {own_sums[i].size} sums are flat, mean output {inside[i, k, 0]:.3g}" if k >= 0 else "")
            for i, (w, k) in enumerate(zip(found, own, strict=True))
        ) + ".",
        provenance={"functions": list(names), "blocks": [w.block for w in found]},
    )  # fmt: skip


def _curve(function: Any, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What torch's own function and its gradient are at these sums."""
    import torch

    given = torch.as_tensor(sums, dtype=torch.float64).requires_grad_()
    made = function(given) * 1
    (slope,) = torch.autograd.grad(made.sum(), given)
    return made.detach().numpy(), slope.numpy()


def _on(function: Any, sums: np.ndarray, flat: float) -> tuple[float, float]:
    """The mean output on these sums, and the share of them where the slope is flat."""
    values, slopes = _curve(function, sums)
    return float(values.mean()), float((np.abs(slopes) <= flat).mean())
