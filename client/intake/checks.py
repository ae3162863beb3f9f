"""What makes an evaluation lie: look-alikes on both sides, and labels that a name predicts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from client.cases.accepted_image import likeness_words

# Of 256 bits. Measured: BUSI's near-duplicate groups lie within it in four pairs of five; of 4.5
# million pairs of different lesions of HAM10000 none does (least: 44), of as many pairs of
# different patients' mammograms two; a copy at 80 % size and JPEG quality 50 differs in 9 to 13.
NEAR_DUPLICATE_BITS = 24
_MAXIMUM_PAIRS = 2_000_000_000
_CHUNK = 256

_MINIMUM_ROWS = 20
_QUANTILES = 10
_EXPLAINED = 0.8


@dataclass(frozen=True)
class NamedLabel:
    """A label with what it must not be predictable from."""

    label: str
    file: str
    patient_id: str | None


def count_near_duplicates(train: list[str], holdout: list[str]) -> int | None:
    """Count (train, holdout) pairs whose hashes differ in at most `NEAR_DUPLICATE_BITS` bits.

    Returns
    -------
    int or None
        None if there are too many pairs to compare.
    """
    if not train or not holdout:
        return 0
    if len(train) * len(holdout) > _MAXIMUM_PAIRS:
        return None
    left, right = likeness_words(train), likeness_words(holdout)
    pairs = 0
    for start in range(0, len(right), _CHUNK):
        different = np.zeros((len(left), len(right[start : start + _CHUNK])), np.uint16)
        for word in range(left.shape[1]):
            part = left[:, word, None] ^ right[None, start : start + _CHUNK, word]
            different += np.bitwise_count(part)
        pairs += int((different <= NEAR_DUPLICATE_BITS).sum())
    return pairs


def label_leaks(rows: Sequence[NamedLabel]) -> list[str]:
    """Name what predicts the labels without looking at an image.

    A predictor is named when it leaves out at most a fifth of the errors that always answering
    the largest class would make: words of the file's name, the first number in it, or the
    number in the patient id. Numbers count by tenths of their range of ranks.

    Returns
    -------
    list of str
        Phrases such as ``"the words of the file name (100.0 % right, always 'nv': 72.3 %)"``.
    """
    labels = [row.label for row in rows]
    if len(rows) < _MINIMUM_ROWS or len(set(labels)) < 2:
        return []
    words: list[Hashable] = [tuple(re.findall(r"[^\W\d_]+", r.file.casefold())) for r in rows]
    candidates = {
        "the words of the file name": words,
        "the number in the file name": _tenths([_number(r.file.rpartition("/")[2]) for r in rows]),
        "the patient number": _tenths([_number(r.patient_id or "") for r in rows]),
    }
    majority, count = Counter(labels).most_common(1)[0]
    baseline = count / len(labels)
    leaks = []
    for name, values in candidates.items():
        accuracy = _accuracy(values, labels)
        if (accuracy - baseline) / (1 - baseline) >= _EXPLAINED:
            leaks.append(f"{name} ({accuracy:.1%} right, always {majority!r}: {baseline:.1%})")
    return leaks


def _number(text: str) -> int | None:
    found = re.search(r"\d{1,18}", text)
    return int(found[0]) if found else None


def _tenths(numbers: list[int | None]) -> list[Hashable]:
    """Return each number's tenth among the distinct numbers; all alike where too few have one."""
    distinct = sorted({number for number in numbers if number is not None})
    if len(distinct) < _MINIMUM_ROWS:
        return [None] * len(numbers)
    tenth = {number: rank * _QUANTILES // len(distinct) for rank, number in enumerate(distinct)}
    return [None if number is None else tenth[number] for number in numbers]


def _accuracy(values: Sequence[Hashable], labels: Sequence[str]) -> float:
    """Return the share of rows right when each value answers with its own largest class."""
    by_value: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for value, label in zip(values, labels, strict=True):
        by_value[value][label] += 1
    if len(by_value) > max(_QUANTILES + 1, len(labels) // 10):
        return 0.0  # nearly a value a row: that it "predicts" says nothing
    return sum(c.most_common(1)[0][1] for c in by_value.values()) / len(labels)
