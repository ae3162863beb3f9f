"""A round that fails or is killed spends what it reserved, and only its code leaves."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from client import round_handler
from client.privacy.accounting import Spend, epsilon
from client.privacy.ledger import PrivacyLedger
from client.round_handler import RoundHandler, refusal_code
from client.settings import SiteSettings
from common.errors import ModelError, PrivacyRefused
from common.signing import SigningKey
from common.update import Tensors
from tests.client.handled import answer, ledger_lines, refused
from tests.client.rounds import make_plan, make_site, signed


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site")


def test_no_policy_no_keys_no_training(site: SiteSettings, base: Tensors) -> None:
    forged = RoundHandler(site).handle(signed(make_plan(base=base), SigningKey.generate()), base)
    assert forged.refusal is not None
    assert forged.refusal.code == "plan-signature"
    other = {name: np.array(array) for name, array in base.items()}
    next(iter(other.values()))[...] += 1
    assert refused(site, make_plan(base=base), other) == "plan-base-mismatch"
    lacking = {name: base[name] for name in list(base)[1:]}
    assert refused(site, make_plan(base=lacking), lacking) == "model-mismatch"
    (site.folder / "policy.toml").unlink()
    assert refused(site, make_plan(base=base), base) == "policy-missing"
    assert ledger_lines(site) == []


def test_without_the_self_test_nothing_is_spent(site: SiteSettings, base: Tensors) -> None:
    def failing(*_: object, **__: object) -> None:
        raise PrivacyRefused("wrong", code="self-test-failed")

    reply = RoundHandler(site, self_test=failing).handle(signed(make_plan(base=base)), base)
    assert reply.refusal is not None
    assert reply.refusal.code == "self-test-failed"
    assert ledger_lines(site) == []


def test_an_exception_leaves_only_a_code(
    site: SiteSettings,
    base: Tensors,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("patient Jane Doe of ward 7")

    monkeypatch.setattr(round_handler, "train_private", fail)
    with caplog.at_level(logging.INFO):
        plan = make_plan(base=base)
        reply = answer(site, plan, base)
    assert reply.refusal is not None
    assert reply.refusal.code == "internal-error"
    assert "Jane" not in repr(reply)
    assert "Jane" not in caplog.text
    assert ledger_lines(site) == [("reserve", 1, None), ("outcome", 1, "internal-error")]
    monkeypatch.undo()
    assert refused(site, plan, base) == "plan-replayed"  # the failure stays spent


def test_codes_that_may_leave() -> None:
    assert refusal_code(ModelError("x", code="model-mismatch")) == "model-mismatch"
    assert refusal_code(ModelError("x", code="Jane Doe")) == "internal-error"
    assert refusal_code(KeyError("Jane Doe")) == "internal-error"
    assert refusal_code(MemoryError()) == "out-of-memory"
    assert refusal_code(torch.OutOfMemoryError("x")) == "out-of-memory"


def test_killed_between_reserve_and_training(
    tmp_path: Path, database_url: str, base: Tensors
) -> None:
    """A real process, killed with -9 in its training: the round stays spent, and used up."""
    site = make_site(tmp_path / "site", patients=4, holdout=0, database_url=database_url)
    plan = make_plan(base=base)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    script = f"""
        import sys, time
        from pathlib import Path
        from client import round_handler
        from client.settings import SiteSettings
        from common.plan import RoundPlan
        from common.signing import SigningKey
        from tests.client.rounds import TOY, base_tensors, signed
        def train(*_, **__):
            print("training", flush=True)
            sys.stdin.read()
        round_handler.train_private = train
        plan = RoundPlan.model_validate_json(Path({str(tmp_path / "plan.json")!r}).read_bytes())
        key = SigningKey.read(Path({str(tmp_path / "key.pem")!r}))
        site = SiteSettings.read(Path({str(site.folder)!r}))
        handler = round_handler.RoundHandler(site, self_test=lambda *a, **k: None)
        print(handler.handle(signed(plan, key), base_tensors()), flush=True)
    """
    key = SigningKey.generate()
    (tmp_path / "key.pem").write_bytes(key.pem())
    (site.trust / "plan-keys" / "2.pem").write_bytes(key.verify_key.pem())
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "training\n"
    with PrivacyLedger.open(site) as ledger:
        during = ledger.entries()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    with PrivacyLedger.open(site) as ledger:
        assert ledger.verify_chain() == 1
        assert ledger.entries() == during
        line = during[0]
        spend = Spend(line.noise_multiplier, line.sampling_rate, line.steps)
        recomputed = epsilon([spend], 1e-5, kind="prv")
        assert ledger.spent(1e-5, kind="prv").life == pytest.approx(recomputed)
        assert recomputed > 0
        before = ledger.spent(1e-5).life
    assert refused(site, plan, base) == "plan-replayed"
    fresh = make_plan(base=base)  # the same round under another nonce
    assert refused(site, fresh, base) == "plan-replayed"
    reply = answer(site, make_plan(round=2, base=base), base)
    assert reply.receipt is not None
    assert before < (reply.receipt.epsilon_campaign or 0) <= 8.0
