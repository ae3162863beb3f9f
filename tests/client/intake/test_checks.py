"""Look-alikes across the split, and names that give the label away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.cases.store import CaseStore
from client.intake.checks import NamedLabel, count_near_duplicates, label_leaks
from client.intake.importer import import_cases
from tests.client.intake.sources import RECIPE, warning_codes, write_csv


def _lesion(seed: int) -> Image.Image:
    """Noise on every scale, as natural images have it."""
    rng, sum_ = np.random.default_rng(seed), np.zeros((96, 96, 3))
    for side in (4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        sum_ += np.asarray(noise.resize((96, 96), Image.Resampling.BICUBIC))
    return Image.fromarray((sum_ / 4).astype(np.uint8))


def test_look_alikes_across_the_split_are_counted(store: CaseStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for seed in range(12):
        _lesion(seed).save(data / f"{seed}.png")
    _lesion(0).resize((80, 80)).save(data / "copy.jpg", quality=60)
    rows = [f"{seed}.png,{'nv' if seed % 2 else 'mel'},train" for seed in range(6)]
    rows += [f"{seed}.png,{'nv' if seed % 2 else 'mel'},test" for seed in range(6, 12)]
    before = import_cases(store, RECIPE, write_csv(data, "file,label,split", *rows))
    assert before.near_duplicates == 0
    after = import_cases(
        store, RECIPE, write_csv(data, "file,label,split", *rows, "copy.jpg,mel,test")
    )
    assert after.near_duplicates == 1
    assert "near-duplicates" in warning_codes(after)


def test_too_many_pairs_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = ["0" * 64, "f" * 64]
    assert count_near_duplicates(hashes, hashes) == 2
    monkeypatch.setattr("client.intake.checks._MAXIMUM_PAIRS", 3)
    assert count_near_duplicates(hashes, hashes) is None
    assert count_near_duplicates([], hashes) == 0


def _labelled(count: int, file: str, patient: str | None) -> list[NamedLabel]:
    return [
        NamedLabel(
            label := "mel" if n * 3 < count else "nv",
            file.format(n=n, label=label),
            patient.format(n=n) if patient else None,
        )
        for n in range(count)
    ]


def test_labels_that_a_name_predicts_are_told() -> None:
    (words,) = label_leaks(_labelled(90, "{label} (1).png", None))
    assert "words of the file name" in words
    (patients,) = label_leaks(_labelled(300, "x.png", "MRN{n}"))
    assert "patient number" in patients
    (numbers,) = label_leaks(_labelled(300, "a/IMG_{n}.png", None))
    assert "number in the file name" in numbers


def test_names_that_say_nothing_are_not_told() -> None:
    rng = np.random.default_rng(0)
    rows = [
        NamedLabel("mel" if rng.random() < 0.3 else "nv", f"ISIC_{n}.jpg", f"P{n}")
        for n in range(400)
    ]
    assert label_leaks(rows) == []
    assert label_leaks(rows[:10]) == []
    unique = [
        NamedLabel(r.label, f"{chr(97 + n % 26)}{chr(97 + n // 26)}x.png", None)
        for n, r in enumerate(rows[:200])
    ]
    assert label_leaks(unique) == []
