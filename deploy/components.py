"""What runs where: the processes of a coordinator and of a site, as specs for a supervisor.

============== =============================== ==========================================
process        where                           what it does
============== =============================== ==========================================
superlink      coordinator                     Flower's hub: nodes, messages, runs
gateway        coordinator                     nginx: all that a site can reach of the others
superexec      coordinator                     starts a ServerApp process for each run
keeper         coordinator                     lets campaigns go on whose ServerApp died
coordinator    coordinator                     publishes releases, serves them over HTTPS
<site>-node    site                            SuperNode: the one outbound connection
<site>-runner  site                            runs the messages with the site's own code
<site>-service site                            inference service and the clinician's page
<site>-dicom   site                            receives images from a PACS, where it may
============== =============================== ==========================================
"""

from __future__ import annotations

import os
import shlex
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from client.settings import SiteSettings
from common.folders import write_private
from deploy.flower_run import ENVIRONMENT
from deploy.gateway.configuration import nginx
from deploy.ports import reached_at
from deploy.processes import GUARD, ProcessSpec
from server.settings import CoordinatorSettings

BIN = Path(sys.executable).parent
PROBE_SECONDS = 2.0

INHERITED = (
    *("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"),
    *("PGPASSFILE", "PGPASSWORD", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"),
)
"""Of the caller's environment, with what libpq reads, so that services reach the database that
commands reach. Proxies are left out, for they would catch loopback; so are ``WARDROUND_*``
settings, which would give every site the same values. ``OTEL_*`` ask for traces
(`common.tracing`)."""


def superlink(settings: CoordinatorSettings, logs: Path) -> ProcessSpec:
    """Describe Flower's SuperLink: TLS, authenticated nodes, ServerApps in processes apart."""
    keys = settings.keys
    command = [
        str(BIN / "flower-superlink"),
        "--host", "127.0.0.1",
        "--port", str(settings.superlink_port),
        "--ssl-ca-certfile", str(keys / "ca.crt"),
        "--ssl-certfile", str(keys / "server.crt"),
        "--ssl-keyfile", str(keys / "server.key"),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        "--database", str(settings.data / "superlink.db"),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(keys / "superexec.secret"),
    ]  # fmt: skip
    return ProcessSpec(
        name="superlink",
        command=command,
        environment=environment(settings.data / "flower-superlink"),
        log=logs / "superlink.log",
        ready=_answers(f"https://127.0.0.1:{settings.superlink_port}/health", keys / "ca.crt"),
    )


def superexec(settings: CoordinatorSettings, logs: Path) -> ProcessSpec:
    """Describe Flower's SuperExec, which starts a ServerApp process for each run."""
    command = [
        str(BIN / "flower-superexec"),
        "--runtime-api-address", f"127.0.0.1:{settings.superlink_port}",
        "--root-certificates", str(settings.keys / "ca.crt"),
        "--superexec-auth-secret-file", str(settings.keys / "superexec.secret"),
    ]  # fmt: skip
    further = {
        "WARDROUND_COORDINATOR_FOLDER": str(settings.folder),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
    }
    inherited = environment(settings.data / "flower-superexec", further)
    stub = _guarded_serverapp(settings.data / "bin", logs / "serverapp.log")
    return ProcessSpec(
        name="superexec",
        command=command,
        environment={**inherited, "PATH": f"{stub.parent}:{inherited['PATH']}"},
        log=logs / "superexec.log",
    )


def _guarded_serverapp(folder: Path, log: Path) -> Path:
    """Write the ``flwr-serverapp`` that SuperExec finds first: Flower's own, guarded and logged.

    Flower starts it with its output thrown away, and it watches its parent by asking whether
    the process id exists, which it does as long as nobody has reaped the zombie.
    """
    words = [sys.executable, "-I", "-S", str(GUARD)]
    real = str(BIN / "flwr-serverapp")
    text = (
        "#!/bin/sh\n"
        f'exec {shlex.join(words)} "$PPID" {shlex.quote(real)} '
        f'"$@" >> {shlex.quote(str(log))} 2>&1\n'
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    stub = folder / "flwr-serverapp"
    write_private(stub, text.encode())
    stub.chmod(0o700)
    return stub


def coordinator_service(settings: CoordinatorSettings, logs: Path) -> ProcessSpec:
    """Describe the coordinator's own service."""
    return ProcessSpec(
        name="coordinator",
        command=[sys.executable, "-m", "server.main", "--folder", str(settings.folder)],
        environment=environment(settings.data / "flower-service"),
        log=logs / "coordinator.log",
        ready=_answers(f"{coordinator_page(settings)}/health/live", settings.keys / "ca.crt"),
    )


def keeper(settings: CoordinatorSettings, logs: Path) -> ProcessSpec:
    """Describe the keeper, which lets campaigns go on whose ServerApp died."""
    return ProcessSpec(
        name="keeper",
        command=[sys.executable, "-m", "deploy.keeper", "--folder", str(settings.folder)],
        environment=environment(settings.data / "flower-keeper"),
        log=logs / "keeper.log",
    )


def gateway(settings: CoordinatorSettings, logs: Path) -> ProcessSpec:
    """Describe the gateway, ready when it answers a TLS client; its configuration is rendered."""
    configuration = settings.gateway / "nginx.conf"
    command = [
        str(nginx()),
        "-c", str(configuration),
        "-e", str(logs / "gateway.log"),
        "-g", "daemon off;",
    ]  # fmt: skip
    return ProcessSpec(
        name="gateway",
        command=command,
        environment=environment(settings.data / "gateway"),
        log=logs / "gateway.log",
        ready=lambda: _listens(reached_at(settings.gateway_host, settings.gateway_port)),
    )


def site_node(settings: SiteSettings, logs: Path) -> ProcessSpec:
    """Describe a site's SuperNode, ready when the SuperLink knows it."""
    name = f"{settings.name}-node"
    flag = settings.data / f".{name}.ready"
    command = [sys.executable, "-m", "client.runner.supernode", "--folder", str(settings.folder)]
    return ProcessSpec(
        name=name,
        command=[*command, "--ready", str(flag)],
        environment=environment(settings.data / "flower-node"),
        log=logs / f"{name}.log",
        ready_file=flag,
    )


def site_runner(settings: SiteSettings, logs: Path) -> ProcessSpec:
    """Describe a site's runner, ready when everything is imported."""
    name = f"{settings.name}-runner"
    flag = settings.data / f".{name}.ready"
    command = [sys.executable, "-m", "client.runner", "--folder", str(settings.folder)]
    return ProcessSpec(
        name=name,
        command=[*command, "--ready", str(flag)],
        environment=environment(settings.data / "flower-runner"),
        log=logs / f"{name}.log",
        ready_file=flag,
    )


def site_service(settings: SiteSettings, logs: Path) -> ProcessSpec:
    """Describe a site's inference service, ready when it answers, with or without a model."""
    name = f"{settings.name}-service"
    return ProcessSpec(
        name=name,
        command=[sys.executable, "-m", "client.standby", "--folder", str(settings.folder)],
        environment=environment(settings.data / "flower-service"),
        log=logs / f"{name}.log",
        ready=_answers(f"{site_url(settings)}/health/live", settings.tls_certificate),
    )


def site_dicom(settings: SiteSettings, logs: Path) -> ProcessSpec:
    """Describe a site's DICOM receiver, for a site that lets some caller send to it."""
    name = f"{settings.name}-dicom"
    command = [sys.executable, "-m", "deploy.cli", "site", "dicom"]
    return ProcessSpec(
        name=name,
        command=[*command, "--site", str(settings.folder)],
        environment=environment(settings.data / "flower-dicom"),
        log=logs / f"{name}.log",
    )


def site_url(settings: SiteSettings) -> str:
    """Return the base URL of a site's inference service on this machine."""
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://{reached_at(settings.host, settings.port)}"


def coordinator_page(settings: CoordinatorSettings) -> str:
    """Return the base URL of the coordinator's service on this machine."""
    return f"https://{reached_at(settings.host, settings.port)}"


def environment(flower_home: Path, further: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a process's whole environment: what it needs, and nothing inherited by chance."""
    flower_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith("OTEL_")
    }
    return {
        **inherited,
        **ENVIRONMENT,
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "FLWR_HOME": str(flower_home),
        "PYTHONUNBUFFERED": "1",
        **(further or {}),
    }


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS):
            return True
    except OSError:
        return False


def _answers(url: str, trusted: Path | None) -> Callable[[], bool]:
    """Return a probe, which trusts a CA's or the server's own certificate, whatever its names.

    A hospital's certificate comes from the hospital's CA and names the machine as browsers do,
    not the address at which the machine reaches itself.
    """

    def probe() -> bool:
        try:
            context = _trusting(trusted) if trusted is not None else False
            with httpx.Client(verify=context, timeout=PROBE_SECONDS, trust_env=False) as client:
                return client.get(url).status_code == httpx.codes.OK
        except (httpx.HTTPError, OSError):
            return False

    return probe


def _trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
