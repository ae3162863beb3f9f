"""Why a DICOM file is refused, each with a stable code and without a word from its header."""

from __future__ import annotations

from common.errors import ImageRefused


def refused(code: str, what: str, *, meaning: str = "", action: str = "") -> ImageRefused:
    """Return a refusal; ``what`` must not quote the header, except for coded values."""
    return ImageRefused(what, meaning=meaning, action=action, code=f"dicom-{code}")


def unreadable(how: str) -> ImageRefused:
    """Return the refusal of a file that cannot be parsed or decoded."""
    return refused(
        "unreadable",
        f"The DICOM file cannot be read ({how}).",
        action="Export it again, uncompressed if need be (Explicit VR Little Endian).",
    )


def too_large(how: str) -> ImageRefused:
    """Return the refusal of a file beyond a limit."""
    return refused(
        "too-large", f"The DICOM file is too large ({how}).", action="Export it smaller."
    )
