"""MedMNIST-layout npz files, whole, wrong and damaged."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from client.cases.store import CaseStore
from client.intake.importer import import_cases
from client.intake.source import ImportSource
from common.errors import InputRefused
from tests.client.intake.sources import RECIPE, adds_up, suppress_refusal, warning_codes
from tests.client.stores import TASK


def write_npz(path: Path, *, count: int = 6, **changes: object) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, object] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez_compressed(path, **{**arrays, **changes})  # type: ignore[arg-type]
    return path


def test_a_medmnist_npz(store: CaseStore, tmp_path: Path) -> None:
    source = ImportSource(write_npz(tmp_path / "d.npz"), class_order=("mel", "nv"))
    summary = import_cases(store, RECIPE, source)
    assert (summary.rows, summary.kept) == (18, 18)
    balance = {b.label: (b.train, b.holdout) for b in summary.class_balance if b.train}
    assert balance == {"mel": (3, 6), "nv": (3, 6)}
    with np.load(source.data) as arrays:
        stored = {
            np.asarray(Image.open(io.BytesIO(store.image_bytes(c)))).tobytes(): c.label
            for c in store.training_cases(TASK)
        }
        assert [stored[image.tobytes()] for image in arrays["train_images"]] == ["mel", "nv"] * 3


def test_a_grey_npz(store: CaseStore, tmp_path: Path) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (6, 28, 28), np.uint8)
    path = write_npz(tmp_path / "d.npz", train_images=grey)
    assert import_cases(store, RECIPE, ImportSource(path, class_order=("mel", "nv"))).kept == 18


def test_numbers_are_never_guessed_to_be_classes(store: CaseStore, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz")
    with pytest.raises(InputRefused, match="--class-order"):
        import_cases(store, RECIPE, ImportSource(path))
    one = import_cases(store, RECIPE, ImportSource(path, class_order=("mel",)))
    assert one.refused_by_code == {"label-unknown": 9}


@pytest.mark.parametrize(
    "changes",
    [
        {"train_images": np.array([{"a": 1}] * 6, object)},
        {"train_labels": np.array(["nv"] * 6, object)},
        {"train_images": np.zeros((6, 28, 28, 3), np.float32)},
        {"train_images": np.zeros((6, 28), np.uint8)},
        {"train_labels": np.zeros((5, 1), np.uint8)},
        {"train_labels": np.zeros((6, 2), np.uint8)},
        {"train_labels": np.zeros(6, np.float32)},
    ],
)
def test_other_npz_are_refused(
    store: CaseStore, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = write_npz(tmp_path / "d.npz", **changes)
    with pytest.raises(InputRefused) as caught:
        import_cases(store, RECIPE, ImportSource(path, class_order=("mel", "nv")))
    assert caught.value.code in {"npz-layout", "npz-unreadable"}


def test_a_damaged_npz_keeps_what_came_before(store: CaseStore, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", count=40)
    data = bytearray(path.read_bytes())
    place = data.index(b"val_images.npy") + 60_000
    data[place : place + 400] = b"\xaa" * 400
    path.write_bytes(data)
    summary = import_cases(store, RECIPE, ImportSource(path, class_order=("mel", "nv")))
    assert 40 <= summary.kept < 120
    assert "source-broken" in warning_codes(summary)


@pytest.mark.parametrize("header", [b"{'descr'(", b"  x\n y", b"\x00", b"((((", b"'" * 3])
def test_an_npz_whose_header_is_no_python_is_refused(
    store: CaseStore, tmp_path: Path, header: bytes
) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for name in ("train_images.npy", "train_labels.npy"):
            start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
            archive.writestr(name, start + header)
    with pytest.raises(InputRefused) as caught:
        import_cases(store, RECIPE, ImportSource(tmp_path / "d.npz", class_order=("mel", "nv")))
    assert caught.value.code == "npz-unreadable"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(0, 1))
def test_a_mutated_npz_gives_a_summary_or_a_refusal(
    store: CaseStore, tmp_path: Path, changes: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(write_npz(tmp_path / "d.npz", count=2).read_bytes())
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    (tmp_path / "m.npz").write_bytes(data[: int(cut * len(data))] if cut < 0.2 else data)
    source = ImportSource(tmp_path / "m.npz", class_order=("mel", "nv"))
    with suppress_refusal("npz-unreadable", "npz-layout"):
        assert adds_up(import_cases(store, RECIPE, source))
