import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from client.cases.case import Case
from client.training.dataset import patient_images
from client.training.pixel_cache import PixelCache
from common.errors import StoreError
from common.imaging import decode, prepare
from common.recipe import ImageSpec
from tests.client.pictures import picture

SPEC = ImageSpec(size=32)


def make_case(number: int, *, patient: str | None = None, label: str = "dark") -> Case:
    now = datetime.now(UTC)
    return Case(
        id=f"{number:032x}",
        task="toy",
        patient=patient or f"patient-{number}",
        digest=f"{number:064x}",
        label=label,
        status="confirmed",
        split="train",
        age_band=None,
        sex=None,
        created_at=now,
        confirmed_at=now,
    )


class Images:
    """Image bytes by case, and how often they were read."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def __call__(self, case: Case) -> bytes:
        self.reads.append(case.id)
        number = int(case.id, 16)
        if number == 13:
            return b"no image"
        return picture(number % 2, np.random.default_rng(number))

    def prepared(self, case: Case) -> np.ndarray:
        return prepare(decode(self(case)), SPEC)


def pixels(folder: Path) -> Path:
    return next(folder.glob("toy-*/*.u8"))


def test_only_new_images_are_prepared_and_all_are_right(tmp_path: Path) -> None:
    images = Images()
    cases = [make_case(n) for n in range(5)]
    PixelCache(tmp_path, "toy", SPEC).load(cases[:3], images)
    cached = PixelCache(tmp_path, "toy", SPEC).load(cases, images)
    assert sorted(images.reads) == [c.id for c in cases]
    for case in cases:
        found = cached.pixels[cached.row_of[case.digest]]
        np.testing.assert_array_equal(found, images.prepared(case))


def test_withdrawn_pixels_are_gone_from_disk(tmp_path: Path) -> None:
    images = Images()
    cases = [make_case(n) for n in range(4)]
    before = PixelCache(tmp_path, "toy", SPEC).load(cases, images)
    secret = before.pixels[before.row_of[cases[1].digest]].tobytes()
    after = PixelCache(tmp_path, "toy", SPEC).load([c for c in cases if c is not cases[1]], images)
    assert len(after.row_of) == 3
    assert secret not in pixels(tmp_path).read_bytes()
    np.testing.assert_array_equal(
        after.pixels[after.row_of[cases[2].digest]], images.prepared(cases[2])
    )
    assert len(list(tmp_path.glob("toy-*/*.u8"))) == 1


def test_an_unreadable_image_is_left_out(tmp_path: Path) -> None:
    cases = [make_case(12), make_case(13), make_case(14)]
    cached = PixelCache(tmp_path, "toy", SPEC).load(cases, Images())
    assert set(cached.row_of) == {cases[0].digest, cases[2].digest}
    assert len(patient_images(cases, cached, ("dark", "bright"))) == 2


def test_no_case(tmp_path: Path) -> None:
    cached = PixelCache(tmp_path, "toy", SPEC).load([], Images())
    assert cached.pixels.shape == (0, 32, 32, 3)
    assert len(patient_images([], cached, ("dark", "bright"))) == 0


@pytest.mark.parametrize("damage", ["index", "pixels", "short", "grown"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: str) -> None:
    images = Images()
    cases = [make_case(n) for n in range(3)]
    PixelCache(tmp_path, "toy", SPEC).load(cases, images)
    path = pixels(tmp_path)
    if damage == "index":
        (path.parent / "index.json").write_text("{")
    elif damage == "pixels":
        path.unlink()
    elif damage == "short":
        os.truncate(path, 100)
    else:  # killed between appending and the index: what lies beyond it was never there
        with path.open("ab") as stream:
            stream.write(b"x" * 1000)
    cases.append(make_case(7))
    cached = PixelCache(tmp_path, "toy", SPEC).load(cases, images)
    for case in cases:
        found = cached.pixels[cached.row_of[case.digest]]
        np.testing.assert_array_equal(found, images.prepared(case))


def test_several_at_once_prepare_each_image_once(tmp_path: Path) -> None:
    images = Images()
    cases = [make_case(n) for n in range(12)]

    def load(_: int) -> int:
        return len(PixelCache(tmp_path, "toy", SPEC).load(cases, images).row_of)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(load, range(4))) == [12] * 4
    assert len(images.reads) == 12


def test_killed_while_preparing(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from client.training.pixel_cache import PixelCache
        from tests.client.training.test_dataset import SPEC, Images, make_case
        class Dying(Images):
            def __call__(self, case):
                if int(case.id, 16) == 70:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().__call__(case)
        PixelCache(Path({str(tmp_path)!r}), "toy", SPEC).load(
            [make_case(n) for n in range(100) if n != 13], Dying())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parents[3], check=False
    )
    assert done.returncode == -9
    cases = [make_case(n) for n in range(6)]
    images = Images()
    cached = PixelCache(tmp_path, "toy", SPEC).load(cases, images)
    assert len(cached.row_of) == 6
    np.testing.assert_array_equal(
        cached.pixels[cached.row_of[cases[5].digest]], images.prepared(cases[5])
    )


def test_other_sizes_have_other_files(tmp_path: Path) -> None:
    cases = [make_case(1)]
    PixelCache(tmp_path, "toy", SPEC).load(cases, Images())
    large = PixelCache(tmp_path, "toy", ImageSpec(size=48)).load(cases, Images())
    assert large.pixels.shape == (1, 48, 48, 3)
    assert len(list(tmp_path.glob("toy-*"))) == 2


def test_the_cache_is_private_and_names_no_patient(tmp_path: Path) -> None:
    PixelCache(tmp_path, "toy", SPEC).load([make_case(1, patient="secret")], Images())
    path = pixels(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert "secret" not in json.dumps((path.parent / "index.json").read_text())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError):
        PixelCache(tmp_path / "cache", "toy", SPEC).load([make_case(1)], Images())


def test_grouping_by_patient(tmp_path: Path) -> None:
    cases = [
        make_case(1, patient="a"),
        make_case(2, patient="b", label="bright"),
        make_case(3, patient="a", label="bright"),
        make_case(4, patient="c", label="normal"),  # no class of this recipe
    ]
    cached = PixelCache(tmp_path, "toy", SPEC).load(cases, Images())
    images = patient_images(cases, cached, ("dark", "bright"))
    assert [group.tolist() for group in images.patients] == [[0, 2], [1]]
    assert images.labels.tolist() == [0, 1, 1]
    assert images.read(np.array([2, 0])).shape == (2, 32, 32, 3)
