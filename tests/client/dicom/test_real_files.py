"""Every file of the DICOM test data has a row: decoded, or refused for the reason that it has."""

from __future__ import annotations

from client.dicom.decoder import DicomDecoder
from tests.bench.dicom_table import table
from tests.client.dicom.files import real_files

REFUSED = {
    "JPEG-lossy.dcm": "dicom-transfer-syntax",
    "JPGExtended.dcm": "dicom-transfer-syntax",
    "JPEG2000-embedded-sequence-delimiter.dcm": "dicom-unreadable",
    "MR_truncated.dcm": "dicom-truncated",
    "SC_rgb_rle_2frame.dcm": "dicom-multi-frame",
    "SC_rgb_rle_16bit_2frame.dcm": "dicom-multi-frame",
    "examples_ybr_color.dcm": "dicom-multi-frame",
    "SC_rgb_rle_32bit.dcm": "dicom-bits",
    "rtdose.dcm": "dicom-no-picture",
    "liver_1frame.dcm": "dicom-no-picture",
    "reportsi.dcm": "dicom-no-picture",
    "waveform_ecg.dcm": "dicom-no-picture",
    "UN_sequence.dcm": "dicom-no-pixels",
    "no_meta.dcm": "dicom-unreadable",
}
FILES, DECODED = 90, 56


def test_every_file_is_decoded_or_refused_for_a_reason() -> None:
    decoder = DicomDecoder()
    rows = {row.file: row for row in table(real_files(), decoder)}
    decoder.close()
    for name, code in REFUSED.items():
        if name in rows:
            assert rows[name].detail.startswith(code + ":"), rows[name]
    refused = [row for row in rows.values() if not row.decoded]
    assert not [row for row in refused if "died" in row.detail or "slow" in row.detail]
    if len(rows) == FILES:
        assert len(rows) - len(refused) == DECODED
