"""Names that people gave to colours, and the kind of colour each stands for."""

from __future__ import annotations

import colorsys

import numpy as np

from ..types import Dataset

# Where one kind of colour ends on the colour wheel, in degrees: reds and pinks lie on both sides of 0.
KINDS = {"red or pink": 20, "brown, orange or yellow": 70, "green": 165, "blue": 255, "purple": 310}
LENGTHS, OFTEN = (1, 3), 4  # letters in a row, and in how many names such a row must occur


def colour_names() -> Dataset:
    """949 names of colours as rows of letters that occur in them, names × rows of letters (1 or 0); five kinds of colour.

    Real: over 200,000 people named colours on their screens (xkcd survey, 2010). The kind is the hue of the colour
    that most gave the name to, so a name has to be understood: "eggplant" is purple.

    >>> data = colour_names()
    >>> len(data), data.classes[data.labels[words().index("eggplant")]]
    (949, 'purple')
    """
    from matplotlib.colors import XKCD_COLORS, to_rgb
    from sklearn.feature_extraction.text import CountVectorizer

    letters = CountVectorizer(analyzer="char_wb", ngram_range=LENGTHS, min_df=OFTEN, binary=True)
    hues = np.array([360 * colorsys.rgb_to_hsv(*to_rgb(colour))[0] for colour in XKCD_COLORS.values()]).round(6)
    return Dataset(
        "colour names", letters.fit_transform(words()).toarray().astype(np.float32),
        np.searchsorted(list(KINDS.values()), hues, side="right") % len(KINDS), tuple(KINDS),
        "Many names share a word, such as green: a new name is often made of known words.",
        "xkcd colour survey (Munroe 2010, CC0), via matplotlib",
    )  # fmt: skip


def words() -> tuple[str, ...]:
    """The names themselves, in the order of the data set."""
    from matplotlib.colors import XKCD_COLORS

    return tuple(name.removeprefix("xkcd:") for name in XKCD_COLORS)
