from collections import Counter, defaultdict
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.intake.source import SourceRow, refused_row
from common.errors import CaseRefused, ConfigurationError, InputRefused
from simulations.hospitals import (
    ByColumn,
    ByDirichlet,
    ByPatientHash,
    parse_site_rule,
    shared_patient_ids,
    site_identifier,
    split_into_hospitals,
)


def row(number, patient, label="a", site=None):
    return SourceRow(
        number=number, file=f"{number}.png", load=bytes, label=label, patient_id=patient, site=site
    )


def rows_of(patients, images=2, labels=("a", "b", "c"), sites=("North", "South")):
    numbers = range(patients * images)
    return [
        row(n, f"p{n % patients}", labels[n % patients % len(labels)], sites[n % len(sites)])
        for n in numbers
    ]


def owners(hospitals, *, by_site=False):
    """Return who has which patient; under ``by_site`` an id is a patient of the site's own."""
    result = defaultdict(set)
    for hospital in hospitals:
        for found in hospital.rows:
            patient = found.patient_id or found.file
            result[(found.site, patient) if by_site else patient].add(hospital.name)
    return result


RULES = st.one_of(
    st.builds(ByPatientHash, st.integers(2, 6)),
    st.builds(ByDirichlet, st.integers(2, 4), st.sampled_from([0.5, 1.0, 100.0])),
    st.just(ByColumn("site")),
)


@given(st.integers(30, 80), st.integers(1, 3), RULES, st.integers(0, 5))
def test_no_patient_is_divided_and_no_row_is_lost(patients, images, rule, seed):
    rows = rows_of(patients, images)
    try:
        hospitals = split_into_hospitals(rows, rule, seed=seed)
    except InputRefused:
        return  # a skew may leave a hospital empty, and one site is no federation
    by_site = isinstance(rule, ByColumn)
    assert all(len(names) == 1 for names in owners(hospitals, by_site=by_site).values())
    assert sorted(r.number for h in hospitals for r in h.rows) == [r.number for r in rows]
    assert all(h.rows and h.patients for h in hospitals)


def test_the_keeper_takes_exactly_the_share():
    rows = rows_of(10)
    for hospital in split_into_hospitals(rows, ByPatientHash(3)):
        keep = hospital.keeper()
        assert tuple(r for r in rows if keep(r)) == hospital.rows


def test_the_same_seed_divides_alike_and_another_does_not():
    rows = rows_of(40)
    rule = ByDirichlet(3, 0.5)
    assert split_into_hospitals(rows, rule, seed=1) == split_into_hospitals(rows, rule, seed=1)
    assert split_into_hospitals(rows, rule, seed=1) != split_into_hospitals(rows, rule, seed=2)


def test_hash_hospitals_are_equal_in_patients():
    hospitals = split_into_hospitals(rows_of(41), ByPatientHash(4))
    assert sorted(h.patients for h in hospitals) == [10, 10, 10, 11]


def skew(alpha):
    """Mean distance of the hospitals' label shares from the whole's."""
    hospitals = split_into_hospitals(rows_of(600, 1), ByDirichlet(4, alpha), seed=3)
    shares = []
    for hospital in hospitals:
        counts = Counter(r.label for r in hospital.rows)
        shares.append([counts[k] / len(hospital.rows) for k in "abc"])
    return float(np.abs(np.array(shares) - 1 / 3).mean())


def test_a_smaller_alpha_skews_the_labels_more():
    assert skew(0.2) > 0.2 > 0.05 > skew(1000.0)


def test_an_id_at_several_sites_is_a_patient_of_each():
    """Hospitals number their patients from 1: two with the same number are not one person."""
    rows = [row(n, f"{n // 3}", site="ABC"[n % 3]) for n in range(300)]
    hospitals = split_into_hospitals(rows, ByColumn())
    assert [h.patients for h in hospitals] == [100, 100, 100]
    assert [{r.site for r in h.rows} for h in hospitals] == [{"A"}, {"B"}, {"C"}]


def test_ids_at_several_sites_are_counted_and_rows_without_one_are_not():
    assert shared_patient_ids([["p", "p", "q", None], ["q", None, "r"], ["q"]]) == 1
    assert shared_patient_ids([["p"], ["q"]]) == 0


def test_a_row_without_a_site_is_refused_with_its_line():
    rows = [row(1, "p", site="A"), row(2, "q", site="B"), row(3, "p")]
    with pytest.raises(InputRefused, match="Line 3") as caught:
        split_into_hospitals(rows, ByColumn())
    assert caught.value.code == "site-missing"


def test_rows_without_a_patient_stand_alone():
    rows = [row(n, None) for n in range(20)]
    hospitals = split_into_hospitals(rows, ByPatientHash(2))
    assert sum(h.patients for h in hospitals) == 20


@pytest.mark.parametrize(
    ("rows", "rule", "code"),
    [
        (rows_of(4, sites=(None,)), ByColumn(), "site-missing"),
        (rows_of(4, sites=("Only",)), ByColumn(), "one-hospital"),
        (rows_of(4, sites=("St. Mary", "st. mary")), ByColumn(), "site-names"),
        (rows_of(2), ByPatientHash(3), "few-patients"),
        ([], ByColumn(), "one-hospital"),
        (rows_of(12, labels=("a",)), ByDirichlet(8, 1e-4), "empty-hospital"),
    ],
)
def test_an_impossible_division_says_why(rows, rule, code):
    with pytest.raises(InputRefused) as caught:
        split_into_hospitals(rows, rule)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("column:site", ByColumn("site")),
        ("hash:5", ByPatientHash(5)),
        ("dirichlet:4:0.3", ByDirichlet(4, 0.3)),
    ],
)
def test_rules_are_read(text, rule):
    assert parse_site_rule(text) == rule
    assert str(rule) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "column:",
        "hash:1",
        "hash:x",
        "hash:2000",
        "dirichlet:4",
        "dirichlet:4:0",
        "dirichlet:4:nan",
        "by:3",
    ],
)
def test_other_rules_are_refused(text):
    with pytest.raises(ConfigurationError):
        parse_site_rule(text)


@given(st.text())
def test_reading_a_rule_never_breaks(text):
    with suppress(ConfigurationError):
        parse_site_rule(text)


@given(st.text(max_size=100))
def test_a_site_identifier_is_one_or_empty(name):
    import re

    made = site_identifier(name)
    assert made == "" or re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", made)


@pytest.mark.parametrize("rule", [ByColumn(), ByPatientHash(2), ByDirichlet(2, 10.0)])
def test_a_row_that_cannot_be_parsed_is_the_first_hospitals_to_refuse(rule):
    """It names no file, no patient and no site: it must not stop all other rows."""
    fault = CaseRefused("The row has 2 fields where the header has 4.", code="row-malformed")
    broken = [refused_row(number, "", fault) for number in (1000, 1001)]
    hospitals = split_into_hospitals([broken[0], *rows_of(40), broken[1]], rule)
    assert set(broken) <= set(hospitals[0].rows)
    assert not set(broken) & set(hospitals[1].rows)
    assert sum(hospital.patients for hospital in hospitals) == 40
    keep = hospitals[0].keeper()
    assert keep(broken[0])
