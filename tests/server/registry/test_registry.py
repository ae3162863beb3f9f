import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from common.database import migrate, open_database
from common.errors import InputRefused, NotFound, RoundFailed, StoreError
from common.release import GateCheck, ModelFile, ReleaseManifest, model_target
from server.candidates import record_candidate
from server.evaluation import pooled_metrics
from server.registry.records import (
    Campaign,
    CampaignSettings,
    Candidate,
    Contribution,
    TrainablePhase,
)
from server.registry.registry import MIGRATIONS, Registry
from server.registry.tables import Base
from server.release_gate import Evidence
from tests.fakes import TRAINABLE, FakeSite, first_model, make_receipt, toy_recipe
from tests.plans import make_plan
from tests.server.registry.opened import opened

SETTINGS = CampaignSettings(
    rounds=3,
    epsilon=8.0,
    quorum=2,
    phases=(TrainablePhase(first_round=1, scope="all", names=TRAINABLE),),
)
DIGEST = "ab" * 32


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    with opened(database_url) as registry:
        yield registry


@pytest.fixture
def lite(sqlite_database_url: str) -> Iterator[Registry]:
    with opened(sqlite_database_url) as registry:
        yield registry


def campaign(registry: Registry) -> Campaign:
    return registry.add_campaign(toy_recipe(), SETTINGS, initial_digest=DIGEST)


def candidate(registry: Registry, *, approve: bool = True, passed: bool = True) -> Candidate:
    found = campaign(registry)
    registry.start_round(found.id, 1, purpose="train", base_digest=DIGEST)
    sites = [FakeSite("north"), FakeSite("south")]
    plan = make_plan(campaign=found.id)
    for site in sites:
        reply = site.honest(plan, first_model())
        registry.record_contribution(
            Contribution(found.id, 1, site.name, 1, "accepted", receipt=reply.receipt)
        )
    good = {"head.weight": -100 * first_model()["head.weight"]}
    evaluations = {s.name: s.evaluation({**first_model(), **_target()}) for s in sites}
    evidence = Evidence(
        recipe=found.recipe,
        epsilon=8.0,
        tensors=good,
        candidate=evaluations if passed else {},
        champion=None,
        accepted=registry.contributions(found.id),
    )
    changed = found.settings.model_copy(update={"auto_approve": approve})
    found = Campaign(**{**vars(found), "settings": changed})
    return record_candidate(registry, found, evidence, model_digest=DIGEST, rounds=1)


def _target() -> dict[str, object]:
    from tests.fakes import TARGET

    return dict(TARGET)


def manifest(found: Candidate, version: int = 1) -> ReleaseManifest:
    file = ModelFile(name=model_target(found.model_digest), sha256="cd" * 32, bytes=10)
    return found.draft.released(version, file)


def test_the_migrations_make_the_tables_of_the_code(database_url: str) -> None:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_sites_keep_flowers_64_bit_node_ids(registry: Registry) -> None:
    registry.register_site("south", node_id=2**64 - 1, public_key="one")
    registry.register_site("north", node_id=5, public_key="two")
    assert [(s.name, s.node_id) for s in registry.sites()] == [("north", 5), ("south", 2**64 - 1)]
    registry.register_site("north", node_id=6, public_key="three")
    assert registry.sites()[0].public_key == "three"
    with pytest.raises(InputRefused) as caught:
        registry.register_site("west", node_id=6, public_key="four")
    assert caught.value.code == "node-id-taken"


def test_a_campaigns_life(registry: Registry) -> None:
    made = campaign(registry)
    assert registry.campaign(made.id) == made
    assert made.created_at.tzinfo == UTC
    assert abs((datetime.now(UTC) - made.created_at).total_seconds()) < 60
    started = registry.start_campaign(made.id, flower_run=2**63 + 1)
    assert (started.state, started.flower_run) == ("running", str(2**63 + 1))
    registry.finish_campaign(made.id)
    registry.fail_campaign(made.id, "too late to fail")
    ended = registry.campaign(made.id)
    assert (ended.state, ended.failure) == ("finished", None)
    assert ended.finished_at is not None
    assert ended.settings == SETTINGS
    assert ended.recipe == toy_recipe()


def test_campaign_ids_sort_by_time_and_list_newest_first(lite: Registry) -> None:
    ids = [campaign(lite).id for _ in range(5)]
    assert [c.id for c in lite.campaigns()] == ids[::-1]
    assert [i[:15] for i in ids] == sorted(i[:15] for i in ids)
    assert lite.campaigns(state="running") == ()


def test_only_one_run_can_start_a_campaign(registry: Registry) -> None:
    made = campaign(registry)
    barrier = threading.Barrier(4)

    def start(run: int) -> str:
        barrier.wait()
        try:
            return str(registry.start_campaign(made.id, flower_run=run).flower_run)
        except RoundFailed as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(start, range(4)))
    assert outcomes[1:] == ["campaign-state"] * 3
    assert registry.campaign(made.id).flower_run == outcomes[0]


