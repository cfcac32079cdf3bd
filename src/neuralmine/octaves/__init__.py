"""DeepDream: climbing what a layer answers, from a photo, small sizes first; the photo keeps its own size.

One step shifts the picture at random, takes the gradient of the objective (a large picture's tile by tile, each with a
margin around it), divides it by its mean size and adds it to the picture. The sizes (octaves) go from small to large;
what a size added is enlarged and laid over the photo at the next. Source: Mordvintsev, Olah and Tyka (2015),
"Inceptionism" and the notebook "DeepDream".
"""

from .changes import at_budget, blurred, changed, distance, eight_bits, enlarged, resized, shown, shuffled_change
from .climbing import Dream, Frame, Settings, climb, dreaming_steps, dreamt, finished, octave_sizes, zooming_steps
from .gradients import gradient_of, objective_of
from .rungs import cost, ladder
from .scenes import LONGEST, Scene, Wanted, photo_of, scene_of, wanted_of
from .series import Rung, series_steps

__all__ = [
    "LONGEST",
    "Dream",
    "Frame",
    "Rung",
    "Scene",
    "Settings",
    "Wanted",
    "at_budget",
    "blurred",
    "changed",
    "climb",
    "cost",
    "distance",
    "dreaming_steps",
    "dreamt",
    "eight_bits",
    "enlarged",
    "finished",
    "gradient_of",
    "ladder",
    "objective_of",
    "octave_sizes",
    "photo_of",
    "resized",
    "scene_of",
    "series_steps",
    "shown",
    "shuffled_change",
    "wanted_of",
    "zooming_steps",
]
