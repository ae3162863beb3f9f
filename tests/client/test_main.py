import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from client.main import check_exposure, main, make_app
from client.settings import SiteSettings
from common.errors import ConfigurationError
from tests.client.serving import (
    RECIPE,
    FakeReleases,
    listening,
    picture,
    release,
    site_settings,
)

SWAPS = 10
CALLERS = 6


def settings_for(folder: Path, **fields: object) -> SiteSettings:
    return SiteSettings.model_validate(
        {"folder": folder, "name": "st-elsewhere", "task": RECIPE.name, **fields}
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_needs_no_tls(tmp_path: Path, host: str) -> None:
    check_exposure(settings_for(tmp_path, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "ward.example"])
def test_beyond_loopback_is_refused_in_the_clear(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROUND_SITE_ACCESS", "accounts")
    with pytest.raises(ConfigurationError) as refused:
        check_exposure(settings_for(tmp_path, host=host))
    assert refused.value.code == "exposed-without-tls"
    check_exposure(settings_for(tmp_path, host=host, allow_plain_http=True))
    pair = {"tls_certificate": tmp_path / "c.pem", "tls_key": tmp_path / "k.pem"}
    check_exposure(settings_for(tmp_path, host=host, **pair))
    monkeypatch.setenv("WARDROUND_SITE_ACCESS", "open")
    with pytest.raises(ConfigurationError) as refused:
        check_exposure(settings_for(tmp_path, host=host, **pair))
    assert refused.value.code == "open-beyond-loopback"


@pytest.mark.parametrize("half", ["tls_certificate", "tls_key"])
def test_half_a_tls_pair_is_refused(tmp_path: Path, half: str) -> None:
    with pytest.raises(ConfigurationError, match="go together"):
        check_exposure(settings_for(tmp_path, **{half: tmp_path / "x.pem"}))


def test_ten_swaps_under_load_drop_nothing(tmp_path: Path) -> None:
    """Every answer is wholly one version's: its number, its digest and its probabilities."""
    favourites = {v: RECIPE.classes[v % len(RECIPE.classes)] for v in range(1, SWAPS + 2)}
    versions = {v: release(tmp_path, v, favours=name) for v, name in favourites.items()}
    releases = FakeReleases(versions[1])
    app = make_app(site_settings(tmp_path), releases=releases)
    done = threading.Event()

    def ask(url: str, caller: int) -> list[tuple[int, dict[str, object]]]:
        answers = []
        with httpx.Client(base_url=url, timeout=60) as client:
            while not done.is_set():
                answer = client.post("/predict", files={"image": ("x.png", picture(caller))})
                answers.append((answer.status_code, answer.json()))
        return answers

    with listening(app.state.services.settings, app) as url, ThreadPoolExecutor(CALLERS) as pool:
        futures = [pool.submit(ask, url, caller) for caller in range(CALLERS)]
        try:
            for version in range(2, SWAPS + 2):
                releases.published.append(versions[version])
                app.state.services.watcher.poll()
        finally:
            done.set()
        answers = [answer for future in futures for answer in future.result(60)]
    assert Counter(status for status, _ in answers).keys() == {200}
    seen = Counter(int(str(body["model_version"])) for _, body in answers)
    assert len(seen) > 3, "the swaps happened while answers were given"
    for _, body in answers:
        version = int(str(body["model_version"]))
        assert body["model_digest"] == versions[version].manifest.model_digest
        assert body["probabilities"][favourites[version]] > 0.9  # type: ignore[index]
    assert app.state.services.watcher.swaps == SWAPS + 1


def test_an_oversize_stream_is_answered_before_it_ends(tmp_path: Path) -> None:
    settings = site_settings(tmp_path, maximum_upload_bytes=200_000)
    app = make_app(settings, releases=FakeReleases(release(tmp_path, 1)))
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        while True:
            sent += 65_536
            yield bytes(65_536)

    headers = {"content-type": "multipart/form-data; boundary=edge"}
    with listening(settings, app) as url:
        answer = httpx.post(f"{url}/predict", content=endless(), headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")
        assert sent < 64 * 1024 * 1024
        declared = httpx.post(
            f"{url}/predict", content=bytes(3_000_000), headers=headers, timeout=30
        )
        assert declared.status_code == 413
        again = httpx.post(f"{url}/predict", files={"image": ("x.png", picture())}, timeout=30)
        assert again.status_code == 200


def test_a_caller_that_goes_away_leaves_no_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = site_settings(tmp_path)
    app = make_app(settings, releases=FakeReleases(release(tmp_path, 1)))
    services = app.state.services
    head = (
        b"POST /cases HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\n"
    )
    with listening(settings, app) as url:
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as half:
            half.sendall(head)
        assert httpx.get(f"{url}/health/live").status_code == 200
    assert services.admission.admitted == 0
    assert services.store.counts(RECIPE.name).waiting == 0
    assert "event=unexpected" not in caplog.text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lines_until(process: subprocess.Popen[str], text: str, seconds: float) -> list[str]:
    assert process.stderr is not None
    lines: list[str] = []
    # Not select(): lines that the reader has taken out of the pipe already would not wake it.
    patience = threading.Timer(seconds, process.kill)
    patience.start()
    try:
        for line in process.stderr:
            lines.append(line)
            if text in line:
                return lines
    finally:
        patience.cancel()
    pytest.fail("".join(lines))


def start(folder: Path) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARDROUND_")}
    command = [sys.executable, "-u", "-m", "client.main", "--folder", str(folder)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**environment, "OMP_NUM_THREADS": "1"}
    )


def test_the_process_serves_without_a_coordinator_and_ends_on_sigterm(tmp_path: Path) -> None:
    port = free_port()
    site_settings(tmp_path, port=port, coordinator_url=f"https://127.0.0.1:{free_port()}")
    process = start(tmp_path / "site")
    try:
        lines_until(process, "Uvicorn running", 120)
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/health/live").json() == {"status": "live"}
        assert httpx.get(f"{url}/health/ready").status_code == 503
        stored = httpx.post(f"{url}/cases", files={"image": ("MRN-7.png", picture())})
        assert stored.status_code == 201
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=120)  # a busy machine ends slowly, too
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, -signal.SIGTERM)
    assert "event=request method=POST route=/cases status=201" in rest
    assert "MRN-7" not in rest


def test_wrong_settings_are_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["client.main", "--folder", str(tmp_path)])
    monkeypatch.setattr("client.main.configure_logging", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (record,) = caplog.records
    assert "event=not-started code=configuration" in record.getMessage()
    assert str(tmp_path / "site.toml") in record.getMessage()