def test_what_is_not_there_is_named(registry: Registry) -> None:
    with pytest.raises(NotFound, match="no-such"):
        registry.campaign("no-such")
    with pytest.raises(NotFound):
        registry.start_campaign("no-such")
    with pytest.raises(NotFound, match="7"):
        registry.release(7)
    with pytest.raises(NotFound):
        registry.end_round(campaign(registry).id, 9)
    assert registry.champion("toy") is None


def test_rounds_are_seen_as_they_happen(registry: Registry) -> None:
    made = campaign(registry)
    registry.start_round(made.id, 1, purpose="train", base_digest=DIGEST)
    (running,) = registry.rounds(made.id)
    assert (running.state, running.metrics, running.finished_at) == ("running", None, None)
    evaluation = FakeSite("north").evaluation(first_model())
    found = pooled_metrics({"north": evaluation}, toy_recipe().classes)
    registry.end_round(made.id, 1, aggregate_digest="cd" * 32, metrics=found)
    (ended,) = registry.rounds(made.id)
    assert (ended.state, ended.metrics, ended.aggregate_digest) == ("finished", found, "cd" * 32)
    with pytest.raises(StoreError) as caught:
        registry.start_round(made.id, 1, purpose="train", base_digest=DIGEST)
    assert caught.value.code == "registry-conflict"


def test_failing_a_campaign_ends_its_open_round(registry: Registry) -> None:
    made = campaign(registry)
    registry.start_round(made.id, 1, purpose="train", base_digest=DIGEST)
    registry.fail_campaign(made.id, "the disk is full")
    assert registry.campaign(made.id).failure == "the disk is full"
    assert [r.state for r in registry.rounds(made.id)] == ["failed"]


def test_contributions_keep_the_receipt_and_the_reason(registry: Registry) -> None:
    made = campaign(registry)
    registry.start_round(made.id, 1, purpose="train", base_digest=DIGEST)
    receipt = make_receipt("north", make_plan(campaign=made.id), None)
    kept = Contribution(
        made.id, 1, "north", 1, "accepted", receipt=receipt, update_norm=1.5, bytes=9, seconds=2.0
    )
    late = Contribution(made.id, 1, "south", 1, "late", code="deadline")
    for contribution in (late, kept):
        registry.record_contribution(contribution)
    registry.record_contribution(kept)
    assert registry.contributions(made.id) == (kept, late)
    assert registry.contributions(made.id, number=2) == ()
    with pytest.raises(StoreError):
        registry.record_contribution(Contribution(made.id, 8, "north", 1, "late"))


def test_an_approved_candidate_becomes_a_release_once(registry: Registry) -> None:
    found = candidate(registry)
    assert found.state == "approved"
    assert registry.approved_candidates() == (found,)
    release = registry.record_release(manifest(found))
    assert registry.record_release(manifest(found)) == release
    assert registry.approved_candidates() == ()
    assert registry.champion("toy") == release == registry.release(1)
    assert registry.champion("other") is None
    assert [c.state for c in registry.candidates(campaign=found.campaign)] == ["published"]
    with pytest.raises(RoundFailed) as caught:
        registry.record_release(manifest(found, version=2))
    assert caught.value.code == "candidate-not-approved"


def test_two_candidates_cannot_have_one_version(registry: Registry) -> None:
    first, second = candidate(registry), candidate(registry)
    registry.rollouts.approve(second.id, by="anna", champion_changed=True)
    assert [c.id for c in registry.approved_candidates()] == [first.id, second.id]
    registry.record_release(manifest(first))
    with pytest.raises(StoreError):
        registry.record_release(manifest(second))
    assert [c.id for c in registry.approved_candidates()] == [second.id]


@pytest.mark.parametrize(
    ("approve", "passed", "state"),
    [(True, False, "refused"), (False, True, "waiting"), (False, False, "refused")],
)
def test_without_approval_nothing_is_released(
    lite: Registry, approve: bool, passed: bool, state: str
) -> None:
    found = candidate(lite, approve=approve, passed=passed)
    assert found.state == state
    assert lite.approved_candidates() == ()
    with pytest.raises(RoundFailed):
        lite.record_release(manifest(found))


def test_a_candidate_without_any_check_is_refused(lite: Registry) -> None:
    found = candidate(lite)
    other = campaign(lite)
    lineage = found.draft.lineage.model_copy(update={"campaign": other.id, "candidate": other.id})
    draft = found.draft.model_copy(update={"gate": (), "lineage": lineage})
    assert lite.add_candidate(other.id, draft, evaluation=None, approve=True).state == "refused"
    assert isinstance(found.draft.gate[0], GateCheck)


def test_a_database_that_is_gone_is_named(lite: Registry, tmp_path: object) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(StoreError, match="registry"):
        Registry(engine).sites()
