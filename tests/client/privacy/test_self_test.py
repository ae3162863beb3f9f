import json
from pathlib import Path

import pytest

from client.privacy import self_test
from client.privacy.self_test import ensure_gradients
from common.errors import PrivacyRefused
from common.gradient_check import GradientCheck
from tests.client.rounds import TOY


class Check:
    """Counts the tests; fails on request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    def __call__(self, recipe: object, *, trainable: str) -> GradientCheck:
        self.asked.append(trainable)
        if self.broken:
            raise PrivacyRefused("wrong", code="self-test-failed")
        return GradientCheck("toy", 0.0, 0.0, 0.0, 0.0)


def test_one_proof_is_enough_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, proofs = Check(), tmp_path / "data" / "selftest.json"
    for _ in range(2):
        ensure_gradients(TOY, trainable="all", proofs=proofs, check=check)
    assert check.asked == ["all"]
    ensure_gradients(TOY, trainable="head", proofs=proofs, check=check)
    other = TOY.with_changes(model="test_vit")
    ensure_gradients(other, trainable="all", proofs=proofs, check=check)
    monkeypatch.setattr(self_test, "version", lambda name: "another")
    ensure_gradients(TOY, trainable="all", proofs=proofs, check=check)
    assert check.asked == ["all", "head", "all", "all"]
    assert len(json.loads(proofs.read_text())) == 4


def test_a_failure_leaves_no_proof(tmp_path: Path) -> None:
    check, proofs = Check(), tmp_path / "selftest.json"
    check.broken = True
    for _ in range(2):
        with pytest.raises(PrivacyRefused):
            ensure_gradients(TOY, trainable="all", proofs=proofs, check=check)
    assert len(check.asked) == 2
    assert not proofs.exists()


def test_a_damaged_proof_proves_nothing(tmp_path: Path) -> None:
    check, proofs = Check(), tmp_path / "selftest.json"
    proofs.write_text("[]")
    ensure_gradients(TOY, trainable="all", proofs=proofs, check=check)
    assert check.asked == ["all"]


def test_the_real_check_passes(tmp_path: Path) -> None:
    ensure_gradients(TOY, trainable="all", proofs=tmp_path / "selftest.json")
    assert (tmp_path / "selftest.json").exists()
