from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.review.consensus import Standing, Voice, standing

A, B, C, D = "ada", "ben", "cleo", "dan"


def come_to(
    *said: tuple[str, str | None],
    readers: int = 2,
    established: str | None = None,
    blocked: bool = False,
) -> tuple[str, str | None]:
    voices = [Voice(reader, label) for reader, label in said]
    found = standing(voices, readers=readers, established=established, blocked=blocked)
    return found.state, found.label


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], ("waiting", None)),
        ([(A, "nv")], ("waiting", None)),
        ([(A, "nv"), (A, "nv")], ("waiting", None)),  # one person twice is one person
        ([(A, "nv"), (B, "nv")], ("confirmed", "nv")),
        ([(A, "nv"), (B, "mel")], ("conflict", None)),
        ([(A, "nv"), (B, "mel"), (C, "mel")], ("confirmed", "mel")),
        ([(A, "nv"), (B, "mel"), (C, "bcc")], ("conflict", None)),
        ([(A, "nv"), (B, "mel"), (A, "mel")], ("confirmed", "mel")),
        ([(A, "nv"), (B, None)], ("unsure", None)),
        ([(A, None), (B, "nv"), (C, "nv")], ("confirmed", "nv")),
        ([(A, "nv"), (B, "nv"), (C, "mel")], ("disputed", "nv")),
        ([(A, "nv"), (B, "nv"), (C, "mel"), (D, "mel")], ("conflict", None)),
        ([(A, "nv"), (B, "nv"), (C, "mel"), (B, "mel")], ("confirmed", "mel")),
    ],
)
def test_two_readers(said: list[tuple[str, str | None]], expected: tuple[str, str | None]) -> None:
    established: str | None = None
    for n in range(len(said) + 1):  # as it happens: the label of before is the established one
        found = come_to(*said[:n], established=established)
        established = found[1]
    assert found == expected


def test_one_readers_newest_label_counts() -> None:
    assert come_to((A, "nv"), readers=1) == ("confirmed", "nv")
    assert come_to((A, None), readers=1) == ("unsure", None)
    assert come_to((A, "nv"), (B, "mel"), readers=1, established="nv") == ("confirmed", "mel")
    assert come_to((A, "nv"), (B, None), readers=1, established="nv") == ("disputed", "nv")


def test_an_established_label_stands_until_somebody_contradicts() -> None:
    assert come_to(established="nv") == ("confirmed", "nv")
    assert come_to((A, None), established="nv") == ("disputed", "nv")
    assert come_to((A, "mel"), established="nv") == ("waiting", None)
    assert come_to(("import", "nv"), (A, "mel"), established="nv") == ("conflict", None)


def test_a_blocking_flag_holds_what_was_agreed() -> None:
    assert come_to((A, "nv"), (B, "nv"), blocked=True) == ("held", None)
    assert come_to((A, "nv"), readers=1, blocked=True) == ("held", None)
    assert come_to((A, "nv"), blocked=True) == ("waiting", None)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["nv", "mel", None])), max_size=8),
    st.sampled_from([1, 2]),
    st.sampled_from([None, "nv", "mel"]),
)
def test_what_holds_of_every_case(
    said: list[tuple[str, str | None]], readers: int, established: str | None
) -> None:
    voices = [Voice(*one) for one in said]
    found = standing(voices, readers=readers, established=established, blocked=False)
    assert isinstance(found, Standing)
    assert (found.label is not None) == (found.state in ("confirmed", "disputed"))
    newest = {v.reader: v.label for v in voices}
    if found.label is not None and found.label != established and readers == 2:
        assert sum(label == found.label for label in newest.values()) >= 2
    held = standing(voices, readers=readers, established=established, blocked=True)
    assert held.label is None
