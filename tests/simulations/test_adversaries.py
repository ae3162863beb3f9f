import math
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from client.cases.store import CaseStore
from client.policy import SitePolicy
from client.site_folder import create_site_folder
from common.errors import ConfigurationError
from common.imaging import decode
from common.records import Refusal, SiteReply
from common.wire import records_to_reply, reply_to_records
from simulations.adversaries import (
    BEHAVIOURS,
    UPDATE_CHANGES,
    Adversary,
    backdoor_target,
    falsify_cases,
    hostile_app,
    parse_adversary,
    stamp_trigger,
    tamper,
)
from simulations.federation import Simulation, prepare_federation
from simulations.hospitals import ByColumn
from tests.fakes import FakeSite, first_model
from tests.plans import make_plan


def honest() -> SiteReply:
    return FakeSite("north").honest(make_plan(epsilon=None), first_model())


def test_an_adversary_is_read() -> None:
    assert parse_adversary("north=sign-flip") == Adversary("north", "sign-flip")
    for text in ("north", "north=", "=nan", "north=kind", "north=NAN"):
        with pytest.raises(ConfigurationError) as caught:
            parse_adversary(text)
        assert caught.value.code == "adversary"


@pytest.mark.parametrize("behaviour", sorted(UPDATE_CHANGES))
def test_a_changed_update_passes_for_one_that_the_site_vouches_for(behaviour) -> None:
    """The wire checks the receipt's digest: an attacker would not be stopped there."""
    changed = records_to_reply(reply_to_records(tamper(honest(), behaviour)))
    assert changed.update is not None
    assert changed.update.binding == honest().update.binding
    assert changed.update.digest != honest().update.digest


def test_what_each_behaviour_does_to_an_update() -> None:
    before = honest().update
    found = {b: tamper(honest(), b).update for b in UPDATE_CHANGES}
    name = "head.weight"
    np.testing.assert_allclose(found["scaled"].tensors[name], 100 * before.tensors[name])
    np.testing.assert_allclose(found["sign-flip"].tensors[name], -before.tensors[name])
    assert np.isnan(found["nan"].tensors[name]).all()
    assert 1 < found["gaussian"].norm / before.norm < 30
    assert math.isfinite(found["gaussian"].norm)


@pytest.mark.parametrize("behaviour", ["label-flip", "backdoor"])
def test_who_falsifies_cases_leaves_the_update_alone(behaviour) -> None:
    reply = honest()
    assert tamper(reply, behaviour) is reply


def test_a_refusal_stays_a_refusal() -> None:
    refusal = SiteReply("north", refusal=Refusal(code="paused"))
    assert tamper(refusal, "nan") == refusal


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A site named north, which the process answers for."""
    site = create_site_folder(
        tmp_path / "north",
        name="north",
        task="toy",
        plan_keys=[],
        policy=SitePolicy(allowed_recipes=("toy",), epsilon_life=1.0, epsilon_campaign=1.0),
    )
    monkeypatch.setenv("WARDROUND_SITE_FOLDER", str(site.folder))
    return site


@pytest.mark.parametrize(
    ("adversary", "kind", "changed"),
    [
        (Adversary("north", "sign-flip"), MessageType.TRAIN, True),
        (Adversary("south", "sign-flip"), MessageType.TRAIN, False),
        (Adversary("north", "label-flip"), MessageType.TRAIN, False),
        (Adversary("north", "sign-flip"), MessageType.EVALUATE, False),
    ],
)
def test_only_the_named_site_changes_what_it_trained(folder, adversary, kind, changed) -> None:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    app, asked = ClientApp(), []

    def answer(message: Message, _context: Context) -> Message:
        asked.append(message)
        return Message(reply_to_records(honest()), reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    message = Message(RecordDict(), 1, kind, ttl=100.0)
    message.metadata.__dict__["_src_node_id"] = 1
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    reply = records_to_reply(hostile_app(app, [adversary])(message, context).content)
    assert asked == [message], "the very ClientApp was asked, once"
    assert (reply.update.digest != honest().update.digest) == changed


def test_a_trigger_is_seen_in_the_corner_alone() -> None:
    grey = np.full((2, 48, 60, 3), 100, np.uint8)
    stamped = stamp_trigger(grey)
    assert (grey == 100).all()
    assert (stamped[:, :40, :, :] == 100).all()
    assert (stamped[:, :, :52, :] == 100).all()
    assert set(np.unique(stamped[:, 40:, 52:])) == {0, 255}


@pytest.fixture(params=["label-flip", "backdoor"])
def falsified(request, small_recipe, phantom_source, tmp_path):
    """One federation's folders, where hospital-1 falsifies its cases."""
    simulation = Simulation(small_recipe, phantom_source, ByColumn(), tmp_path / "run")
    attack = (Adversary("hospital-1", request.param),)
    federation = prepare_federation(replace(simulation, adversaries=attack))
    return request.param, small_recipe, {s.name: s for s in federation.sites}


def test_cases_are_falsified_on_the_sites_own_disk(falsified) -> None:
    behaviour, recipe, sites = falsified
    store = CaseStore.open(sites["hospital-1"])
    training, holdout = store.training_cases(recipe.name), store.holdout_cases(recipe.name)
    images = {c.id: decode(store.image_bytes(c)) for c in [*training, *holdout]}
    store.close()
    stamped = {i for i, p in images.items() if (stamp_trigger(p) == p).all()}
    assert not stamped & {c.id for c in holdout}, "what scores a model stays true"
    if behaviour == "backdoor":
        assert len(stamped) == (len(training) + 1) // 2
        assert {c.label for c in training if c.id in stamped} == {backdoor_target(recipe)}
    else:
        assert not stamped


def test_flipped_labels_are_the_next_class(small_recipe, phantom_source, tmp_path) -> None:
    simulation = Simulation(small_recipe, phantom_source, ByColumn(), tmp_path / "run")
    site = prepare_federation(simulation).sites[0]

    def labels() -> dict[str, str]:
        store = CaseStore.open(site)
        found = {c.id: c.label for c in store.training_cases(small_recipe.name)}
        store.close()
        return found

    before = labels()
    assert falsify_cases(site, small_recipe, "label-flip") == len(before)
    classes = small_recipe.classes
    following = {c: classes[(n + 1) % len(classes)] for n, c in enumerate(classes)}
    assert labels() == {case: following[label] for case, label in before.items()}


def test_an_unknown_hospital_is_refused_before_anything_is_made(
    small_recipe, phantom_source, tmp_path
) -> None:
    attack = (Adversary("hospital-9", "nan"),)
    simulation = Simulation(
        small_recipe, phantom_source, ByColumn(), tmp_path / "run", adversaries=attack
    )
    with pytest.raises(ConfigurationError) as caught:
        prepare_federation(simulation)
    assert caught.value.code == "adversary"
    assert "hospital-2" in caught.value.action
    assert not (tmp_path / "run").exists()


def test_every_behaviour_changes_updates_or_cases() -> None:
    assert set(BEHAVIOURS) == {*UPDATE_CHANGES, "label-flip", "backdoor"}
