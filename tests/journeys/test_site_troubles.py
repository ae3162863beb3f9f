"""Disk full, database away, coordinator away: answers go on, the service says why, and heals."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from client.audit import open_site_audit
from client.settings import SiteSettings
from common.audit_entries import Unaudited
from deploy.ports import free_port
from tests.databases import _as_unprivileged, _call, find_binaries
from tests.releases import Coordinator, served
from tests.soak.site_load import picture
from tests.soak.site_process import SiteProcess, alarm_codes, publish, running, site_folder

pytestmark = [pytest.mark.journey, pytest.mark.timeout(400)]
HEALED = "all well again"


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    made = Coordinator.create(tmp_path / "coordinator")
    publish(made, 1)
    return made


def predict(site: SiteProcess, seed: int = 1) -> httpx.Response:
    files = {"image": ("x.png", picture(seed))}
    return httpx.post(f"{site.url}/predict", files=files, timeout=30, trust_env=False)


def store(site: SiteProcess, seed: int) -> httpx.Response:
    files = {"image": ("x.png", picture(seed))}
    return httpx.post(f"{site.url}/cases", files=files, timeout=60, trust_env=False)


def metrics(site: SiteProcess) -> str:
    return httpx.get(f"{site.url}/metrics", timeout=10, trust_env=False).text


def page(site: SiteProcess) -> str:
    found = httpx.get(f"{site.url}/", timeout=10, trust_env=False, follow_redirects=True)
    return found.text


def said_everywhere(site: SiteProcess, code: str) -> None:
    """Wait until readiness, metrics and page say a code; answers go on meanwhile."""
    site.wait_for(code, lambda found: code in alarm_codes(found), 60)
    assert f'wardround_site_release_alarm{{code="{code}"}} 1.0' in metrics(site)
    assert f'data-code="{code}"' in page(site)
    for seed in range(3):
        begun = time.monotonic()
        assert predict(site, seed).status_code == 200
        assert time.monotonic() - begun < 5


def healed(site: SiteProcess, *codes: str) -> None:
    site.wait_for(HEALED, lambda found: not alarm_codes(found) & set(codes), 60)
    assert predict(site).status_code == 200
    assert store(site, 900).status_code in (200, 201)


def gaps(settings: SiteSettings) -> int:
    """Return how many answers the audit log says that it lacks."""
    with open_site_audit(settings) as audit:
        entries = [line.entry() for line in audit.lines(kinds=["unaudited"])]
    return sum(entry.predictions for entry in entries if isinstance(entry, Unaudited))


def unaudited(site: SiteProcess) -> int:
    name = "wardround_site_predictions_unaudited_total "
    line = next(line for line in metrics(site).splitlines() if line.startswith(name))
    return int(float(line.removeprefix(name)))


def test_a_disk_that_takes_nothing(coordinator: Coordinator, tmp_path: Path) -> None:
    """No file may grow: as a full disk, for every program whatever its user."""
    with served(coordinator) as port:
        settings = site_folder(tmp_path / "site", coordinator, port)
        with running(settings) as site:
            assert store(site, 1).status_code == 201
            serving = site.serving_pid()
            before = resource.prlimit(serving, resource.RLIMIT_FSIZE)
            resource.prlimit(serving, resource.RLIMIT_FSIZE, (0, before[1]))
            said_everywhere(site, "disk-full")
            refused = store(site, 2)
            assert (refused.status_code, refused.json()["code"]) == (503, "store")
            publish(coordinator, 2)
            time.sleep(3)
            assert (site.health() or {})["model_version"] == 1
            lost = unaudited(site)
            resource.prlimit(serving, resource.RLIMIT_FSIZE, before)
            site.wait_for("v2", lambda found: found["model_version"] == 2)
            healed(site, "disk-full", "disk", "store")
        assert gaps(settings) == lost > 0


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a disk of this size, or skip."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(folder)]
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine allows no mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Take all the room that there is."""
    with ballast.open("wb", buffering=0) as stream:
        for size in (2**20, 4096):
            with suppress(OSError):
                while stream.write(bytes(size)) == size:
                    pass


