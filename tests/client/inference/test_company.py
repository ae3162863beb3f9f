from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from client.inference.company import Company
from client.inference.engine import InferenceEngine
from client.releases.cache import LocalRelease
from client.releases.decisions import ReleaseDecision, SiteReleases
from common.errors import ReleaseError
from tests.client.serving import RECIPE, release

SIDE = RECIPE.image.size


def load(release: LocalRelease) -> InferenceEngine:
    return InferenceEngine.load(release, device=torch.device("cpu"))


def decision(release: LocalRelease, verdict: str = "accepted") -> ReleaseDecision:
    return ReleaseDecision(
        version=release.version,
        model_digest=release.manifest.model_digest,
        verdict=verdict,  # type: ignore[arg-type]
        by="policy",
        reason="policy",
        at=datetime(2026, 11, 21, tzinfo=UTC),
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LocalRelease]:
    folder = tmp_path_factory.mktemp("releases")
    favours = {1: "nv", 2: "mel", 3: "nv", 4: "bcc"}
    return {v: release(folder, v, favours=name) for v, name in favours.items()}


def company(
    kept: dict[int, LocalRelease],
    size: int,
    *,
    verdicts: dict[int, str] | None = None,
    load: Callable[[LocalRelease], InferenceEngine] = load,
) -> Company:
    verdicts = dict.fromkeys(kept, "accepted") | (verdicts or {})
    decided = SiteReleases(
        decisions=tuple(decision(r, verdicts[v]) for v, r in kept.items() if v in verdicts)
    )
    return Company(load, load_member=load, find=kept.get, state=lambda: decided, size=size)


def test_accepted_releases_answer_together_and_disagree_openly(
    kept: dict[int, LocalRelease],
) -> None:
    engine = company(kept, 3).load(kept[4])
    assert [member.version for member in engine.members] == [3, 2]
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    found = engine.answers(images)
    assert found.members is not None
    assert found.members.shape == (2, 3, len(RECIPE.classes))
    np.testing.assert_allclose(found.probabilities, found.members.mean(axis=1))
    alone = [load(kept[v]).probabilities(images) for v in (4, 3, 2)]
    np.testing.assert_allclose(found.members, np.stack(alone, axis=1), atol=1e-6)
    np.testing.assert_allclose(found.logits, engine.outputs(images).logits)
    assert found.row(1).members is not None


def test_alone_unless_asked_for(kept: dict[int, LocalRelease]) -> None:
    engine = company(kept, 1).load(kept[4])
    assert engine.members == ()
    assert engine.answers(np.zeros((1, SIDE, SIDE, 3), np.uint8)).members is None


@pytest.mark.parametrize("verdict", ["refused", "held", "rolled-back"])
def test_what_the_site_did_not_accept_does_not_answer(
    kept: dict[int, LocalRelease], verdict: str
) -> None:
    engine = company(kept, 3, verdicts={3: verdict}).load(kept[4])
    assert [member.version for member in engine.members] == [2, 1]


def test_newer_ones_never_join_an_older_one(kept: dict[int, LocalRelease]) -> None:
    assert [m.version for m in company(kept, 8).load(kept[2]).members] == [1]


def test_what_is_not_what_was_accepted_or_asks_another_question_stays_away(
    kept: dict[int, LocalRelease], tmp_path: Path
) -> None:
    other = RECIPE.with_changes(image_size=48)
    swapped = {
        1: release(tmp_path, 1, recipe=other),
        2: kept[2],
        3: LocalRelease(kept[1].manifest, kept[1].path),
        4: kept[4],
    }
    decisions = tuple(decision(r) for r in (swapped[1], kept[2], kept[3], kept[4]))
    state = SiteReleases(decisions=decisions)
    found = Company(load, load_member=load, find=swapped.get, state=lambda: state, size=4).load(
        kept[4]
    )
    assert [m.version for m in found.members] == [2]


def test_what_a_rollback_replaced_never_joins_whatever_the_site_wrote_down(
    kept: dict[int, LocalRelease],
) -> None:
    lineage = kept[4].manifest.lineage.model_copy(update={"restores": 2, "replaces": 3})
    rollback = kept[4].manifest.model_copy(update={"lineage": lineage})
    newer = kept[3].manifest.model_copy(update={"version": 5})
    together = {
        **kept,
        4: LocalRelease(rollback, kept[4].path),
        5: LocalRelease(newer, kept[3].path),
    }
    made = company(together, 8)
    assert [m.version for m in made.load(together[4]).members] == [2, 1]
    assert [m.version for m in made.load(together[5]).members] == [4, 2, 1]


def test_a_restored_release_is_no_second_opinion(kept: dict[int, LocalRelease]) -> None:
    again = kept[4].manifest.model_copy(update={"version": 5})
    together = {**kept, 5: LocalRelease(again, kept[4].path)}
    engine = company(together, 2).load(together[5])
    assert engine.members == ()


def test_an_old_release_that_is_damaged_costs_nothing_but_its_opinion(
    kept: dict[int, LocalRelease],
) -> None:
    def failing(release: LocalRelease) -> InferenceEngine:
        if release.version == 3:
            raise ReleaseError("damaged", code="release-corrupted")
        return load(release)

    engine = company(kept, 3, load=failing).load(kept[4])
    assert [m.version for m in engine.members] == [2]
