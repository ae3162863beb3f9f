"""Each leak that the site's own code could make, by mistake or by malice, is held back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common.model import build_model, state_tensors
from common.records import Refusal, SiteReply
from common.refusals import SITE_REFUSALS
from common.update import ModelUpdate, Tensors
from common.wire import records_to_reply
from tests.client.outbox_rounds import PATIENT, Round, assert_held_back, audited
from tests.client.rounds import TOY


def whole_weights(r: Round, base: Tensors) -> SiteReply:
    tensors = {f"{n}.whole": a + base[n].astype(np.float32) for n, a in r.update.tensors.items()}
    return r.with_tensors(tensors)


def statistics(r: Round, base: Tensors) -> SiteReply:
    """A batch normalisation's running statistics, beside what was asked for."""
    recipe = TOY.model_copy(
        update={"model": TOY.model.model_copy(update={"architecture": "resnet18"})}
    )
    buffers = {
        n: np.asarray(a, dtype=np.float32)
        for n, a in state_tensors(build_model(recipe, pretrained=False)).items()
        if "running" in n
    }
    extra = buffers or {"bn1.running_mean": np.ones(4, dtype=np.float32)}
    return r.with_tensors({**r.update.tensors, **extra})


def extra_tensor(r: Round, base: Tensors) -> SiteReply:
    return r.with_tensors({**r.update.tensors, "patients": np.ones((9, 9), dtype=np.float32)})


def missing_tensor(r: Round, base: Tensors) -> SiteReply:
    return r.with_tensors(dict(list(r.update.tensors.items())[1:]))


def first_tensor(r: Round, change: Callable[[np.ndarray], np.ndarray]) -> SiteReply:  # type: ignore[type-arg]
    name, array = next(iter(r.update.tensors.items()))
    return r.with_tensors({**r.update.tensors, name: change(array.copy())})


def double(r: Round, base: Tensors) -> SiteReply:
    return first_tensor(r, lambda a: a.astype(np.float64))


def not_finite(r: Round, base: Tensors) -> SiteReply:
    def poison(array: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        array.flat[0] = np.nan
        return array

    return first_tensor(r, poison)


def other_shape(r: Round, base: Tensors) -> SiteReply:
    return first_tensor(r, lambda a: a.reshape(-1))


def no_receipt(r: Round, base: Tensors) -> SiteReply:
    return replace(r.reply, receipt=None)


def other_round(r: Round, base: Tensors) -> SiteReply:
    update = ModelUpdate(replace(r.update.binding, round=2), r.update.tensors)
    return replace(r.with_receipt(update_digest=update.digest), update=update)


def text_in_a_refusal(r: Round, base: Tensors) -> SiteReply:
    return SiteReply("north", refusal=Refusal.model_construct(code=PATIENT))


LEAKS = (
    whole_weights,
    statistics,
    extra_tensor,
    missing_tensor,
    double,
    not_finite,
    other_shape,
    no_receipt,
    other_round,
    lambda r, _: replace(r.reply, update=None),
    lambda r, _: replace(r.reply, site="jane-doe"),
    lambda r, _: replace(r.reply, refusal=Refusal(code="no-cases")),
    lambda r, _: r.with_receipt(update_digest="0" * 64),
    lambda r, _: r.with_receipt(campaign="other"),
    lambda r, _: r.with_receipt(nonce="0" * 64),
    lambda r, _: r.with_receipt(base_digest="0" * 64),
    lambda r, _: r.with_receipt(site="jane-doe"),
    lambda r, _: r.with_receipt(privacy_unit="none"),
    lambda r, _: r.with_receipt(epsilon_campaign=r.receipt.epsilon_campaign * 0.99),
    lambda r, _: r.with_receipt(epsilon_campaign=None),
    lambda r, _: r.with_receipt(epsilon_life=0.0),
    lambda r, _: r.with_receipt(delta=1e-9),
    lambda r, _: r.with_receipt(noise_multiplier=9.0),
    lambda r, _: r.with_receipt(max_grad_norm=0.1),
    lambda r, _: r.with_receipt(public_patients=24),  # the true number
    lambda r, _: r.with_receipt(seconds=12.3456789),
    lambda r, _: r.with_receipt(seconds=19980214.0 * 10),  # a date of birth, for a time
    lambda r, _: r.with_receipt(steps=1),
    lambda r, _: r.with_receipt(sampling_rate=0.123),
)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_held_back(
    trained: Round, base: Tensors, leak: Callable[[Round, Tensors], SiteReply]
) -> None:
    assert_held_back(trained, leak(trained, base))


def test_an_update_without_privacy_does_not_pass_as_private(trained: Round, bare: Round) -> None:
    receipt = trained.receipt.model_copy(
        update={k: getattr(bare.receipt, k) for k in ("campaign", "round", "nonce")}
    )
    assert_held_back(bare, replace(bare.reply, receipt=receipt))
    assert_held_back(trained, replace(trained.reply, receipt=bare.receipt))


@pytest.mark.parametrize("change", [{"epsilon_campaign": 1.0}, {"public_patients": 23}])
def test_a_receipt_without_privacy_claims_none(bare: Round, change: dict[str, object]) -> None:
    assert_held_back(bare, bare.with_receipt(**change))


def test_an_unknown_code_leaves_without_its_words(trained: Round) -> None:
    reply = SiteReply("north", refusal=Refusal.model_construct(code=PATIENT))
    records = trained.outbox.send(reply, trained.request)
    assert records_to_reply(records).refusal == Refusal(code="internal-error")
    assert "jane" not in str(records).lower()
    assert "jane" not in str(audited(trained.settings)).lower()
    records = trained.outbox.refuse("jane-doe", trained.request)
    assert records_to_reply(records).refusal == Refusal(code="internal-error")


@given(code=st.one_of(st.text(), st.from_regex(r"\A[a-z][a-z0-9-]{0,62}\Z")))
@hypothesis_settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_only_known_codes_leave(trained: Round, code: str) -> None:
    refusal = records_to_reply(trained.outbox.refuse(code, trained.request)).refusal
    assert refusal is not None
    assert refusal.code in SITE_REFUSALS
