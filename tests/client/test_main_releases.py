"""The service against a real coordinator: signed releases over TLS, an outage, a bad release."""

from __future__ import annotations

from pathlib import Path

from client.releases.cache import ReleaseCache
from client.settings import SiteSettings
from common.model import build_model, state_tensors
from common.recipe import load_recipe
from common.update import Tensors, tensors_digest
from tests.client.serving import ServedSite, picture, served_site
from tests.releases import TASK, Coordinator, draft, served

RECIPE = load_recipe(TASK).with_changes(model="test_resnet", image_size=32)


def publish(coordinator: Coordinator, seed: int, tensors: Tensors) -> int:
    changes = {"recipe": RECIPE, "model_digest": tensors_digest(tensors)}
    return coordinator.publisher.publish(draft(seed).model_copy(update=changes), tensors)


def network(seed: int) -> Tensors:
    return state_tensors(build_model(RECIPE, seed=seed))


def answered(site: ServedSite) -> tuple[int, str]:
    body = site.predict(picture()).json()
    return body["model_version"], body["model_digest"]


def alarms(site: ServedSite) -> list[str]:
    return [alarm["code"] for alarm in site.call("GET", "/health/ready").json()["alarms"]]


def settings_at(coordinator: Coordinator, folder: Path, port: int) -> SiteSettings:
    settings = coordinator.site(folder, port)
    return settings.model_copy(update={"threads": 1, "device": "cpu"})


def test_from_the_coordinators_signature_to_the_answer(tmp_path: Path) -> None:
    coordinator = Coordinator.create(tmp_path / "coordinator")
    with served(coordinator) as port:
        settings = settings_at(coordinator, tmp_path / "site", port)
        with served_site(settings, ReleaseCache(settings)) as site:
            assert site.predict(picture()).status_code == 503
            publish(coordinator, 1, network(1))
            site.services.watcher.poll()
            assert answered(site) == (1, tensors_digest(network(1)))
            publish(coordinator, 2, network(2))
            site.services.watcher.poll()
            assert answered(site) == (2, tensors_digest(network(2)))
            assert alarms(site) == []

            unfit = {k: v for k, v in network(3).items() if not k.endswith("bias")}
            publish(coordinator, 3, unfit)
            site.services.watcher.poll()
            assert answered(site)[0] == 2
            assert alarms(site) == ["model-mismatch", "release-rejected"]
            publish(coordinator, 4, network(4))
            site.services.watcher.poll()
            assert (answered(site)[0], alarms(site)) == (4, [])

    # The coordinator is gone; the site starts anew and answers from its disk.
    with served_site(settings, ReleaseCache(settings)) as site:
        assert answered(site) == (4, tensors_digest(network(4)))
        site.services.watcher.poll()
        assert alarms(site) == ["coordinator-unreachable"]
        assert answered(site)[0] == 4
