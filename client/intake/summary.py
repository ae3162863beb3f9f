"""What an import did, as one document for a person or a script."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RefusedRow(_Document):
    """One row that was refused: its number (a CSV's header is row 1), a stable code, a sentence."""

    row: int
    code: str
    message: str
    file: str | None = None


class ClassBalance(_Document):
    """Confirmed cases of one class in the whole store, by side of the split."""

    label: str
    train: int
    holdout: int


class ImportWarning(_Document):
    """Something that was kept, and that a person should look at."""

    code: str
    message: str


class ImportSummary(_Document):
    """What an import did, and what the task's store looks like after it.

    ``rows`` were read; of these ``left_out`` belong to other sites, ``kept`` are new cases,
    ``already_present`` were stored by an earlier import, ``duplicates`` repeat an image of this
    source, and ``refused_count`` were refused: the five add up. ``refused`` holds the first
    thousand of them, ``refused_by_code`` counts all. ``patients`` is the number of named patients
    among the rows that are stored now; ``patients_in_two_splits`` of them were claimed for both
    sides, and stay on the first. ``suggested_declaration`` is a round number near
    ``training_patients``, for the policy's ``declared_patients``; 0 where there are none.
    ``near_duplicates`` counts pairs of look-alikes of which one is in training and the other held
    out; None if there were too many to compare. The balance, its largest class and
    ``majority_baseline`` (accuracy of always answering that class, on the holdout if there is one)
    are over the whole store.
    """

    recipe: str
    rows: int = 0
    left_out: int = 0
    kept: int = 0
    already_present: int = 0
    duplicates: int = 0
    refused_count: int = 0
    refused: tuple[RefusedRow, ...] = ()
    refused_by_code: dict[str, int] = {}
    patients: int = 0
    patients_in_two_splits: int = 0
    training_patients: int = 0
    suggested_declaration: int = 0
    near_duplicates: int | None = 0
    class_balance: tuple[ClassBalance, ...] = ()
    majority_class: str | None = None
    majority_baseline: float | None = None
    warnings: tuple[ImportWarning, ...] = ()
    seconds: float = 0.0
