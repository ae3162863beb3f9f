"""Updates of one tensor, spooled and aggregated."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.recipe import AggregationSpec
from server.rounds.aggregation import Aggregate, aggregate
from server.rounds.aggregation_spool import BLOCK_BYTES, UpdateSpool

NAMES = ("mean", "median", "trimmed-mean", "krum", "near-median", "descent")
values = arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32))


def spec(name: str = "mean", **fields: object) -> AggregationSpec:
    """Without a bound, unless one is asked for: what is tested is the aggregator alone."""
    return AggregationSpec.model_validate({"name": name, "norm_multiple": 0} | fields)


@contextmanager
def spool(
    shapes: Mapping[str, tuple[int, ...]], *, block_bytes: int = BLOCK_BYTES
) -> Iterator[UpdateSpool]:
    """An empty spool in a folder of its own: Hypothesis has one fixture for all its examples."""
    with (
        TemporaryDirectory() as folder,
        UpdateSpool(Path(folder), shapes, block_bytes=block_bytes) as opened,
    ):
        yield opened


def spooled(
    rows: Sequence[np.ndarray],
    chosen: AggregationSpec,
    *,
    weights: Sequence[float] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Aggregate:
    """Aggregate updates of one tensor ``w``; site ``s000`` sent the first."""
    with spool({"w": rows[0].shape}, block_bytes=block_bytes) as opened:
        for index, row in enumerate(rows):
            weight = 1.0 if weights is None else weights[index]
            norm = float(np.linalg.norm(row.astype(np.float64)))
            opened.add(f"s{index:03d}", {"w": row}, weight=weight, norm=norm)
        return aggregate(opened, chosen)


def line(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float32)
