"""What all tests of the coordinator's side share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from common.accounts import passwords
from tests.releases import coordinator, registry  # noqa: F401 - pytest finds fixtures by name


@pytest.fixture(autouse=True, scope="session")
def _cheap_passwords() -> Iterator[None]:
    """Spare the tests the seconds that a guess is to cost; the parameters alone are cheaper."""
    honest, made = passwords._hasher, list(passwords._made)
    passwords._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    passwords._made.clear()
    yield
    passwords._hasher, passwords._made[:] = honest, made
