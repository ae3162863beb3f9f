"""Pseudonyms, and the side that follows from them."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cases.pseudonyms import Pseudonyms
from client.cases.splits import draw_split, parse_split
from common.errors import CaseRefused, ConfigurationError

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


def test_a_pseudonym_is_fixed_keyed_and_normalised() -> None:
    names = Pseudonyms(KEY)
    assert names.patient("P-1") == Pseudonyms(KEY).patient(" P-1 ")
    assert names.patient("P-1") != Pseudonyms(OTHER).patient("P-1")
    assert names.patient("P-1") != names.patient("P-2")
    assert names.patient("Mu\u0308ller") == names.patient("M\u00fcller")
    # Known answer: a change of the scheme would orphan every patient of every site.
    assert names.patient("P-1") == hmac.digest(KEY, b"patient\0P-1", "sha256").hex()


def test_uses_of_the_key_do_not_meet() -> None:
    names = Pseudonyms(KEY)
    assert len({names.patient("x"), names.unnamed("x"), names.key_check()}) == 3


@pytest.mark.parametrize("patient_id", ["", "   ", "x" * 257])
def test_empty_and_endless_ids_are_refused(patient_id: str) -> None:
    with pytest.raises(CaseRefused) as caught:
        Pseudonyms(KEY).patient(patient_id)
    assert caught.value.code == "patient-id"


@given(st.text(st.characters(categories=("L", "N", "P", "Z", "Cc", "Cs")), max_size=256))
def test_any_text_is_a_patient_id_or_is_refused(patient_id: str) -> None:
    try:
        key = Pseudonyms(KEY).patient(patient_id)
    except CaseRefused:
        return
    assert len(key) == 64


def test_the_key_file(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "pseudonyms"
    created = Pseudonyms.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Pseudonyms.read(path).patient("a") == created.patient("a")
    with pytest.raises(ConfigurationError):
        Pseudonyms.create(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Pseudonyms.read(path)


@pytest.mark.parametrize("content", [b"", b"00" * 31, b"zz" * 32, b"\xff" * 64])
def test_a_bad_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pseudonyms"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        Pseudonyms.read(path)


def test_the_share_held_out_is_as_asked() -> None:
    names = Pseudonyms(KEY)
    patients = [names.patient(str(n)) for n in range(4000)]
    for fraction in (0.0, 0.2, 0.9):
        held = sum(draw_split(p, names, fraction) == "holdout" for p in patients)
        assert abs(held / 4000 - fraction) < 0.03
    assert not any(draw_split(p, names, 0.0) == "holdout" for p in patients)


def test_the_side_depends_on_the_key() -> None:
    """Nobody without the key can tell, or arrange, who is held out."""
    sides = [
        [draw_split(Pseudonyms(key).patient(str(n)), Pseudonyms(key), 0.5) for n in range(200)]
        for key in (KEY, OTHER)
    ]
    assert 60 < sum(a != b for a, b in zip(*sides, strict=True)) < 140


def test_names_of_splits() -> None:
    assert parse_split("train") == parse_split(" Training ") == "train"
    for name in ("val", "valid", "validation", "test", "TEST", "holdout"):
        assert parse_split(name) == "holdout"
    assert parse_split(None) is parse_split("") is parse_split("  ") is None
    with pytest.raises(CaseRefused) as caught:
        parse_split("fold-3")
    assert caught.value.code == "split-unknown"
