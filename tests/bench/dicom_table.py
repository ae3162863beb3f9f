"""Which DICOM files are decoded, and why the others are not: ``python -m tests.bench.dicom_table``.

Reads ``$WARDROUND_TEST_DATA/dicom``, or the folder named as the first argument.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from client.dicom.decoder import DicomDecoder
from common.errors import ImageRefused
from common.imaging import ImageLimits, decode


@dataclass(frozen=True)
class TableRow:
    """One file: what it became, or why not."""

    file: str
    decoded: bool
    detail: str


def table(files: list[Path], decoder: DicomDecoder) -> list[TableRow]:
    """Decode every file, whatever its modality."""
    rows = []
    for path in files:
        try:
            picture = decoder.decode(path.read_bytes())
            height, width = decode(picture.png, limits=ImageLimits(side=1)).shape[:2]
            detail = f"{picture.modality or 'no modality'}, {width} x {height}"
            rows.append(TableRow(path.name, True, detail))
        except ImageRefused as refusal:
            rows.append(TableRow(path.name, False, f"{refusal.code}: {refusal.what}"))
    return rows


def main() -> None:
    """Print the table as Markdown."""
    folder = Path(
        sys.argv[1] if len(sys.argv) > 1 else os.environ["WARDROUND_TEST_DATA"] + "/dicom"
    )
    decoder = DicomDecoder()
    rows = table(sorted(folder.glob("*.dcm")), decoder)
    decoder.close()
    sys.stdout.write("| file | | |\n|---|---|---|\n")
    for row in rows:
        verdict = "decoded" if row.decoded else "refused"
        sys.stdout.write(f"| {row.file} | {verdict} | {row.detail} |\n")
    decoded = sum(row.decoded for row in rows)
    sys.stdout.write(f"\n{decoded} decoded, {len(rows) - decoded} refused.\n")


if __name__ == "__main__":
    main()
