"""How far work is: shares of nested parts, nobody listening, stopping, generators that are left early."""

import numpy as np
import pytest

import neuralmine as nm
from neuralmine.progress import Stopped, heard, over


def shares(work):
    said = []
    with heard(lambda done, words: said.append((done, words))):
        work()
    return said


def test_each_part_fills_its_share():
    def work():
        for _ in over(range(4), "layer", until=0.5):
            for _ in over("ab", "step"):
                pass
        for _ in over("abcd", "check"):
            pass

    done = [share for share, _ in shares(work)]
    assert done == sorted(done)
    assert done[-1] == 1
    starts = [share for share, words in shares(work) if words.startswith("check")]
    assert starts == pytest.approx([0.5, 0.625, 0.75, 0.875])
    assert [w for _, w in shares(work)][1:3] == ["layer 1 of 4, step 1 of 2", "layer 1 of 4, step 2 of 2"]


def test_without_a_listener_it_only_iterates():
    assert list(over((3, 1, 2), "number")) == [3, 1, 2]


def test_a_listener_can_call_the_work_off():
    seen = []

    def hear(done, words):
        if done >= 0.5:
            raise Stopped("Enough.")

    with heard(hear), pytest.raises(Stopped):
        seen.extend(over(range(10), "item"))
    assert seen == [0, 1, 2, 3, 4]


def test_a_generator_left_early_does_not_speak_to_the_next_listener():
    def work():
        yield from over(range(3), "item")

    left = work()
    with heard(lambda *_: None):
        next(left)
    said = shares(lambda: (left.close(), list(over("ab", "letter"))))
    assert [words for _, words in said] == ["letter 1 of 2", "letter 2 of 2", ""]


def test_a_lens_says_how_far_it_is():
    image = nm.datasets.load("digits").images[201]
    said = shares(lambda: nm.look("occlusion", nm.load("digits"), image, window=2, stride=2, evidence=False))
    assert len(said) > 2
    assert "squares" in said[0][1]
    assert np.all(np.diff([done for done, _ in said]) >= 0)
