"""Decisions about releases: the policy's, a person's, and what stands on disk after each."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.releases.alarms import decision_alarms
from client.releases.decision_file import DecisionFile
from client.releases.decisions import ReleaseDecision
from client.releases.desk import ReleaseDesk
from client.releases.documents import releases_document
from client.releases.policy import ReleasePolicy
from client.releases.shadow_figures import ShadowFigures
from common.errors import CaseRefused, PrivacyRefused
from common.release import ReleaseManifest
from tests.client.serving import release

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def figures(difference: float, half: float, *, found: float = 0.0) -> ShadowFigures:
    """Return figures with an AUROC difference, half its interval, and a sensitivity difference."""
    return ShadowFigures(
        beside=1,
        patients=100,
        positives=40,
        auroc=0.8 + difference,
        auroc_beside=0.8,
        auroc_lower=difference - half,
        auroc_upper=difference + half,
        sensitivity=0.9 + found,
        sensitivity_beside=0.9,
        sensitivity_lower=found - 0.01,
        sensitivity_upper=found + 0.01,
    )


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ReleaseManifest]:
    folder = tmp_path_factory.mktemp("releases")
    made = {version: release(folder, version).manifest for version in (1, 2, 3)}
    again = made[1].model_copy(
        update={
            "version": 4,
            "lineage": made[1].lineage.model_copy(update={"restores": 1, "replaces": 3}),
        }
    )
    return made | {4: again}


class Site:
    """A desk over a file, whose policy and figures a test sets."""

    def __init__(self, folder: Path, **policy: object) -> None:
        self.policy: ReleasePolicy | None = ReleasePolicy.model_validate(policy)
        self.shadow: ShadowFigures | None = None
        self.compared = 0
        self.told: list[ReleaseDecision] = []
        self.desk = ReleaseDesk(
            DecisionFile(folder), policy=self.read, clock=lambda: NOW, on_decision=self.told.append
        )

    def read(self) -> ReleasePolicy:
        if self.policy is None:
            raise PrivacyRefused("No.", code="policy-malformed")
        return self.policy

    def compare(self) -> ShadowFigures | None:
        self.compared += 1
        return self.shadow

    def offer(
        self, manifest: ReleaseManifest, *, beside: ReleaseManifest | None = None
    ) -> tuple[str, str]:
        """Have a release judged, and keep what comes of it."""
        instead_of = self.desk.state.serving
        decision = self.desk.judge(manifest, beside=beside, compare=self.compare)
        if decision.verdict == "accepted":
            self.desk.take(manifest, decision, instead_of=instead_of)
        else:
            self.desk.keep(decision)
        return decision.verdict, decision.reason

    @property
    def serving(self) -> tuple[int | None, int | None]:
        state = self.desk.state
        return (
            None if state.serving is None else state.serving.version,
            None if state.fallback is None else state.fallback.version,
        )


def test_the_first_release_answers_whatever_the_policy_says(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="hold")
    assert site.offer(manifests[1]) == ("accepted", "first")
    assert (site.serving, site.compared) == ((1, None), 0)


@pytest.mark.parametrize(
    ("policy", "shadow", "expected"),
    [
        ({"on_release": "accept"}, figures(-0.5, 0.0), ("accepted", "policy")),
        ({"on_release": "hold"}, figures(0.1, 0.0), ("held", "policy")),
        ({}, figures(0.01, 0.02), ("accepted", "not-worse")),
        ({}, figures(-0.01, 0.005), ("accepted", "not-worse")),
        ({}, figures(-0.1, 0.05), ("held", "worse")),
        ({"if_worse": "refuse"}, figures(-0.1, 0.05), ("refused", "worse")),
        ({"margin": 0.2}, figures(-0.1, 0.05), ("accepted", "not-worse")),
        ({}, figures(0.0, 0.01, found=-0.1), ("held", "worse")),
        ({}, figures(-0.1, 0.2), ("accepted", "unclear")),
        ({"if_unclear": "hold"}, figures(-0.1, 0.2), ("held", "unclear")),
        ({}, None, ("accepted", "too-few-cases")),
        ({"if_unclear": "hold"}, None, ("held", "too-few-cases")),
    ],
)
def test_the_policy_decides(
    tmp_path: Path,
    manifests: dict[int, ReleaseManifest],
    policy: dict[str, object],
    shadow: ShadowFigures | None,
    expected: tuple[str, str],
) -> None:
    site = Site(tmp_path, **policy)
    site.offer(manifests[1])
    site.shadow = shadow
    assert site.offer(manifests[2], beside=manifests[1]) == expected
    assert site.serving == ((2, 1) if expected[0] == "accepted" else (1, None))


def test_other_classes_cannot_be_compared(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, if_unclear="hold")
    site.offer(manifests[1])
    fewer = manifests[1].recipe.model_copy(update={"classes": ("nv", "mel")})
    other = manifests[1].model_copy(update={"recipe": fewer})
    assert site.offer(manifests[2], beside=other) == ("held", "classes-changed")
    assert site.compared == 0


def test_what_was_decided_stands_after_a_restart_and_is_told_once(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="hold")
    site.offer(manifests[1])
    site.offer(manifests[2], beside=manifests[1])
    again = Site(tmp_path, on_release="accept")
    assert again.offer(manifests[2], beside=manifests[1]) == ("held", "policy")
    assert again.serving == (1, None)
    assert [(d.version, d.verdict) for d in site.told] == [(1, "accepted"), (2, "held")]
    assert again.told == []
    assert (tmp_path / "decisions.json").stat().st_mode & 0o777 == 0o600


def test_a_person_accepts_what_was_held(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="hold")
    site.offer(manifests[1])
    site.offer(manifests[2], beside=manifests[1])
    assert [alarm.code for alarm in decision_alarms(site.desk.state)] == ["release-held"]
    assert not site.desk.is_open(2)
    site.desk.accept(manifests[2], by="it-anna")
    assert site.desk.is_open(2)
    assert site.serving == (1, None), "it answers only when it was loaded and tested"
    assert site.offer(manifests[2], beside=manifests[1]) == ("accepted", "person")
    assert (site.serving, decision_alarms(site.desk.state)) == ((2, 1), [])
    assert [d.by for d in site.told] == ["policy", "policy", "it-anna"]


def test_a_person_who_refuses_while_it_is_judged_has_the_last_word(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="accept")
    site.offer(manifests[1])
    instead_of = site.desk.state.serving
    decision = site.desk.judge(manifests[2], beside=manifests[1], compare=site.compare)
    site.desk.refuse(manifests[2], by="it-anna")
    with pytest.raises(CaseRefused, match="answers already"):
        site.desk.take(manifests[2], decision, instead_of=instead_of)
    assert site.serving == (1, None)
    assert not site.desk.is_open(2)
    assert decision_alarms(site.desk.state) == []


def test_a_rollback_pins_until_a_newer_one_is_accepted(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="accept")
    with pytest.raises(CaseRefused) as caught:
        site.desk.roll_back(by="it-anna")
    assert caught.value.code == "no-previous-release"
    site.offer(manifests[1])
    site.offer(manifests[2], beside=manifests[1])
    site.desk.roll_back(by="it-anna")
    assert (site.serving, site.desk.state.pinned) == ((1, None), True)
    assert not site.desk.is_open(2), "the coordinator's offer does not bring it back"
    assert [alarm.code for alarm in decision_alarms(site.desk.state)] == ["release-rolled-back"]
    with pytest.raises(CaseRefused):
        site.desk.roll_back(by="it-anna")
    site.offer(manifests[3], beside=manifests[1])
    assert (site.serving, site.desk.state.pinned) == ((3, 1), False)
    with pytest.raises(CaseRefused):
        site.desk.accept(manifests[2], by="it-anna")


def test_a_coordinators_rollback_to_what_answered_here_passes_at_once(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="accept")
    for version in (1, 2):
        site.offer(manifests[version], beside=manifests.get(version - 1))
    site.policy = ReleasePolicy(on_release="hold")
    assert site.offer(manifests[4], beside=manifests[2]) == ("accepted", "rollback")
    assert (site.serving, site.compared) == ((4, 1), 0), "release 2 is nothing to fall back to"


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_a_coordinators_rollback_replaces_is_gone_back_from_too(
    tmp_path: Path, manifests: dict[int, ReleaseManifest], *, by_hand: bool
) -> None:
    site = Site(tmp_path, on_release="accept")
    if not by_hand:
        site.offer(manifests[1])
    site.offer(manifests[2], beside=manifests[1])
    site.offer(manifests[3], beside=manifests[2])
    site.policy = ReleasePolicy(on_release="hold")
    if by_hand:  # what is restored never answered here
        assert site.offer(manifests[4], beside=manifests[3]) == ("held", "policy")
        site.desk.accept(manifests[4], by="it-anna")
        assert len(site.desk.state.accepted_before(4)) == 2, "it does not answer yet"
    site.told.clear()
    site.offer(manifests[4], beside=manifests[3])
    state = site.desk.state
    gone = [(d.version, d.verdict, d.by, d.reason) for d in site.told if d.version != 4]
    assert gone == [(v, "rolled-back", "policy", "rollback") for v in (2, 3)]
    assert (site.serving, state.pinned, decision_alarms(state)) == ((4, None), False, [])
    later = [decision.version for decision in state.accepted_before(5)]
    assert later == ([4] if by_hand else [4, 1])
    told = len(site.told)
    site.desk.take(manifests[4], state.newest(4), instead_of=state.serving)
    assert (site.desk.state, len(site.told)) == (state, told), "once"


def test_a_rollback_to_what_never_answered_here_is_judged_as_any_other(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="hold")
    site.offer(manifests[2])
    assert site.offer(manifests[4], beside=manifests[2]) == ("held", "policy")
    harsher = manifests[4].model_copy(update={"version": 5, "threshold": 0.99})
    site.desk.accept(manifests[4], by="it-anna")
    site.offer(manifests[4], beside=manifests[2])
    assert site.offer(harsher, beside=manifests[4]) == ("held", "policy")


def test_without_a_readable_policy_nothing_new_is_decided(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path)
    site.offer(manifests[1])
    site.policy = None
    with pytest.raises(PrivacyRefused):
        site.offer(manifests[2], beside=manifests[1])
    assert (site.serving, site.desk.state.newest(2)) == ((1, None), None)


@pytest.mark.parametrize("content", [b"", b"{", b'{"serving": 4}'])
def test_damaged_decisions_are_an_alarm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "decisions.json").write_bytes(content)
    state = Site(tmp_path).desk.state
    assert state.serving is None
    assert [alarm.code for alarm in decision_alarms(state)] == ["release-decisions-damaged"]


def test_two_processes_see_what_the_other_decided(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    service, command = Site(tmp_path, on_release="hold"), Site(tmp_path)
    service.offer(manifests[1])
    service.offer(manifests[2], beside=manifests[1])
    before = service.desk.decisions.stamp()
    command.desk.accept(manifests[2], by="it-anna")
    assert service.desk.decisions.stamp() != before
    assert service.desk.is_open(2)


def test_the_list_says_what_became_of_each(
    tmp_path: Path, manifests: dict[int, ReleaseManifest]
) -> None:
    site = Site(tmp_path, on_release="accept")
    site.offer(manifests[1])
    site.offer(manifests[2], beside=manifests[1])
    site.policy = ReleasePolicy()
    site.shadow = figures(-0.1, 0.05)
    site.offer(manifests[3], beside=manifests[2])
    document = releases_document(site.desk.state, ReleasePolicy(), site="a", task="b")
    assert (document.serving, document.previous, document.waiting) == (2, 1, 3)
    assert [row.state for row in document.rows] == ["held", "serving", "previous"]
    assert document.rows[0].figures == site.shadow
    site.desk.roll_back(by="it-anna")
    document = releases_document(site.desk.state, ReleasePolicy(), site="a", task="b")
    assert [row.state for row in document.rows] == ["held", "rolled-back", "serving"]