def test_a_disk_that_is_full(coordinator: Coordinator, tmp_path: Path) -> None:
    with served(coordinator) as port, small_disk(tmp_path / "disk", 128) as disk:
        settings = site_folder(disk / "site", coordinator, port)
        with running(settings) as site:
            site.wait_for("disk-low", lambda found: "disk-low" in alarm_codes(found), 30)
            ballast = disk / "ballast"
            fill(ballast)
            said_everywhere(site, "disk-full")
            assert store(site, 2).status_code == 503
            ballast.unlink()
            healed(site, "disk-full")


def test_a_database_that_another_program_holds(coordinator: Coordinator, tmp_path: Path) -> None:
    with served(coordinator) as port:
        settings = site_folder(tmp_path / "site", coordinator, port)
        with running(settings) as site:
            case = store(site, 1).json()["case_id"]
            holder = sqlite3.connect(settings.data / "cases.db", isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            said_everywhere(site, "database-locked")
            holder.execute("ROLLBACK")
            holder.close()
            healed(site, "database-locked", "store")
            url = f"{site.url}/cases/{case}/confirm"
            body = {"label": "benign"}
            assert httpx.post(url, json=body, timeout=30, trust_env=False).status_code == 200


def test_a_database_file_that_is_gone_and_comes_back(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    with served(coordinator) as port:
        settings = site_folder(tmp_path / "site", coordinator, port)
        with running(settings) as site:
            case = store(site, 1).json()["case_id"]
            database = settings.data / "cases.db"
            database.rename(database.with_name("away"))
            said_everywhere(site, "database-away")
            assert not database.exists(), "no empty database in its place"
            database.with_name("away").rename(database)
            healed(site, "database-away")
            assert store(site, 1).json()["case_id"] == case


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a cluster's URL and the command that stops or starts it."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine (initdb, pg_ctl)")
    pytest.importorskip("psycopg")
    prefix, port = _as_unprivileged(folder), free_port()
    data = folder / "data"
    initdb = [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "wardround", "-A", "trust"]
    _call([*initdb, "-E", "UTF8", "--no-sync", "--no-instructions"], folder)
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -p {port}"
    control = [*prefix, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
    control += ["-l", str(folder / "server.log"), "-o", options]
    _call([*control, "start"], folder)
    try:
        yield f"postgresql://wardround@/postgres?host={folder}&port={port}", control
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True)


def test_a_postgresql_that_is_stopped(coordinator: Coordinator, tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="wardround-pg-") as folder,
        postgres(Path(folder)) as (url, control),
        served(coordinator) as port,
    ):
        settings = site_folder(tmp_path / "site", coordinator, port, database_url=url)
        with running(settings) as site:
            assert store(site, 1).status_code == 201
            _call([*control, "-m", "immediate", "stop"], Path(folder))
            said_everywhere(site, "database-away")
            assert store(site, 2).status_code == 503
            lost = unaudited(site)
            _call([*control, "start"], Path(folder))
            healed(site, "database-away", "store")
        assert gaps(settings) == lost > 0


POLICY = """
[releases]
stale_after = 4.0
refuse_after = 25.0
"""


def test_a_coordinator_that_is_away_for_longer_than_its_timestamp(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    port = free_port()
    with served(coordinator, port=port):
        settings = site_folder(tmp_path / "site", coordinator, port, policy=POLICY)
        site = SiteProcess(settings)
        site.start()
        try:
            site.wait_ready()
        except BaseException:
            site.kill()
            raise
    try:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        said_everywhere(site, "model-stale")
        assert "coordinator-unreachable" in alarm_codes(site.health() or {})
        site.wait_for("refuses", lambda found: found["status"] == "model-stale", 60)
        refused = predict(site)
        assert (refused.status_code, refused.json()["code"]) == (503, "model-stale")
        assert store(site, 3).status_code == 201, "cases are stored all the same"
        site.kill()
        site.start()
        site.wait_for("still refuses", lambda found: found["status"] == "model-stale", 60)
        with served(coordinator, port=port):
            publish(coordinator, 2)
            site.wait_for("v2", lambda found: found["model_version"] == 2)
            healed(site, "model-stale", "coordinator-unreachable")
    finally:
        site.kill()
