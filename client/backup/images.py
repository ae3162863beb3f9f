"""Copying the images that rows speak of. The backup before has most of them, checked and near."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from client.backup.contents import sha256_of

_UNREADABLE = (errno.ENOENT, errno.EIO)
"""Of one image that is gone, or lies on a bad sector: the others are copied all the same."""


def copy_images(
    digests: Iterable[str], images: Path, copies: Path, known: Path | None
) -> tuple[int, int]:
    """Link or copy images; return how many there are now, and how many cannot be had.

    Parameters
    ----------
    digests : iterable of str
        Which ones; each lies under its own SHA-256.
    images : Path
        The site's.
    copies : Path
        Where they are copied to.
    known : Path or None
        Those of the backup before.
    """
    copied = missing = 0
    for digest in digests:
        if _copy_image(Path(digest[:2], digest), images, copies, known):
            copied += 1
        else:
            missing += 1
    return copied, missing


def _copy_image(name: Path, images: Path, copies: Path, known: Path | None) -> bool:
    copy = copies / name
    copy.parent.mkdir(exist_ok=True, mode=0o700)
    before = known / name if known is not None and _is_whole(known / name) else None
    if before is not None and _linked(before, copy):
        return True
    # Where nothing can be linked, the site's own; the one before is then perhaps the last good.
    return _copied(images / name, copy) or (before is not None and _copied(before, copy))


def _is_whole(image: Path) -> bool:
    try:
        return image.is_file() and sha256_of(image) == image.name
    except OSError:
        return False


def _linked(before: Path, copy: Path) -> bool:
    try:
        os.link(before, copy)
    except OSError:  # another disk, or one without links
        return False
    return True


def _copied(source: Path, copy: Path) -> bool:
    try:
        shutil.copyfile(source, copy)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        copy.unlink(missing_ok=True)
        return False
    copy.chmod(0o600)
    if sha256_of(copy) != copy.name:
        copy.unlink()
        return False
    return True
