from __future__ import annotations

from itertools import product

import numpy as np

from ..datasets import load
from ..losses import mean_loss
from ..networks.catalogue import load_preset
from ..optimizers import OneWeightAtATime
from ..progress import over
from ..types import Check, Finding, Verdict
from ..views import Lines, Table

STARTS, PICTURES = 2, 600
RATES = (32.0, 400.0)  # that of the bundled 64-10, and one so large that hops go too far


def hop_down(*, seed: int = 0) -> Verdict:
    """Hopping down the real curve of the loss by one weight: does every hop that is kept lower the exact loss?

    The essay's 64-10 from two random starts, at the rate it was trained with and at a much larger one: each of its 650
    weights hops once, by the rate × the slope; a hop that does not lower the loss is halved, and taken back after ten halvings. The loss before and after each hop is
    computed anew by a whole forward pass of all pictures, apart from the optimiser's own bookkeeping. The null is the
    same hop to the other side, uphill.
    """
    import torch

    data = load("digits").take(np.random.default_rng(seed).permutation(1797)[:PICTURES])
    labels = torch.as_tensor(data.labels)
    rows, curves, highest = [], {}, 0.0
    for run, (rate, start) in over(list(enumerate(product(RATES, range(STARTS)))), "run"):
        network = load_preset("64-10", trained=False, seed=seed + start)
        inputs, module = network.encode(data.images), network.module
        optimizer = OneWeightAtATime(module, inputs, labels, rate=rate)

        def exact() -> float:
            with torch.no_grad():
                return float(mean_loss("squared", module(inputs), labels))  # noqa: B023 (called in this loop alone)

        before = exact()
        for _ in over(range(optimizer.count), "weight"):
            hop = optimizer.step()
            after = exact()
            moved = hop.new_weight - hop.old_weight
            parameter = module.get_parameter(hop.name)
            other = np.nan
            if moved:
                with torch.no_grad():
                    parameter[hop.index] = hop.old_weight - moved
                    other = exact()
                    parameter[hop.index] = hop.new_weight
            rows.append((run, hop.slope, moved, before, after, other, len(hop.hops)))
            # The one that overshot most and came back, to be shown: its curve as it is now, all other weights the same.
            rise = max(loss for _, loss in hop.hops) - before if moved and len(hop.hops) > 2 else 0.0
            if rise > highest:
                highest = rise
                values, losses = optimizer.curve(
                    hop.name,
                    hop.index,
                    around=hop.old_weight,
                    span=1.3 * abs(next(iter(hop.hops))[0] - hop.old_weight),
                    points=61,
                )
                curves = {"values": values, "losses": losses, "hops": np.array([(hop.old_weight, before), *hop.hops])}
            before = after
    return judged(np.array(rows), curves)


def judged(rows: np.ndarray, curves: dict[str, np.ndarray]) -> Verdict:
    """The verdict on hops: rows of start, slope, way moved, loss before, after, on the other side, and values tried."""
    moved = rows[:, 2] != 0
    # A fall of less than a millionth of a millionth drowns in the rounding of a sum over all pictures.
    told = np.abs(rows[:, 1] * rows[:, 2]) > 1e-12 * rows[:, 3]
    kept = rows[moved & told]
    lower = kept[:, 4] < kept[:, 3]
    uphill = kept[:, 5] < kept[:, 3]
    against = kept[:, 1] * kept[:, 2] < 0
    again = kept[:, 6] > 1
    stayed = float((~moved).mean())
    never = bool((rows[:, 4] <= rows[:, 3]).all())
    whole = kept[~again]  # of hops that needed no halving the size is the slope's alone
    follows = min(float(np.corrcoef(np.abs(whole[whole[:, 0] == run, 1:3].T))[0, 1]) for run in np.unique(whole[:, 0]))
    views = []
    if curves:
        hops = curves["hops"]
        views = [
            Lines(
                "the real curve of one weight that overshot",
                curves["values"],
                {"loss": 1000 * (curves["losses"] - curves["losses"].min())},
                "weight",
                "loss above the lowest here, thousandths",
                float(hops[-1, 0]),
            ),
            Table(
                "its hops",
                ("place", "weight", "above the lowest, thousandths"),
                tuple(
                    (
                        "start" if i == 0 else "kept" if i == len(hops) - 1 else "too far",
                        float(w),
                        1000 * float(loss - curves["losses"].min()),
                    )
                    for i, (w, loss) in enumerate(hops)
                ),
            ),
        ]
    starts = [rows[rows[:, 0] == run] for run in np.unique(rows[:, 0])]
    finding = Finding(
        {"hops": rows, **curves},
        (*views, Lines("the exact loss, weight after weight", np.arange(max(map(len, starts))), {f"run {i + 1}": one[:, 4] for i, one in enumerate(starts)}, "weight", "loss")),
        (
            Check("kept hops that lower the exact loss", float(lower.mean()), float(uphill.mean()), None, bool(lower.all()), f"Of {len(kept)} kept hops ({int((moved & ~told).sum())} more change less than rounding can tell); the null is the same hop to the other side."),
            Check("no weight raises it", float((rows[:, 4] - rows[:, 3]).max()), 0.0, None, never, "The largest change of the exact loss by any of the weights, those that stayed included."),
            Check("hops go against the slope", float(against.mean()), 0.5, None, bool(against.all()), "Up to the left when the curve rises to the right, and the other way round."),
            Check("a steep slope makes a large hop", follows, 0.0, None, bool(follows > 0.99), f"Correlation of slope and hop, of the {len(whole)} that overshot nothing; the lowest of the runs."),
            Check("hops that first went too far", float(again.mean()), None, None, None, "They were halved until the loss was lower: a smaller hop, from where it began."),
        ),
        f"{int(lower.sum())} of {len(kept)} kept hops lower the exact loss; {100 * again.mean():.1f} % first went too far, {100 * stayed:.1f} % of weights stayed.",
    )  # fmt: skip
    return Verdict(
        "If we’re trying to get to the bottom, we can just hop down a little. … If we realized we hopped too far and found the curve pointing the other way like that, we know we hopped over the bottom, which is awesome! Then we take a smaller hop the other way.",
        "Behind the Eyeballs of AI (2020)",
        "On the real curve of the loss by one weight, each hop that is kept lowers the exact loss of all pictures.",
        f"{100 * lower.mean():.1f} % of {len(kept)} kept hops ({len(starts)} runs); the loss falls from {np.mean([one[0, 3] for one in starts]):.2f} to {np.mean([one[-1, 4] for one in starts]):.2f} "
        f"in one round; {100 * again.mean():.1f} % went too far at first and were shortened",
        f"{100 * uphill.mean():.1f} % of the same hops to the other side lower it",
        "holds" if lower.all() and never and not uphill.mean() > 0.05 else "partly" if lower.mean() > 0.9 else "not here",
        finding,
    )  # fmt: skip
