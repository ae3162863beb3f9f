import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from deploy.ports import FIRST, LAST, claim, free_port, is_free, require_ports


def test_a_free_port_can_be_bound_and_a_taken_one_is_not_free() -> None:
    port = free_port()
    assert FIRST <= port <= LAST
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(1)
        assert not is_free(port)
    assert is_free(port)


def test_taken_ports_are_left_out() -> None:
    middle = (FIRST + LAST) // 2
    for _ in range(20):
        assert free_port(range(FIRST, middle)) >= middle


def _other_process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"from deploy.ports import claim\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_port_that_another_federation_claimed_is_left_to_it_until_it_is_killed() -> None:
    port = free_port()
    with _other_process(f"print(claim({port}), flush=True)") as other:
        assert other.communicate()[0] == "False\n"
    second = port + 1 if is_free(port + 1) else port + 2
    holder = _other_process(f"print(claim({second}), flush=True); input()")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert is_free(second)
    assert not claim(second)
    holder.kill()
    holder.communicate()
    assert claim(second)
    assert claim(second), "a claim of one's own holds"


def test_a_folder_of_somebody_else_binds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"wardround-ports-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert is_free(free_port())
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_is_named_with_its_setting(listens: str, tmp_path: Path) -> None:
    free = free_port()
    with socket.create_server((listens, 0)) as server:
        port = server.getsockname()[1]
        wanted = {"port": ("127.0.0.1", free), "superlink_port": ("127.0.0.1", port)}
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            with pytest.raises(ConfigurationError) as caught:
                require_ports({**wanted, "superlink_port": (host, port)}, tmp_path / "some.toml")
            assert caught.value.code == "port-in-use"
            assert caught.value.what == f"Port {port} of superlink_port is in use."
            assert f"superlink_port in {tmp_path / 'some.toml'}" in caught.value.action
    require_ports(wanted, tmp_path)


def test_two_settings_with_one_port_and_an_address_of_another_machine(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(ConfigurationError, match="both port and runtime_port") as caught:
        require_ports({"port": ("127.0.0.1", port), "runtime_port": ("127.0.0.1", port)}, tmp_path)
    assert caught.value.code == "port-in-use"
    with pytest.raises(ConfigurationError) as caught:
        require_ports({"gateway_port": ("192.0.2.1", port)}, tmp_path)
    assert caught.value.code == "port-unusable"
    require_ports({"a": ("127.0.0.1", 0), "b": ("127.0.0.1", 0)}, tmp_path)
