from __future__ import annotations

from typing import Annotated

import numpy as np

from ..lens import lens
from ..surfaces import hessian_product, lanczos, subset
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Bars, Lines, number

MEMORY = 1 << 27  # numbers of Lanczos vectors that are kept: 1 GB


@lens()
def curvature(
    network: Network,
    data: Dataset,
    *,
    count: Annotated[int, Between(1, 50)] = 3,
    iterations: Annotated[int, Between(2, 1000)] = 100,
    tolerance: Annotated[float, Between(1e-12, 0.1)] = 1e-6,
    limit: Annotated[int, Between(0, 10_000_000)] = 0,
    seed: Annotated[int, Between(0, 2**31)] = 0,
) -> Finding:
    """How sharply the loss bends at the network's weights, and the largest learning rate that bend allows.

    The largest eigenvalues of the Hessian (the second derivatives of the mean loss in all weights) and the smallest,
    by Lanczos (1950) on exact products with vectors (Pearlmutter 1994), in float64.

    Numbers: "largest" (descending), "smallest", "residuals" (‖Hv − λv‖ of the largest, then of the smallest), "rate"
    (2 ÷ the largest; infinite when nothing bends up), "history" (the largest after each product), "products".

    Options:
        count: how many of the largest eigenvalues.
        iterations: products at most; it stops as soon as the eigenvalues are exact enough.
        tolerance: how exact is enough, as a share of the largest magnitude.
        limit: how many of the data to use, drawn at random; 0 for all.
        seed: of the start vector and the drawn data.

    Raises UsageError for a network without weights, or where the curvature is not a number.

    >>> import neuralmine as nm
    >>> finding = nm.look("curvature", nm.load("64-10"), nm.datasets.load("digits"), limit=200, count=1)
    >>> bool(finding.numbers["largest"][0] > 0)
    True
    """
    used, said = subset(data, limit, seed)
    product, size = hessian_product(network, used)
    most = max(2, min(iterations, MEMORY // size))
    found = lanczos(product, size, count=count, iterations=most, tolerance=tolerance, seed=seed)
    scale = max(abs(float(found.largest[0])), abs(found.smallest), 1e-300)
    worst = float(found.residuals.max()) / scale
    top = float(found.largest[0])
    bends = top > 1e-12
    advice = (
        f"Full-batch gradient descent with a learning rate above 2/λ = {number(2 / top)} overshoots along the "
        "sharpest direction, further at every step"
        if bends
        else "No direction bends up, so curvature sets no limit to the learning rate here"
    )
    down = (
        f"the most negative is {number(found.smallest, 5)}: the weights are no minimum"
        if found.smallest < -1e-6 * scale
        else f"the smallest is {number(found.smallest)}: no direction bends down"
    )
    names = (*(f"λ{i + 1}" for i in range(len(found.largest))), "smallest")
    return Finding(
        {
            "largest": found.largest,
            "smallest": np.array(found.smallest),
            "residuals": found.residuals,
            "rate": np.array(2 / top if bends else np.inf),
            "history": found.history,
            "products": np.array(found.products),
        },
        (
            Bars("eigenvalues of the Hessian", names, np.append(found.largest, found.smallest), None, signed=True),
            Lines(
                "the largest eigenvalue found so far",
                np.arange(1.0, len(found.history) + 1),
                {"largest": found.history},
                "products with the Hessian",
                "eigenvalue",
            ),
        ),
        (
            Check(
                "eigenvectors stay in their direction",
                worst,
                passed=worst <= max(10 * tolerance, 1e-9),
                meaning="The largest ‖Hv − λv‖ over the largest |λ|, measured with a product of its own.",
            ),
        ),
        summary=f"Largest eigenvalue{'s' if len(found.largest) > 1 else ''} of the Hessian: {', '.join(number(float(v), 5) for v in found.largest)}; {down}. {advice}. {found.products} products with the Hessian of {size} weights. Data: {said}. {data.note}".strip(),
        provenance={"images": said},
    )
