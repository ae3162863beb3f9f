"""How far each update lies from the aggregate."""

import numpy as np
import pytest

from tests.server.rounds.spooling import line, spec, spooled


def test_how_far_updates_lie_apart() -> None:
    rows = [line(1, 0), line(1, 0.1), line(1, -0.1), line(-10, 0)]
    found = spooled(rows, spec("median")).deviations
    liar = found["s003"]
    assert liar.cosine == pytest.approx(-1, abs=1e-3)
    assert liar.distance is not None
    assert liar.distance > 50
    assert found["s000"].cosine == pytest.approx(1, abs=1e-3)


def test_figures_that_cannot_be_had_are_none() -> None:
    same = spooled([line(0, 0)] * 3, spec("mean")).deviations["s000"]
    assert (same.cosine, same.distance) == (None, None)
    broken = spooled([line(np.nan, 0), line(1, 1), line(1, 2)], spec("mean")).deviations["s000"]
    assert (broken.cosine, broken.distance) == (None, None)
