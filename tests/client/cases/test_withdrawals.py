"""Whoever withdraws is gone, with every image that no other case uses, and does not come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cases import queries
from client.cases.store import CaseStore
from common.errors import CaseRefused, NotFound, StoreError
from tests.client.cases.adding import CLASSES, add, images_on_disk, refusal
from tests.client.stores import picture


def test_a_patient_who_withdraws_is_gone_and_does_not_come_back(
    store: CaseStore, tmp_path: Path
) -> None:
    gone = add(store, 1, patient_id="P", age=40, sex="f")
    kept = add(store, 2, patient_id="Q", split="train")
    shared = add(store, 1, patient_id="P", task="other")
    assert store.withdraw_patient("P") == 2
    assert store.withdraw_patient("P") == 0
    left = store.get(gone.id)
    assert (left.status, left.label, left.age_band, left.sex) == ("withdrawn", None, None, None)
    for case in (gone, shared):
        with pytest.raises(StoreError):
            store.image_bytes(case)
    assert store.image_bytes(kept) == picture(2)
    assert refusal(store, 1, patient_id="P").code == "case-withdrawn"
    assert refusal(store, 9, patient_id="P").code == "patient-withdrawn"
    with pytest.raises(CaseRefused):
        store.confirm(gone.id, "nv", classes=CLASSES)
    with pytest.raises(NotFound):
        store.withdraw_patient("nobody")
    assert images_on_disk(tmp_path / "site") == {kept.digest}


def test_one_withdrawn_case_leaves_the_others(store: CaseStore) -> None:
    wrong, right = add(store, 1, patient_id="P"), add(store, 2, patient_id="P")
    assert store.withdraw_case(wrong.id).status == "withdrawn"
    assert store.get(right.id) == right
    add(store, 3, patient_id="P")


def test_an_image_that_another_task_still_uses_is_kept(store: CaseStore) -> None:
    case = add(store, 1)
    other = add(store, 1, task="other")
    store.withdraw_case(case.id)
    assert store.image_bytes(other) == picture(1)


def test_of_many_cases_those_that_are_gone_are_told(
    store: CaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "AT_ONCE", 2)
    cases = [add(store, seed).id for seed in range(5)]
    store.withdraw_case(cases[1])
    store.withdraw_case(cases[4])
    assert store.gone([*cases, "never"]) == {cases[1], cases[4], "never"}
    assert store.gone([]) == set()
