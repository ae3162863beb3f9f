"""Dividing one labelled data set into hospitals. A patient is never divided.

A patient is whom one id means: under one site's name where a column gives the hospitals, for each
may number its patients from 1; in the whole table where the rows are dealt out.

Three rules: by a column of the table (the hospitals that the images really come from), by a hash
of the patient (hospitals that are alike), and by Dirichlet label skew (Hsu et al. 2019,
arXiv:1909.06335: hospitals that see different diseases; the smaller alpha, the more they differ).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from client.intake.source import SourceRow
from common.errors import ConfigurationError, InputRefused
from common.recipe import Recipe

DIRICHLET_ATTEMPTS = 200


@dataclass(frozen=True)
class ByColumn:
    """Hospitals as a column of the table names them."""

    column: str = "site"

    def __str__(self) -> str:
        """Return it as `parse_site_rule` reads it."""
        return f"column:{self.column}"


@dataclass(frozen=True)
class ByPatientHash:
    """``sites`` hospitals that are alike, by SHA-256 of seed and patient; equal in patients."""

    sites: int

    def __str__(self) -> str:
        """Return it as `parse_site_rule` reads it."""
        return f"hash:{self.sites}"


@dataclass(frozen=True)
class ByDirichlet:
    """``sites`` hospitals; each class is dealt out in proportions drawn from Dir(alpha)."""

    sites: int
    alpha: float

    def __str__(self) -> str:
        """Return it as `parse_site_rule` reads it."""
        return f"dirichlet:{self.sites}:{self.alpha}"


SiteRule: TypeAlias = ByColumn | ByPatientHash | ByDirichlet


@dataclass(frozen=True)
class Hospital:
    """A hospital's name (fit for a site's identifier) and its share of the rows."""

    name: str
    rows: tuple[SourceRow, ...]

    @property
    def patients(self) -> int:
        """Number of patients; a row without a patient is one of its own."""
        return len({_patient(row) for row in self.rows if row.file})

    def keeper(self) -> Callable[[SourceRow], bool]:
        """Return the ``keep`` of `import_cases` that takes this share alone."""
        numbers = {row.number for row in self.rows}
        return lambda row: row.number in numbers


def parse_site_rule(text: str) -> SiteRule:
    """Read ``column:NAME``, ``hash:K`` or ``dirichlet:K:ALPHA``.

    Raises
    ------
    ConfigurationError
        If it is none of these, K is below 2 or ALPHA is not above 0.
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "column" and rest:
            return ByColumn(rest)
        if kind == "hash":
            return _checked(ByPatientHash(int(rest)))
        if kind == "dirichlet":
            sites, _, alpha = rest.partition(":")
            return _checked(ByDirichlet(int(sites), float(alpha)))
    except ValueError:
        pass  # told below, in the same words for every fault
    raise ConfigurationError(
        f"--sites-by {text!r} cannot be read.",
        action="Use column:NAME, hash:K or dirichlet:K:ALPHA with K of 2 to 1000 and ALPHA > 0.",
        code="sites-by",
    )


def split_into_hospitals(
    rows: Sequence[SourceRow], rule: SiteRule, *, seed: int = 0
) -> tuple[Hospital, ...]:
    """Give every patient, with all images, to one hospital.

    Parameters
    ----------
    rows : sequence of SourceRow
        The whole data set. A row without a patient id stands for a patient of its own. Rows that
        could not be parsed, which name no file, go to the first hospital: its import refuses them.
    rule : SiteRule
        For `ByColumn` each row goes to its ``site``: an id that occurs at several is a patient of
        each (`shared_patient_ids` counts them).
    seed : int, default 0
        Of the hash and of the Dirichlet draw.

    Returns
    -------
    tuple of Hospital
        Sorted by name; none is empty.

    Raises
    ------
    InputRefused
        If a row has no site, two sites' names become one identifier, there are fewer than two
        hospitals, or fewer patients than hospitals.
    """
    named = [row for row in rows if row.file]
    site_of = _by_column(named) if isinstance(rule, ByColumn) else _dealt_out(named, rule, seed)
    first = min(site_of.values(), default="")
    shares: dict[str, list[SourceRow]] = defaultdict(list)
    for row in rows:
        shares[site_of[row.number] if row.file else first].append(row)
    if len(shares) < 2:
        raise InputRefused(
            "The data make fewer than two hospitals.",
            action="Choose another --sites-by.",
            code="one-hospital",
        )
    return tuple(Hospital(name, tuple(shares[name])) for name in sorted(shares))


