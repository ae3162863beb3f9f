"""What a round says of its holdout, and what the holdout can do to a round."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import round_handler
from client.round_handler import RoundHandler
from client.training.evaluation import predict
from common.evaluation import metrics
from tests.client.rounds import base_tensors, make_plan, make_site, no_test, signed


def test_one_image_that_overflows_stops_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal would stop the site, and tell that such an image is there."""

    def overflowing(*arguments: Any, **options: Any) -> Any:
        found = predict(*arguments, **options)
        found[3] = np.nan
        return found

    monkeypatch.setattr(round_handler, "predict", overflowing)
    site, base = make_site(tmp_path / "site"), base_tensors()
    handler = RoundHandler(site, self_test=no_test)
    reply = handler.handle(signed(make_plan(base=base)), base)
    assert reply.update is not None
    assert reply.evaluation is not None
    assert metrics(reply.evaluation).count == 8
