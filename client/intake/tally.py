"""Counting an import as it goes, and judging it at the end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

from client.cases.case import Case, DuplicateCase
from client.cases.splits import Split
from client.cases.store import CaseStore
from client.intake.checks import NamedLabel, count_near_duplicates, label_leaks
from client.intake.source import SourceRow
from client.intake.summary import ClassBalance, ImportSummary, ImportWarning, RefusedRow
from client.privacy.accounting import public_patients
from common.errors import InputRefused
from common.recipe import Recipe
from common.wording import number

_LISTED_REFUSALS = 1000


class ImportTally:
    """What became of each row.

    Parameters
    ----------
    recipe : Recipe
    show_files : bool
        Name files beside refused rows.
    """

    def __init__(self, recipe: Recipe, *, show_files: bool) -> None:
        self._recipe = recipe
        self._show_files = show_files
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._refused: list[RefusedRow] = []
        self._seen: set[str] = set()
        self._stored: list[NamedLabel] = []
        self._sides: defaultdict[str, set[Split]] = defaultdict(set)
        self._conflicting: set[str] = set()
        self._notes: list[ImportWarning] = []

    @property
    def left_out(self) -> int:
        """Rows of other sites so far."""
        return self._counts["left_out"]

    def leave_out(self) -> None:
        """Count a row of another site."""
        self._counts["left_out"] += 1

    def note(self, code: str, message: str) -> None:
        """Add a warning."""
        self._notes.append(ImportWarning(code=code, message=message))

    def claim(self, patient_id: str | None, split: Split | None) -> None:
        """Remember the side that the source gives a patient."""
        if patient_id is not None and split is not None:
            self._sides[patient_id.strip()].add(split)

    def refuse(self, row: SourceRow, refusal: InputRefused) -> None:
        """Count a refused row."""
        if refusal.code == "patient-split-conflict" and row.patient_id:
            self._conflicting.add(row.patient_id.strip())
        self._codes[refusal.code] += 1
        if len(self._refused) < _LISTED_REFUSALS:
            file = row.file if self._show_files else None
            self._refused.append(
                RefusedRow(row=row.number, code=refusal.code, message=refusal.line(), file=file)
            )

    def settle(self, row: SourceRow, label: str | None, result: Case | InputRefused) -> None:
        """Count what the store said."""
        if isinstance(result, InputRefused) and not isinstance(result, DuplicateCase):
            self.refuse(row, result)
            return
        case = result.case if isinstance(result, DuplicateCase) else result
        if case.id in self._seen:
            self._counts["duplicates"] += 1
        elif isinstance(result, DuplicateCase):
            self._counts["already_present"] += 1
        else:
            self._counts["kept"] += 1
        self._seen.add(case.id)
        self._stored.append(NamedLabel(label or "", row.file, row.patient_id))

    def summary(self, store: CaseStore) -> ImportSummary:
        """Look at the whole store of the task, and sum up."""
        task = self._recipe.name
        counts = store.counts(task)
        by_label = {c.label: c for c in counts.classes}
        balance = tuple(
            ClassBalance(
                label=label,
                train=by_label[label].train if label in by_label else 0,
                holdout=by_label[label].holdout if label in by_label else 0,
            )
            for label in self._recipe.classes
        )
        near = count_near_duplicates(
            store.likenesses(task, "train"), store.likenesses(task, "holdout")
        )
        majority, baseline = _majority(balance)
        both = {p for p, sides in self._sides.items() if len(sides) > 1} | self._conflicting
        refused = self._codes.total()
        return ImportSummary(
            recipe=task,
            rows=self._counts.total() + refused,
            left_out=self._counts["left_out"],
            kept=self._counts["kept"],
            already_present=self._counts["already_present"],
            duplicates=self._counts["duplicates"],
            refused_count=refused,
            refused=tuple(sorted(self._refused, key=lambda line: line.row)),
            refused_by_code=dict(sorted(self._codes.items())),
            patients=len({r.patient_id.strip() for r in self._stored if r.patient_id}),
            patients_in_two_splits=len(both),
            training_patients=counts.train_patients,
            suggested_declaration=public_patients(counts.train_patients),
            near_duplicates=near,
            class_balance=balance,
            majority_class=majority,
            majority_baseline=baseline,
            warnings=(*self._notes, *self._judge(balance, len(both), near)),
            seconds=round(time.monotonic() - self._started, 3),
        )

    def _judge(
        self, balance: tuple[ClassBalance, ...], both: int, near: int | None
    ) -> list[ImportWarning]:
        found = [(code, text) for code, text in _balance_faults(balance) if text]
        if both:
            found.append(
                (
                    "patients-in-two-splits",
                    f"{number(both, 'patient')} {'was' if both == 1 else 'were'} claimed for both "
                    "training and holdout. Each stays on one side; the rows that would have moved "
                    "one were refused.",
                )
            )
        unnamed = sum(not row.patient_id for row in self._stored)
        if unnamed:
            found.append(
                (
                    "patients-unnamed",
                    f"{number(unnamed, 'image')} {'names' if unnamed == 1 else 'name'} no "
                    "patient: each counts as a patient of its own, so "
                    "that privacy protects the single image, and one patient may be on both "
                    "sides of the split. Give the patients' ids if any has more than one image.",
                )
            )
        if near is None:
            found.append(("near-duplicates", "Too many images to look for near-duplicates."))
        elif near:
            found.append(
                (
                    "near-duplicates",
                    f"{number(near, 'pair')} of training and holdout images "
                    f"{'looks' if near == 1 else 'look'} alike. If they show one "
                    "patient, the holdout figures are too good: give the patients' ids.",
                )
            )
        found += [
            (
                "label-leak",
                f"The label is predicted by {leak}. Make sure that labels come from a diagnosis, "
                "and not from how files or patients were numbered.",
            )
            for leak in label_leaks([row for row in self._stored if row.label])
        ]
        return [ImportWarning(code=code, message=text) for code, text in found]


def _balance_faults(balance: tuple[ClassBalance, ...]) -> list[tuple[str, str]]:
    present = [b for b in balance if b.train + b.holdout]
    if not present:
        return [("no-cases", "The site has no case of this recipe: it cannot train.")]
    if len(present) == 1:
        text = f"The site has one class only ({present[0].label}): it cannot learn to tell classes"
        return [("one-class", f"{text} apart by itself, and its AUROC is undefined.")]
    faults = []
    absent = [b.label for b in balance if not b.train + b.holdout]
    if absent:
        text = f"The site has no case of {', '.join(absent)} at all: it cannot teach it."
        faults.append(("class-missing", text))
    for side in ("train", "holdout"):
        missing = [b.label for b in present if not getattr(b, side)]
        if missing:
            text = f"The {side} side has no case of {', '.join(missing)}."
            faults.append((f"{side}-class-missing", text))
    return faults


def _majority(balance: tuple[ClassBalance, ...]) -> tuple[str | None, float | None]:
    side = "holdout" if any(b.holdout for b in balance) else "train"
    total = sum(getattr(b, side) for b in balance)
    if not total:
        return None, None
    largest = max(balance, key=lambda b: int(getattr(b, side)))
    return largest.label, round(int(getattr(largest, side)) / total, 4)
