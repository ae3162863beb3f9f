"""The keys of a repository: secret, known to its root, and the root's own not needed every day."""

from __future__ import annotations

import stat

import pytest

from common.errors import ConfigurationError
from common.signing import SigningKey
from server.publishing.keys import ROLES
from tests.releases import Coordinator
from tests.server.publishing.onlooker import Onlooker


def test_role_keys_are_four_and_secret(coordinator: Coordinator) -> None:
    files = sorted((coordinator.settings.keys / "tuf").iterdir())
    assert [f.name for f in files] == sorted(f"{role}.pem" for role in ROLES)
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert len({f.read_bytes() for f in files}) == 4


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_key_that_the_root_does_not_name_publishes_nothing(
    coordinator: Coordinator, onlooker: Onlooker, role: str
) -> None:
    coordinator.publish(1)
    (coordinator.settings.keys / "tuf" / f"{role}.pem").write_bytes(SigningKey.generate().pem())
    with pytest.raises(ConfigurationError) as caught:
        coordinator.publish(2)
    assert caught.value.code == "key-unknown-to-root"
    newest = onlooker.newest()
    assert newest is not None
    assert newest.version == 1


def test_the_root_key_may_be_taken_off_the_machine(coordinator: Coordinator) -> None:
    (coordinator.settings.keys / "tuf" / "root.pem").unlink()
    assert coordinator.publish(1) == 1


def test_a_key_that_others_can_read_signs_nothing(coordinator: Coordinator) -> None:
    (coordinator.settings.keys / "tuf" / "targets.pem").chmod(0o640)
    with pytest.raises(ConfigurationError) as caught:
        coordinator.publish(1)
    assert caught.value.code == "key-readable"
