"""Every query of the dashboards and alert rules asks for what the services really tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from client.backup.making import RECORD
from client.monitoring.drift import drift
from client.monitoring.fairness import fairness
from client.monitoring.performance import performance
from client.monitoring.promise import Promise
from client.monitoring.snapshot import DriftLook, Snapshot
from client.releases.freshness import CacheStatus
from server.api.application import create_app
from server.api.services import CoordinatorServices
from server.registry.records import Outcome
from server.registry.registry import Registry
from server.triggers.store import TriggerStore
from tests.client.monitoring.outcomes import drawn
from tests.client.monitoring.samples import MODEL, answers, reference
from tests.client.serving import FakeReleases, ServedSite, picture, release, served_site
from tests.client.serving import site_settings as new_site
from tests.client.test_certificates import write_certificate
from tests.deploy.promql import Malformed, Query, parse
from tests.releases import Coordinator
from tests.server.signed_in import BASE, bearer
from tests.server.test_api_coordinator import running_campaign
from tests.server.triggers.test_store import TRIGGER

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
NOW = datetime.now(UTC)
FREE = frozenset({"status", "code"})
"""Labels whose values come and go; their names must be there all the same."""
OUTCOMES = frozenset(get_args(Outcome))
BUILT_IN = frozenset({"job", "instance"})


@dataclass(frozen=True)
class Told:
    """What an endpoint tells: of each sample's name, the label sets."""

    samples: dict[str, list[dict[str, str]]]

    @classmethod
    def of(cls, text: str) -> Told:
        found: dict[str, list[dict[str, str]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(dict(sample.labels))
        return cls(found)

    def faults(self, query: Query) -> list[str]:
        """Return what a query asks for that is not told."""
        faults, labels = [], set()
        for selector in query.selectors:
            series = self.samples.get(selector.metric)
            if series is None:
                faults.append(f"no metric {selector.metric}")
                continue
            names = {name for one in series for name in one}
            labels |= names
            for matcher in selector.matchers:
                values = {one[matcher.label] for one in series if matcher.label in one}
                if matcher.label == "outcome":
                    values |= OUTCOMES
                if matcher.label not in names:
                    faults.append(f"{selector.metric} has no label {matcher.label}")
                elif matcher.label not in FREE and not any(map(matcher.holds, values)):
                    faults.append(f"{selector.metric}: no {matcher.label} like {matcher.value}")
        return faults + [f"no label {name}" for name in sorted(query.labels - labels)]

    def labels(self, query: Query) -> set[str]:
        """Return the labels that a query's result has."""
        if query.kept is not None:
            return query.kept
        series = [one for s in query.selectors for one in self.samples.get(s.metric, [])]
        return {name for one in series for name in one}


@dataclass(frozen=True)
class Question:
    """One query, where it stands, and the labels that its text shows."""

    where: str
    expression: str
    shown: frozenset[str]


def dashboard(name: str) -> Iterator[Question]:
    found = json.loads((FOLDER / f"{name}.json").read_text())
    for panel in found["panels"]:
        for target in panel.get("targets", ()):
            shown = frozenset(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
            yield Question(f"{name}: {panel['title']}", target["expr"], shown)


def rules(name: str) -> Iterator[Question]:
    for group in yaml.safe_load((FOLDER / f"{name}.yml").read_text())["groups"]:
        for rule in group["rules"]:
            text = " ".join(rule["annotations"].values())
            shown = frozenset(re.findall(r"\$labels\.(\w+)", text))
            yield Question(f"{name}: {rule['alert']}", rule["expr"], shown)


SITE = [*dashboard("wardround-site"), *rules("rules-site")]
COORDINATOR = [*dashboard("wardround-coordinator"), *rules("rules-coordinator")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    """A running site of which everything can be told."""
    folder = tmp_path_factory.mktemp("site")
    settings = new_site(folder)
    ends = NOW + timedelta(days=300)
    write_certificate(settings.keys / "site.crt", starts=NOW - timedelta(days=1), ends=ends)
    record = {
        "site": settings.name, "folder": "/backups", "made_at": NOW.isoformat(), "images": 1,
        "missing": 0, "bytes": 1, "database": "copied",
    }  # fmt: skip
    (settings.data / RECORD).parent.mkdir(parents=True, exist_ok=True)
    (settings.data / RECORD).write_text(json.dumps(record))
    releases = FakeReleases(release(folder, 1))
    releases.status = CacheStatus(1, NOW, NOW, "coordinator-slow", "slow")
    with served_site(settings, releases) as served:
        assert served.predict(picture()).status_code == 200
        served.services.monitor._snapshot = snapshot()
        yield served


def snapshot() -> Snapshot:
    outcomes = [*drawn(200, 0.9, 0.8, sex="female"), *drawn(200, 0.7, 0.9, sex="male", seed=1)]
    kinds = drift(reference(), answers(200), MODEL, fewest=100)
    return Snapshot(
        refreshed_at=NOW,
        seconds=0.2,
        version=1,
        minimum_cell=10,
        drift=DriftLook(kinds, 200, NOW, NOW),
        recent=performance(outcomes, version=1, month=None, minimum=10),
        promise=Promise(0.95, 0.5, 0.9, 0.05),
        fairness=fairness(outcomes, minimum=10),
    )


@pytest.fixture(scope="module")
def site_tells(site: ServedSite) -> Told:
    return Told.of(site.call("GET", "/metrics").text)


@pytest.fixture(scope="module")
def coordinator_tells(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Tell of a coordinator whose trigger has not fired yet."""
    coordinator = Coordinator.create(tmp_path_factory.mktemp("federation") / "coordinator")
    coordinator.publish(1)
    registry = Registry.open(coordinator.settings)
    running_campaign(coordinator, registry)
    services = CoordinatorServices(coordinator.settings, coordinator.publisher, registry)
    app = create_app(services)
    with TestClient(app, base_url=BASE, headers=bearer(registry)) as client:
        TriggerStore(registry._engine).add(TRIGGER)
        client.get("/health/ready")
        found = Told.of(client.get("/metrics").text)
    registry.close()
    return found


def held(question: Question, told: Told) -> None:
    query = parse(question.expression)
    assert query.selectors or "vector" in question.expression
    assert told.faults(query) == []
    assert question.shown <= told.labels(query) | BUILT_IN


@pytest.mark.parametrize("question", SITE, ids=lambda q: q.where)
def test_a_site_s_query_is_answered(question: Question, site_tells: Told) -> None:
    held(question, site_tells)


@pytest.mark.parametrize("question", COORDINATOR, ids=lambda q: q.where)
def test_the_coordinator_s_query_is_answered(question: Question, coordinator_tells: Told) -> None:
    held(question, coordinator_tells)


def test_the_first_failure_of_a_trigger_is_a_rise(tmp_path: Path) -> None:
    coordinator = Coordinator.create(tmp_path / "coordinator")
    registry = Registry.open(coordinator.settings)
    app = create_app(CoordinatorServices(coordinator.settings, coordinator.publisher, registry))
    triggers, failed = TriggerStore(registry._engine), 'firings{state="failed",task="toy"}'
    with TestClient(app, base_url=BASE, headers=bearer(registry)) as client:
        triggers.add(TRIGGER)
        assert f"wardround_trigger_{failed} 0.0" in client.get("/metrics").text
        triggers.begin(TRIGGER, "2026-03", "new cases", now=NOW)
        triggers.end(TRIGGER.name, "2026-03", campaign=None, code="disk-full")
        assert f"wardround_trigger_{failed} 1.0" in client.get("/metrics").text
        triggers.remove(TRIGGER.name)
        assert f"wardround_trigger_{failed} 1.0" in client.get("/metrics").text
    registry.close()


def test_every_metric_is_written_about(site_tells: Told, coordinator_tells: Told) -> None:
    page = (FOLDER.parents[1] / "docs" / "metrics.md").read_text()
    for told in (site_tells, coordinator_tells):
        ours = {n for n in told.samples if n.startswith("wardround_") and "_created" not in n}
        plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
        assert [name for name in sorted(plain) if f"`{name}`" not in page] == []


def test_no_metric_tells_who(site: ServedSite, site_tells: Told) -> None:
    allowed = {
        "route", "method", "status", "version", "task", "digest", "runtime", "purpose", "code",
        "kind", "figure", "bound", "axis", "rate", "le",
    }  # fmt: skip
    assert {
        name for series in site_tells.samples.values() for one in series for name in one
    } <= allowed
    assert site.services.settings.name not in site.call("GET", "/metrics").text


def test_what_is_found_is_shown_in_json(site: ServedSite) -> None:
    document: Any = site.call("GET", "/monitoring").json()
    assert document["state"] == "ready"
    assert [kind["kind"] for kind in document["drift"]["kinds"]] == [
        "inputs", "embeddings", "predictions",
    ]  # fmt: skip
    told = {one["name"]: one for one in document["recent"]["figures"]}
    assert told["sensitivity"]["standing"] == "broken"
    assert {group["group"] for group in document["groups"]} == {"female", "male", "other"}


@pytest.mark.parametrize(
    "query",
    [
        "wardround_site_drift{kind=inputs}", "rate(wardround_site_drift)", "sum(rate(x[5m])",
        "wardround_site_drift ==", 'x{a="b"', "histogram_quantile(0.9)", "rates(x[5m])", "1 2",
        "x[5]", "sum(x) by", "",
    ],
)  # fmt: skip
def test_what_is_no_query_is_refused(query: str) -> None:
    with pytest.raises(Malformed):
        parse(query)


def test_a_query_for_what_is_not_there_is_found_out(site_tells: Told) -> None:
    wrong = {
        "wardround_site_drifts": "no metric wardround_site_drifts",
        'wardround_site_drift{sort="inputs"}': "wardround_site_drift has no label sort",
        'wardround_site_drift{kind="input"}': "wardround_site_drift: no kind like input",
        "sum by (kinds) (wardround_site_drift)": "no label kinds",
    }
    for text, fault in wrong.items():
        assert site_tells.faults(parse(text)) == [fault]


@pytest.mark.parametrize("kind", ["rules", "config"])
def test_prometheus_itself_takes_the_files(kind: str, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    for path in sorted(FOLDER.glob("*.yml")):
        text = re.sub(r"/etc/prometheus/\S+", str(tmp_path / "file"), path.read_text())
        (tmp_path / path.name).write_text(text)
    (tmp_path / "file").write_text("")
    files = sorted(tmp_path.glob("rules-*.yml" if kind == "rules" else "prometheus-*.yml"))
    assert len(files) == 2
    done = subprocess.run(
        [promtool, "check", kind, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_can_be_imported() -> None:
    for name in ("wardround-site", "wardround-coordinator"):
        found = json.loads((FOLDER / f"{name}.json").read_text())
        panels = found["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [tuple(panel["gridPos"][k] for k in "xywh") for panel in panels]
        assert all(x + w <= 24 for x, _, w, _ in places)
        for number, (x, y, w, h) in enumerate(places):
            for a, b, c, d in places[number + 1 :]:
                assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
        assert found["uid"] == name
