"""Bytes under their digest: whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.cases import image_store
from client.cases.image_store import ImageStore
from common.errors import StoreError


def test_round_trip_under_the_digest(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    digest = images.put(b"pixels")
    assert digest == hashlib.sha256(b"pixels").hexdigest()
    assert images.get(digest) == b"pixels"
    assert images.holds(digest)


def test_many_at_once_with_repeats(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    contents = [bytes([n % 7]) * 10 for n in range(50)]
    digests = images.put_many(contents)
    assert [images.get(d) for d in digests] == contents
    assert images.put_many([]) == []


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    old = os.umask(0)
    try:
        digest = images.put(b"pixels")
    finally:
        os.umask(old)
    path = tmp_path / "images" / digest[:2] / digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_damaged_or_missing_image_is_told(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    digest = images.put(b"pixels")
    (tmp_path / "images" / digest[:2] / digest).write_bytes(b"pixelz")
    with pytest.raises(StoreError) as caught:
        images.get(digest)
    assert caught.value.code == "image-damaged"
    images.remove(digest)
    images.remove(digest)
    with pytest.raises(StoreError) as caught:
        images.get(digest)
    assert caught.value.code == "image-missing"


@pytest.mark.parametrize("digest", ["", "../../../etc/passwd", "A" * 64, "a" * 63])
def test_only_digests_are_names(tmp_path: Path, digest: str) -> None:
    with pytest.raises(StoreError):
        ImageStore(tmp_path).get(digest)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageStore(tmp_path / "images")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_store.os, "fsync", full_disk)
    with pytest.raises(StoreError, match="No space left"):
        images.put(b"pixels")
    with pytest.raises(StoreError, match="No space left"):
        images.put_many([b"one", b"two"])
    assert not [p for p in (tmp_path / "images").rglob("*") if p.is_file()]


def test_bytes_and_folder_are_flushed_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is what survives a power cut: file, then name, then folder."""
    images = ImageStore(tmp_path / "images")
    seen: list[str] = []
    flush, replace = os.fsync, Path.replace

    def recorded_flush(descriptor: int) -> None:
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        seen.append("name")
        return replace(self, target)

    monkeypatch.setattr(image_store.os, "fsync", recorded_flush)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    images.put(b"pixels")
    assert seen == ["folder", "file", "name", "folder"]


def test_stale_temporary_files_are_cleared_and_fresh_ones_spared(tmp_path: Path) -> None:
    images = ImageStore(tmp_path)
    digest = images.put(b"pixels")
    stale, fresh = (tmp_path / digest[:2] / f".writing-{n}" for n in ("stale", "fresh"))
    stale.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(stale, (1, 1))
    assert images.clear_temporary() == 1
    assert not stale.exists()
    assert fresh.exists()
    assert images.get(digest) == b"pixels"


def test_threads_writing_the_same_bytes(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(images.put, [b"pixels" * 1000] * 64))
    assert len(digests) == 1
    assert [p.name for p in (tmp_path / "images").rglob("*") if p.is_file()] == list(digests)
