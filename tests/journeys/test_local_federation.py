"""Two hospitals and a coordinator as real processes, with TLS, on one machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from client.policy import SitePolicy
from client.releases.policy import ReleasePolicy
from common.errors import ConfigurationError
from common.recipe import Recipe
from deploy.audit_report import audit
from deploy.campaigns import Progress
from deploy.commands.site_outbox import read_outbox
from deploy.local import LocalFederation
from server.registry.registry import Registry
from tests.client.rounds import TOY, fill

pytestmark = pytest.mark.journey

SITES = ("north", "south")
POLICY = SitePolicy(
    allowed_recipes=("toy",),
    release_evaluation=True,
    minimum_cell=1,
    max_grad_norm=2.0,
    declared_patients=25,
    releases=ReleasePolicy(on_release="accept"),  # toys get worse by chance
)
ROUND_LIMIT_SECONDS = 90.0


def toy_recipe() -> Recipe:
    privacy = TOY.privacy.model_copy(update={"training": TOY.training})
    return TOY.model_copy(update={"privacy": privacy})


def processes_in(folder: Path) -> list[psutil.Process]:
    """Living processes that were started for a federation in ``folder``."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and any(str(folder) in word for word in words):
            found.append(process)
    return [p for p in found if p.pid != psutil.Process().pid]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("federation") / "here"


@pytest.fixture(scope="module")
def federation(folder: Path) -> Iterator[LocalFederation]:
    federation = LocalFederation(
        folder, sites=SITES, task="toy", recipe=toy_recipe(), policy=POLICY
    )
    with federation:
        federation.start()
        for name in SITES:
            fill(federation.site(name), 24, "train")
            fill(federation.site(name), 12, "holdout")
        federation.wait_ready()
        yield federation


def test_a_round_of_two_sites_ends_in_a_verdict(
    federation: LocalFederation, record_property: Callable[[str, object], None]
) -> None:
    seen: list[Progress] = []
    begin = time.monotonic()
    identifier = federation.start_campaign(toy_recipe(), rounds=2, epsilon=4.0)
    campaign = federation.wait_campaign(identifier, seen.append, timeout=ROUND_LIMIT_SECONDS)
    seconds = time.monotonic() - begin
    assert campaign.state == "finished"
    assert seen[-1].rounds_done == 2
    accepted = [c for c in seen[-1].contributions if c.round == 1 and c.outcome == "accepted"]
    assert {c.site for c in accepted} == set(SITES)
    for contribution in accepted:
        assert contribution.receipt is not None
        assert contribution.receipt.epsilon_campaign is not None
        assert 0 < contribution.receipt.epsilon_campaign <= 4.0
    registry = Registry.open(federation.coordinator)
    assert registry.candidates(campaign=identifier)
    registry.close()
    record_property("seconds_for_two_rounds", round(seconds, 1))
    assert seconds < ROUND_LIMIT_SECONDS


def test_both_ends_wrote_down_the_same(federation: LocalFederation) -> None:
    """After the round: every byte that the sites say left is what the coordinator says came."""
    folders = [federation.site(name).folder for name in SITES]
    report = audit(folders, federation.coordinator.folder)
    assert report.whole, report
    assert report.differences == ()
    for folder in folders:
        outbox = read_outbox(folder)
        assert outbox.totals.updates == 2
        assert outbox.totals.refusals == 0
        assert all(entry.nonce for entry in outbox.entries if "receipt" in entry.contents)


def test_each_service_answers_at_its_url(federation: LocalFederation) -> None:
    ca = str(federation.coordinator.keys / "ca.crt")
    live = httpx.get(f"{federation.coordinator_url}/health/live", verify=ca, trust_env=False)
    assert live.status_code == httpx.codes.OK
    for name in SITES:
        answer = httpx.get(f"{federation.site_url(name)}/health/live", trust_env=False)
        assert answer.status_code == httpx.codes.OK


def test_the_same_folder_cannot_run_twice(federation: LocalFederation) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LocalFederation(federation.folder).start()
    assert caught.value.code == "federation-running"
    assert set(federation.states().values()) == {"running"}


def test_stopping_leaves_nothing_and_frees_the_ports(
    federation: LocalFederation, folder: Path
) -> None:
    """The module's last test: it stops the shared federation."""
    coordinator = federation.coordinator
    ports = [coordinator.port, coordinator.superlink_port]
    ports += [p for n in SITES for p in (federation.site(n).port, federation.site(n).runtime_port)]
    begin = time.monotonic()
    federation.stop()
    assert time.monotonic() - begin < 15.0
    assert processes_in(folder) == []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