def shared_patient_ids(hospitals: Iterable[Iterable[str | None]]) -> int:
    """Return how many patient ids occur at several hospitals, given each one's; None is no id."""
    owners = Counter(patient for ids in hospitals for patient in {*ids} - {None})
    return sum(count > 1 for count in owners.values())


def check_quorum(recipe: Recipe, hospitals: Sequence[Hospital]) -> None:
    """Refuse fewer hospitals than the recipe's quorum.

    Raises
    ------
    ConfigurationError
        With code ``quorum``.
    """
    if len(hospitals) < recipe.federation.quorum:
        raise ConfigurationError(
            f"{len(hospitals)} hospitals cannot reach the recipe's quorum of "
            f"{recipe.federation.quorum}.",
            action="Divide the data into more hospitals, or lower it with --quorum.",
            code="quorum",
        )


def site_identifier(name: str) -> str:
    """Turn a hospital's name as the table writes it into a site's identifier."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.strip().lower()).strip("-._")[:63]


def _checked(rule: ByPatientHash | ByDirichlet) -> ByPatientHash | ByDirichlet:
    if not 2 <= rule.sites <= 1000:
        raise ValueError("sites")
    if isinstance(rule, ByDirichlet) and not 0 < rule.alpha < 1e6:
        raise ValueError("alpha")
    return rule


def _patient(row: SourceRow) -> str:
    return row.patient_id or row.file


def _dealt_out(
    rows: Sequence[SourceRow], rule: ByPatientHash | ByDirichlet, seed: int
) -> dict[int, str]:
    """Return each row's hospital, by its number; all rows of a patient go to one."""
    patients: dict[str, list[SourceRow]] = defaultdict(list)
    for row in rows:
        patients[_patient(row)].append(row)
    if len(patients) < rule.sites:
        raise InputRefused(
            f"{len(patients)} patients cannot make {rule.sites} hospitals.",
            action="Ask for fewer hospitals, or give more data.",
            code="few-patients",
        )
    if isinstance(rule, ByPatientHash):
        # In order of the hash, dealt out in turn: alike in size, and none is empty.
        order = sorted(patients, key=lambda patient: _hash(patient, seed))
        dealt = {patient: site_name(i % rule.sites) for i, patient in enumerate(order)}
    else:
        dealt = _by_dirichlet(patients, rule, np.random.default_rng(seed))
    return {row.number: dealt[_patient(row)] for row in rows}


def _by_column(rows: Sequence[SourceRow]) -> dict[int, str]:
    assigned: dict[int, str] = {}
    written: dict[str, str] = {}
    for row in rows:
        name = site_identifier(row.site or "")
        if not name:
            raise InputRefused(
                f"Line {row.number} of the table names no site.",
                action="Fill the column in, or use another --sites-by.",
                code="site-missing",
            )
        if written.setdefault(name, str(row.site)) != row.site:
            raise InputRefused(
                f"The sites {written[name]!r} and {row.site!r} would both be called {name!r}.",
                action="Rename one of them.",
                code="site-names",
            )
        assigned[row.number] = name
    return assigned


def _by_dirichlet(
    patients: Mapping[str, list[SourceRow]], rule: ByDirichlet, rng: np.random.Generator
) -> dict[str, str]:
    by_label: dict[str, list[str]] = defaultdict(list)
    for patient, rows in patients.items():
        label, _ = Counter(row.label or "" for row in rows).most_common(1)[0]
        by_label[label].append(patient)
    for _ in range(DIRICHLET_ATTEMPTS):
        dealt = _deal(by_label, rule, rng)
        if len(set(dealt.values())) == rule.sites:  # no hospital without a patient
            return dealt
    raise InputRefused(
        f"Dirichlet skew {rule.alpha} leaves hospitals without any patient.",
        action="Use a larger ALPHA or fewer hospitals.",
        code="empty-hospital",
    )


def _deal(
    by_label: Mapping[str, list[str]], rule: ByDirichlet, rng: np.random.Generator
) -> dict[str, str]:
    dealt: dict[str, str] = {}
    for label in sorted(by_label):
        group = list(rng.permutation(np.array(sorted(by_label[label]), dtype=object)))
        shares = rng.dirichlet(np.full(rule.sites, rule.alpha))
        cuts = np.floor(np.cumsum(shares)[:-1] * len(group) + 0.5).astype(int)
        for site, part in enumerate(np.split(np.arange(len(group)), cuts)):
            dealt.update({str(group[i]): site_name(site) for i in part})
    return dealt


def site_name(index: int) -> str:
    """Return the name of a hospital that no table names; ``index`` counts from 0."""
    return f"hospital-{index + 1:03d}"


def _hash(patient: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{patient}".encode()).digest()[:8], "big")
