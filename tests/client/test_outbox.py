"""Whatever the site's own code makes, only what policy, memory and ledger allow leaves."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from client import pause as switch
from client.audit import open_site_audit
from client.outbox import Opened, Outbox
from client.outbox_checks import Grounds, check_reply
from client.policy import SitePolicy
from client.privacy.ledger import PrivacyLedger
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from common.audit_chain import verify
from common.audit_entries import Entry, Left, PlanDeclined, PolicyChanged
from common.errors import PrivacyRefused, StoreError
from common.evaluation import SiteEvaluation, evaluate_predictions
from common.model import build_model, state_tensors
from common.plan import RoundPlan
from common.records import Forecast, Receipt, Refusal, SiteReply
from common.refusals import SITE_REFUSALS
from common.signing import SigningKey
from common.update import ModelUpdate, Tensors
from common.wire import content_of, records_to_reply
from tests.client.rounds import TOY, base_tensors, make_plan, make_site, signed

PATIENT = "Jane Doe, born 1 April 1961"


def no_test(*_: object, **__: object) -> None:
    """Stands in for the gradient self-test, which has tests of its own."""


@dataclass(frozen=True)
class Round:
    """One honest round at one site, whose reply has not left yet."""

    settings: SiteSettings
    outbox: Outbox
    plan: RoundPlan
    request: Opened
    reply: SiteReply

    @property
    def update(self) -> ModelUpdate:
        assert self.reply.update is not None
        return self.reply.update

    @property
    def receipt(self) -> Receipt:
        assert self.reply.receipt is not None
        return self.reply.receipt

    def sent(self, reply: SiteReply) -> SiteReply:
        return records_to_reply(self.outbox.send(reply, self.request))

    def with_tensors(self, tensors: dict[str, np.ndarray]) -> SiteReply:  # type: ignore[type-arg]
        """The reply with other tensors, whose receipt agrees with them."""
        update = ModelUpdate(self.update.binding, tensors)
        receipt = self.receipt.model_copy(update={"update_digest": update.digest})
        return replace(self.reply, update=update, receipt=receipt)

    def with_receipt(self, **changes: object) -> SiteReply:
        return replace(self.reply, receipt=self.receipt.model_copy(update=changes))


def begin(settings: SiteSettings, outbox: Outbox, plan: RoundPlan, base: Tensors) -> Round:
    request = outbox.opened(signed(plan), base)
    reply = RoundHandler(settings, self_test=no_test).handle(signed(plan), base)
    return Round(settings, outbox, plan, request, reply)


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    return make_site(tmp_path_factory.mktemp("outbox") / "site", allow_without_privacy=True)


@pytest.fixture(scope="module")
def outbox(site: SiteSettings) -> Iterator[Outbox]:
    with Outbox.open(site) as outbox:
        yield outbox


@pytest.fixture(scope="module")
def trained(site: SiteSettings, outbox: Outbox, base: Tensors) -> Round:
    return begin(site, outbox, make_plan(base=base, campaign="private"), base)


@pytest.fixture(scope="module")
def bare(trained: Round, site: SiteSettings, outbox: Outbox, base: Tensors) -> Round:
    plan = make_plan(base=base, campaign="bare", epsilon=None)
    return begin(site, outbox, plan, base)


@pytest.fixture(scope="module")
def scored(trained: Round, site: SiteSettings, outbox: Outbox, base: Tensors) -> Round:
    return begin(site, outbox, make_plan(base=base, campaign="score", purpose="evaluate"), base)


@pytest.fixture(scope="module")
def forecast(trained: Round, site: SiteSettings, outbox: Outbox) -> Round:
    plan = make_plan(campaign="preflight", purpose="preflight")
    return begin(site, outbox, plan, {})


def audited(settings: SiteSettings) -> list[Entry]:
    with open_site_audit(settings) as log:
        assert verify(log) == ()
        return [line.entry() for line in log.lines()]


def assert_held_back(round_: Round, reply: SiteReply) -> None:
    assert round_.sent(reply) == SiteReply("north", refusal=Refusal(code="outbox-refused"))
    newest = audited(round_.settings)[-1]
    assert isinstance(newest, Left)
    assert (newest.contents, newest.code) == (("refusal",), "outbox-refused")


@pytest.mark.parametrize("which", ["trained", "bare", "scored", "forecast"])
def test_honest_replies_leave_and_are_written_down(
    request: pytest.FixtureRequest, which: str
) -> None:
    honest = cast(Round, request.getfixturevalue(which))
    records = honest.outbox.send(honest.reply, honest.request)
    assert honest.reply.refusal is None
    assert records_to_reply(records).receipt == honest.reply.receipt
    content = content_of(records)
    entry = audited(honest.settings)[-1]
    assert isinstance(entry, Left)
    assert (entry.bytes, entry.sha256) == (content.bytes, content.sha256)
    assert (entry.campaign, entry.nonce) == (honest.plan.campaign, honest.plan.nonce)
    assert entry.destination == honest.settings.superlink
    if honest.reply.receipt is not None:
        assert entry.update_digest == honest.receipt.update_digest
        assert entry.epsilon_campaign == honest.receipt.epsilon_campaign
        assert entry.epsilon_life == honest.receipt.epsilon_life


def test_acceptance_is_written_down_before_training(trained: Round) -> None:
    kinds = [entry.kind for entry in audited(trained.settings)]
    assert kinds[:2] == ["policy-changed", "plan-accepted"]


# Each leak that the site's own code could make, by mistake or by malice.


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


def test_a_reply_to_another_plan_is_held_back(trained: Round, scored: Round) -> None:
    assert_held_back(scored, trained.reply)
    assert_held_back(trained, scored.reply)


def test_an_unknown_code_leaves_without_its_words(trained: Round, site: SiteSettings) -> None:
    reply = SiteReply("north", refusal=Refusal.model_construct(code=PATIENT))
    records = trained.outbox.send(reply, trained.request)
    assert records_to_reply(records).refusal == Refusal(code="internal-error")
    assert "jane" not in str(records).lower()
    assert "jane" not in str(audited(site)).lower()
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


def counts(minimum: int, cases: int = 40, classes: tuple[str, ...] = TOY.classes) -> SiteEvaluation:
    labels = np.arange(cases) % 2
    scores = np.linspace(0.01, 0.99, cases)
    return evaluate_predictions(
        np.stack([1 - scores, scores], axis=1), labels, classes, minimum_cell=minimum
    )


@pytest.mark.parametrize(
    "evaluation",
    [
        counts(1),
        counts(1).model_copy(update={"minimum_cell": 2}),  # it says so, but is not
        counts(2, classes=("jane", "doe")),
    ],
)
def test_counts_that_the_policy_does_not_release_are_held_back(
    scored: Round, evaluation: SiteEvaluation
) -> None:
    assert_held_back(scored, replace(scored.reply, evaluation=evaluation))


def test_counts_do_not_ride_along_unasked(
    site: SiteSettings, outbox: Outbox, base: Tensors, trained: Round
) -> None:
    plan = make_plan(base=base, campaign="unscored", evaluate=False)
    quiet = begin(site, outbox, plan, base)
    assert quiet.reply.evaluation is None
    assert_held_back(quiet, replace(quiet.reply, evaluation=counts(2)))


FORECAST_CHANGES: tuple[dict[str, object], ...] = (
    {"site": "jane-doe"},
    {"campaign": "other"},
    {"nonce": "0" * 64},
    {"rounds": 2},
    {"epsilon_life": 0.0},
    {"delta": 0.5},
    {"code": "jane-doe", "affordable": False},
    {"affordable": False},
)


@pytest.mark.parametrize("change", FORECAST_CHANGES)
def test_a_forecast_tells_no_more_than_asked(forecast: Round, change: dict[str, object]) -> None:
    told = forecast.reply.forecast
    assert isinstance(told, Forecast)
    wrong = told.model_copy(update=change)
    assert_held_back(forecast, replace(forecast.reply, forecast=wrong))


def test_a_forecast_does_not_carry_counts(forecast: Round) -> None:
    assert_held_back(forecast, replace(forecast.reply, evaluation=counts(2)))


def test_a_forecast_is_no_answer_to_a_round(trained: Round, forecast: Round) -> None:
    assert_held_back(trained, forecast.reply)
    assert_held_back(forecast, trained.reply)


def change_policy(site: SiteSettings, **fields: object) -> None:
    policy = SitePolicy.read(site.policy).model_dump(mode="json", exclude_none=True) | fields
    site.policy.write_text(tomli_w.dumps(policy))


@pytest.mark.parametrize(
    "change",
    [
        {"paused": True},
        {"allowed_recipes": []},
        {"minimum_cell": 30},
        {"release_evaluation": False},
        {"declared_patients": 30},
        {"max_grad_norm": 0.01},
        {"min_noise_multiplier": 99.0},
    ],
)
def test_a_policy_that_changes_during_a_round_decides(
    trained: Round, site: SiteSettings, change: dict[str, object]
) -> None:
    before = site.policy.read_bytes()
    try:
        change_policy(site, **change)
        assert_held_back(trained, trained.reply)
        with Outbox.open(site):
            assert isinstance(audited(site)[-1], PolicyChanged)
    finally:
        site.policy.write_bytes(before)
    assert trained.sent(trained.reply).update is not None


def test_a_pause_during_a_round_holds_its_update_back(trained: Round, site: SiteSettings) -> None:
    switch.pause(site, by="anna")
    try:
        assert_held_back(trained, trained.reply)
    finally:
        switch.resume(site, by="anna")
    assert trained.sent(trained.reply).update is not None


def test_nothing_but_a_refusal_answers_an_unsigned_plan(
    trained: Round, site: SiteSettings, base: Tensors
) -> None:
    forged = trained.outbox.opened(signed(trained.plan, SigningKey.generate()), base)
    assert forged.signed_plan is None
    for request in (forged, Opened.now(), replace(trained.request, valid=False)):
        assert_held_back(replace(trained, request=request), trained.reply)
    trained.outbox.refuse("plan-signature", forged)
    declined = audited(site)[-2]
    assert declined == PlanDeclined(code="plan-signature")


def test_an_expired_plan_is_named_in_the_log(
    trained: Round, site: SiteSettings, base: Tensors
) -> None:
    with PrivacyLedger.open(site) as ledger:
        late = Outbox(site, ledger, clock=lambda: time.time() + 10_000)
        request = late.opened(signed(trained.plan), base)
        assert not request.valid
        late.refuse("plan-expired", request)
        assert_held_back(replace(trained, outbox=late, request=request), trained.reply)
    entry = audited(site)[-4]
    assert entry == PlanDeclined(
        code="plan-expired", campaign="private", round=1, nonce=trained.plan.nonce
    )


def test_a_plan_that_the_site_never_accepted_is_not_answered(
    trained: Round, site: SiteSettings, outbox: Outbox, base: Tensors
) -> None:
    plan = make_plan(base=base, campaign="private", round=2)
    request = outbox.opened(signed(plan), base)
    receipt = trained.receipt.model_copy(update={"round": 2, "nonce": plan.nonce})
    update = ModelUpdate(
        replace(trained.update.binding, round=2, nonce=plan.nonce), trained.update.tensors
    )
    receipt = receipt.model_copy(update={"update_digest": update.digest})
    forged = SiteReply("north", receipt=receipt, update=update)
    assert_held_back(Round(site, outbox, plan, request, trained.reply), forged)


def test_a_ledger_that_was_cut_lets_nothing_out(tmp_path: Path, base: Tensors) -> None:
    site = make_site(tmp_path / "site", patients=4, holdout=0)
    with Outbox.open(site) as outbox:
        done = begin(site, outbox, make_plan(base=base), base)
        (site.data / "ledger-head.json").write_text('{"sequence": 9, "digest": "%s"}' % ("0" * 64))
        assert_held_back(done, done.reply)


@pytest.mark.parametrize("which", ["trained", "scored", "forecast"])
def test_an_exception_in_the_outbox_itself_leaks_nothing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(PATIENT)

    round_ = cast(Round, request.getfixturevalue(which))
    monkeypatch.setattr("client.outbox.check_reply", fail)
    assert_held_back(round_, round_.reply)


def test_without_the_log_nothing_is_given_out(tmp_path: Path, base: Tensors) -> None:
    site = make_site(tmp_path / "site", patients=4, holdout=0)
    with Outbox.open(site) as outbox:
        done = begin(site, outbox, make_plan(base=base, evaluate=False), base)
        (site.data / "audit-head.json").write_text("{}")
        for send in (
            lambda: outbox.send(done.reply, done.request),
            lambda: outbox.refuse("no-cases", done.request),
            outbox.describe,
        ):
            with pytest.raises(StoreError):
                send()


def _send_for_ever(settings: SiteSettings, out: Path) -> None:
    with Outbox.open(settings) as outbox, out.open("ab", buffering=0) as sent:
        while True:
            records = outbox.describe()
            sent.write(content_of(records).sha256.encode() + b"\n")


def test_killed_at_any_moment_nothing_left_unwritten(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=0, holdout=0)
    out = tmp_path / "sent"
    out.touch()
    context = multiprocessing.get_context("fork")
    for pause in (0.0, 0.013, 0.031, 0.002):
        before = out.stat().st_size
        process = context.Process(target=_send_for_ever, args=(site, out))
        process.start()
        assert process.pid is not None
        deadline = time.monotonic() + 30
        while out.stat().st_size == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    sent = out.read_bytes().splitlines()
    written = [entry for entry in audited(site) if isinstance(entry, Left)]
    assert len(sent) >= 4
    assert len(sent) <= len(written) <= len(sent) + 4


@pytest.fixture
def grounds(trained: Round, monkeypatch: pytest.MonkeyPatch) -> Grounds:
    """On what the outbox judged an honest reply."""
    seen: list[Grounds] = []
    monkeypatch.setattr("client.outbox.check_reply", lambda _, grounds: seen.append(grounds))
    trained.outbox.send(trained.reply, trained.request)
    return seen[0]


def without_line(grounds: Grounds, kind: str) -> Grounds:
    own = grounds.plan.nonce
    kept = [line for line in grounds.lines if not (line.nonce == own and line.kind == kind)]
    return replace(grounds, lines=kept)


def with_line(grounds: Grounds, kind: str, **changes: object) -> Grounds:
    own = grounds.plan.nonce
    lines = [
        replace(line, **changes) if line.nonce == own and line.kind == kind else line  # type: ignore[arg-type]
        for line in grounds.lines
    ]
    return replace(grounds, lines=lines)


def with_policy(grounds: Grounds, **changes: object) -> Grounds:
    return replace(grounds, policy=grounds.policy.model_copy(update=changes))


def with_memory(grounds: Grounds, **changes: object) -> Grounds:
    assert grounds.memory is not None
    return replace(grounds, memory=replace(grounds.memory, **changes))  # type: ignore[arg-type]


GROUNDS: tuple[tuple[str, Callable[[Grounds], Grounds]], ...] = (
    ("plan-not-accepted", lambda g: replace(g, memory=None)),
    ("plan-not-accepted", lambda g: with_memory(g, campaign="other")),
    ("plan-not-accepted", lambda g: with_memory(g, purpose="evaluate")),
    ("update-unreserved", lambda g: without_line(g, "reserve")),
    ("update-unreserved", lambda g: without_line(g, "outcome")),
    ("update-unreserved", lambda g: with_line(g, "reserve", campaign="other")),
    ("update-untrained", lambda g: with_line(g, "outcome", outcome="internal-error")),
    ("update-unnoised", lambda g: with_line(g, "reserve", noise_multiplier=0.0)),
    ("receipt-noise", lambda g: with_line(g, "reserve", noise_multiplier=0.6)),
    ("receipt-epsilon", lambda g: with_line(g, "reserve", steps=2, sampling_rate=0.9)),
    ("receipt-noise", lambda g: with_policy(g, min_noise_multiplier=90.0)),
    ("receipt-noise", lambda g: with_policy(g, max_grad_norm=0.01)),
    ("receipt-delta", lambda g: with_policy(g, delta=1e-6)),
    ("evaluation-not-released", lambda g: with_policy(g, release_evaluation=False)),
    ("evaluation-unasked", lambda g: with_memory(g, scores=False)),
    ("evaluation-cell", lambda g: with_policy(g, minimum_cell=11)),
    ("update-names", lambda g: replace(g, trainable={})),
    ("site-name", lambda g: replace(g, site="south")),
)


@pytest.mark.parametrize(("rule", "change"), GROUNDS)
def test_each_ground_counts(
    trained: Round, grounds: Grounds, rule: str, change: Callable[[Grounds], Grounds]
) -> None:
    check_reply(trained.reply, grounds)
    with pytest.raises(PrivacyRefused, match=rf"\({rule}\)") as caught:
        check_reply(trained.reply, change(grounds))
    assert caught.value.code == "outbox-refused"


def test_a_round_on_either_database(tmp_path: Path, database_url: str, base: Tensors) -> None:
    site = make_site(
        tmp_path / "site", patients=4, holdout=4, minimum_cell=1, database_url=database_url
    )
    with Outbox.open(site) as outbox:
        done = begin(site, outbox, make_plan(base=base), base)
        assert done.sent(done.reply).update is not None
        done.outbox.refuse("no-cases", done.request)
    assert [e.kind for e in audited(site)] == [
        *("policy-changed", "plan-accepted", "left"),
        *("plan-refused", "left"),
    ]
