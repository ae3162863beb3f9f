"""What a DICOM file is turned into: a picture, and the little of its header that is used.

PS3.15 annex E (basic application level confidentiality profile) lists the attributes to remove or
replace. Here it is the other way round: nothing of a header is kept but what `DicomPicture` names,
so that an attribute nobody thought of (private groups, nested sequences, file meta) cannot pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MANUFACTURER = "Wardround"
"""(0008,0070) of what a site makes."""


@dataclass(frozen=True)
class DicomLimits:
    """What is refused, and what the decoding process may use.

    Attributes
    ----------
    bytes : int
        Largest file, and largest data set once a deflated one is inflated.
    pixels : int
        Rows times columns; the largest mammograms have about 14 million.
    frames : int
        Largest number of frames of a file of which one is asked for.
    seconds : float
        Wall-clock time for one file, waiting for a free process left out.
    memory_bytes : int
        Address space of a decoding process.
    """

    bytes: int = 128 * 1024 * 1024
    pixels: int = 40_000_000
    frames: int = 10_000
    seconds: float = 30.0
    memory_bytes: int = 3 * 1024**3


DEFAULT_DICOM_LIMITS = DicomLimits()


@dataclass(frozen=True)
class DicomContext:
    """What a report needs to be filed beside its image. Identifies the patient.

    Never stored or logged; only `client.dicom.outbox` keeps it, encrypted, until the report is
    delivered. Values are DICOM strings, empty where the header has none.
    """

    values: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class DicomPicture:
    """A decoded file.

    Attributes
    ----------
    png : bytes
        8-bit grey or RGB, or 16-bit grey; `common.imaging` takes it from here.
    modality : str
        (0008,0060), such as ``"MG"``.
    age : str or None
        (0010,1010) as written, or whole years from birth and study date.
    sex : str or None
        (0010,0040).
    laterality, view : str or None
        (0020,0062) or (0020,0060); (0018,5101).
    flags : tuple of str
        What a reviewer should look at: ``burned-in-unknown`` where (0028,0301) is not ``NO``.
    patient_id : str or None
        (0010,0020). In memory only: the case store keeps its keyed pseudonym.
    instance : str
        (0008,0018), SOP Instance UID. In memory only.
    context : DicomContext
        In memory only.
    """

    png: bytes = field(repr=False)
    modality: str
    age: str | None
    sex: str | None
    laterality: str | None
    view: str | None
    flags: tuple[str, ...]
    patient_id: str | None = field(repr=False)
    instance: str = field(repr=False)
    context: DicomContext = field(repr=False)


def looks_like_dicom(data: bytes) -> bool:
    """Tell whether bytes are a DICOM file: Part 10, or a bare data set that begins as one does.

    A bare data set begins with a short element of group 0002 or 0008 in ascending order; none
    of the picture formats that `common.imaging` takes begins with those bytes.
    """
    return data[128:132] == b"DICM" or data[:4] in _BARE_STARTS


_BARE_STARTS = frozenset(
    group + element
    for group, elements in (
        (b"\x02\x00", (b"\x00\x00", b"\x01\x00", b"\x02\x00", b"\x10\x00")),
        (b"\x08\x00", tuple(bytes((n, 0)) for n in (0x00, 0x01, 0x05, 0x06, 0x08, 0x12, 0x16))),
        (b"\x00\x08", tuple(bytes((0, n)) for n in (0x00, 0x01, 0x05, 0x06, 0x08, 0x12, 0x16))),
    )
    for element in elements
)
