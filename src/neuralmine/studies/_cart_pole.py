"""A cart with a pole on it that hangs down: the physics, a rule by which to swing it up, and who can do it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GRAVITY, CART, POLE, HALF, FORCE = 9.8, 1.0, 0.1, 0.5, 10.0  # m/s², kg, kg, m, N (Barto, Sutton and Anderson 1983)
TICK, TICKS = 0.02, 500  # seconds, and how many of them an attempt lasts: 10 s
TRACK, UPRIGHT = 2.4, np.radians(12)  # m to either side, and how far from straight up still counts
ACTIONS = ("push left", "do not push", "push right")
# Feedback that holds the pole up from nearby (linear-quadratic regulator of the physics below, weights 1, 1, 10, 1
# for the state and 0.1 for the force), for place, speed, angle and turning.
HOLD = np.array([-3.16227766, -5.91549435, -49.50716842, -12.84439629])


def slopes(states: np.ndarray, force: np.ndarray) -> np.ndarray:
    """How fast place (m), speed, angle from upright (radians) and turning change: n × 4, for a uniform pole."""
    _, speed, angle, turning = states.T
    sine, cosine = np.sin(angle), np.cos(angle)
    pushed = (force + POLE * HALF * turning**2 * sine) / (CART + POLE)
    bent = (GRAVITY * sine - cosine * pushed) / (HALF * (4 / 3 - POLE * cosine**2 / (CART + POLE)))
    return np.stack([speed, pushed - POLE * HALF * bent * cosine / (CART + POLE), turning, bent], 1)


def step(states: np.ndarray, force: np.ndarray) -> np.ndarray:
    """The states one tick later, the force being constant in it (Runge and Kutta, fourth order)."""
    one = slopes(states, force)
    two = slopes(states + TICK / 2 * one, force)
    three = slopes(states + TICK / 2 * two, force)
    four = slopes(states + TICK * three, force)
    return states + TICK / 6 * (one + 2 * two + 2 * three + four)


def energy(states: np.ndarray) -> np.ndarray:
    """The pole's own energy in joules, about its hinge: 0 when it stands still and upright, lowest when it hangs."""
    return POLE * HALF * (2 / 3 * HALF * states[:, 3] ** 2 + GRAVITY * (np.cos(states[:, 2]) - 1))


def teacher(states: np.ndarray) -> np.ndarray:
    """Which of the three actions a rule made by hand takes: swing until the pole has the energy to stand, then hold it.

    The swing pushes with the pole as long as its energy is too low, against it when it is too high, and back to the
    middle of the track (Åström and Furuta 2000); within half a radian of upright it holds.
    """
    place, speed, angle, turning = states.T
    missing = energy(states)
    pump = np.sign(missing * np.cos(angle) * turning) * np.minimum(1, np.abs(missing) / 0.1)
    swing = FORCE * pump - 4 * place - 2 * speed
    hold = -np.column_stack([place, speed, _wrapped(angle), turning]) @ HOLD
    wanted = np.where(np.abs(_wrapped(angle)) < 0.5, hold, swing)
    return np.where(wanted > FORCE / 2, 2, np.where(wanted < -FORCE / 2, 0, 1))


def starts(count: int, generator: np.random.Generator) -> np.ndarray:
    """The pole hangs down, nearly still, the cart near the middle."""
    return generator.uniform([-0.5, -0.2, np.pi - 0.5, -0.5], [0.5, 0.2, np.pi + 0.5, 0.5], (count, 4))


def seen(states: np.ndarray) -> np.ndarray:
    """What a net is told: place, speed, cosine and sine of the angle, turning; all about 1 in size."""
    place, speed, angle, turning = states.T
    return np.column_stack([place, speed / 2, np.cos(angle), np.sin(angle), turning / 4])


def lessons(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """States and what the teacher does in them: half from near its own path, half from anywhere on the track."""
    path = attempt(teacher, starts(40, generator))[1].reshape(-1, 4)
    path = path[np.abs(path[:, 0]) < TRACK]
    near = path[generator.integers(0, len(path), count - count // 2)]
    near = near + generator.normal(0, [0.2, 0.3, 0.1, 0.3], near.shape)
    anywhere = generator.uniform([-TRACK, -3, -np.pi, -8], [TRACK, 3, np.pi, 8], (count // 2, 4))
    states = np.concatenate([near, anywhere])
    return states, teacher(states)


def attempt(policy: Callable[[np.ndarray], np.ndarray], states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the pole is up after each tick (ticks × attempts), and the states before each (ticks × attempts × 4).

    `policy` gives an action, 0 to 2, for each state. A cart that has left the track has lost: nothing counts after.
    """
    up, path, on_track = [], [], np.ones(len(states), dtype=bool)
    for _ in range(TICKS):
        path.append(states)
        # Who lost is left where it is: nobody asks about it any more.
        states = np.where(on_track[:, None], step(states, FORCE * (policy(states) - 1.0)), states)
        on_track = on_track & (np.abs(states[:, 0]) < TRACK)
        up.append(on_track & (np.abs(_wrapped(states[:, 2])) < UPRIGHT))
    return np.array(up), np.array(path)


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
