import stat
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from client import update_feedback
from client.settings import SiteSettings
from client.update_feedback import forget_feedback
from common.compression import Compression
from common.plan import RoundPlan
from common.recipe import Recipe
from common.update import ModelUpdate, UpdateBinding
from tests.plans import make_plan

Floats = dict[str, NDArray[np.float32]]
compress_update = partial(update_feedback.compress_update, withdrawn=0)


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return cast(SiteSettings, SimpleNamespace(data=tmp_path))


def plan_of(
    number: int,
    *,
    campaign: str = "c",
    kind: Compression = "int8",
    epsilon: float | None = 8.0,
) -> RoundPlan:
    plan = make_plan(base={}, epsilon=epsilon)
    spec = plan.recipe.federation.model_copy(update={"compression": kind})
    recipe: Recipe = plan.recipe.model_copy(update={"federation": spec})
    changes = {"recipe": recipe, "round": number, "rounds": 9, "campaign": campaign}
    return plan.model_copy(update=changes)


def update_of(plan: RoundPlan, tensors: Floats) -> ModelUpdate:
    return ModelUpdate(
        UpdateBinding(plan.campaign, plan.round, plan.nonce, plan.base_digest), tensors
    )


def noised(seed: int = 0, size: int = 50) -> Floats:
    return {"w": np.random.default_rng(seed).normal(size=size).astype(np.float32)}


def left(site: SiteSettings) -> Floats | None:
    path = site.data / "update-feedback.safetensors"
    return load_file(path) if path.is_file() else None


def test_the_memory_is_what_the_finished_update_was_more_than_what_was_sent(
    site: SiteSettings,
) -> None:
    """Nothing but the update goes in, so under privacy it is post-processing of noised values."""
    plan, update = plan_of(1), noised()
    sent = compress_update(site, plan, update_of(plan, update))
    found = left(site)
    assert found is not None
    np.testing.assert_array_equal(found["w"], update["w"] - sent.tensors["w"])
    mode = (site.data / "update-feedback.safetensors").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_the_next_round_adds_it(site: SiteSettings) -> None:
    first, second = plan_of(1), plan_of(2)
    compress_update(site, first, update_of(first, noised(1)))
    before = left(site)
    assert before is not None
    sent = compress_update(site, second, update_of(second, noised(2)))
    after = left(site)
    assert after is not None
    total = noised(2)["w"] + before["w"]
    np.testing.assert_allclose(sent.tensors["w"] + after["w"], total, atol=1e-6)


def test_a_lost_reply_leaves_the_memory_whole(site: SiteSettings) -> None:
    """Rounds 2 and 3 are never aggregated: what is left over is still only that of rounding."""
    for number in (1, 2, 3, 4):
        plan = plan_of(number)
        compress_update(site, plan, update_of(plan, noised(number)))
    found = left(site)
    assert found is not None
    assert np.abs(found["w"]).max() < 4 / 127


@pytest.mark.parametrize(
    "other",
    [plan_of(2, campaign="d"), plan_of(1), plan_of(2, kind="fp16")],
    ids=["another campaign", "an earlier or the same round", "another compression"],
)
def test_a_memory_of_something_else_is_not_used(site: SiteSettings, other: RoundPlan) -> None:
    first = plan_of(1)
    compress_update(site, first, update_of(first, noised(1)))
    fresh = cast(SiteSettings, SimpleNamespace(data=site.data / "fresh"))
    fresh.data.mkdir()
    one = compress_update(site, other, update_of(other, noised(2)))
    two = compress_update(fresh, other, update_of(other, noised(2)))
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("first", "second", "used"),
    [(None, 8.0, False), (None, None, True), (8.0, 8.0, True), (8.0, None, True)],
)
def test_what_was_not_noised_is_added_to_no_round_with_privacy(
    site: SiteSettings, first: float | None, second: float | None, used: bool
) -> None:
    """Of 50 values ``top-k`` keeps two: the memory is nearly the whole bare update."""
    one, two = plan_of(1, kind="top-k", epsilon=first), plan_of(2, kind="top-k", epsilon=second)
    compress_update(site, one, update_of(one, noised(1)))
    sent = compress_update(site, two, update_of(two, {"w": np.zeros(50, dtype=np.float32)}))
    assert bool(sent.tensors["w"].any()) == used


def test_another_shape_or_a_damaged_file_is_dropped(site: SiteSettings) -> None:
    for spoil in (b"", b"x" * 40):
        first, second = plan_of(1), plan_of(2)
        compress_update(site, first, update_of(first, noised(1)))
        if spoil:
            (site.data / "update-feedback.safetensors").write_bytes(spoil)
        sent = compress_update(site, second, update_of(second, noised(2, size=7)))
        assert np.abs(sent.tensors["w"] - noised(2, size=7)["w"]).max() < 4 / 127


def test_the_last_round_and_a_withdrawal_remove_it(site: SiteSettings) -> None:
    for number in (8, 9):
        plan = plan_of(number)
        compress_update(site, plan, update_of(plan, noised()))
        assert (left(site) is not None) == (number == 8)
    plan = plan_of(3)
    compress_update(site, plan, update_of(plan, noised()))
    forget_feedback(site)
    forget_feedback(site)
    assert left(site) is None


def test_without_compression_nothing_is_written(site: SiteSettings) -> None:
    plan = plan_of(1, kind="none")
    update = update_of(plan, noised())
    assert compress_update(site, plan, update) is update
    assert left(site) is None


def test_a_campaign_without_compression_removes_what_another_left(site: SiteSettings) -> None:
    compressed, plan = plan_of(1), plan_of(1, campaign="d", kind="none")
    compress_update(site, compressed, update_of(compressed, noised()))
    assert left(site) is not None
    compress_update(site, plan, update_of(plan, noised()))
    assert left(site) is None
