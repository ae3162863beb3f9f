"""Killed at any write, a publisher leaves old or new, whole for whoever looks on, and goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from server.publishing import repository
from tests.releases import Coordinator
from tests.server.publishing.onlooker import Onlooker

PUBLISH_WRITES = 6  # model, manifest, pointer, targets, snapshot, timestamp
REFRESH_WRITES = 1
CREATE_WRITES = 4  # root, targets, snapshot, timestamp


def killed_at(write: int, *, after: bool, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child that is killed by SIGKILL at its ``write``-th file.

    ``after`` False leaves a half-written temporary file, True the whole file in its place.
    Returns whether the child was killed (False: it had fewer writes, and ended).
    """
    child = os.fork()
    if child == 0:
        count = 0
        honest = repository.write_public

        def deadly(path: Path, data: bytes) -> None:
            nonlocal count
            count += 1
            if count < write:
                honest(path, data)
                return
            if after:
                honest(path, data)
            else:
                path.with_name(f".{path.name}.draft").write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        repository.write_public = deadly
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", range(1, PUBLISH_WRITES + 1))
def test_a_kill_at_any_write_of_publishing_leaves_old_or_new_and_is_repeatable(
    coordinator: Coordinator, onlooker: Onlooker, write: int, after: bool
) -> None:
    coordinator.publish(1)
    first = onlooker.newest()
    assert killed_at(write, after=after, action=lambda: coordinator.publish(2))
    seen = onlooker.newest()
    committed = write == PUBLISH_WRITES and after
    assert seen is not None
    assert seen.version == (2 if committed else 1)
    assert seen == first or committed
    # Another candidate may come first; the client that looked on follows without a complaint.
    assert coordinator.publish(3) == (3 if committed else 2)
    assert onlooker.newest() is not None
    assert coordinator.publish(2) == (2 if committed else 3)
    newest = onlooker.newest()
    assert newest is not None
    assert newest.version == 3
    assert not [*coordinator.metadata.glob(".*"), *coordinator.targets.glob(".*")]


def test_publishing_has_no_more_writes_than_are_killed_above(coordinator: Coordinator) -> None:
    assert not killed_at(PUBLISH_WRITES + 1, after=True, action=lambda: coordinator.publish(1))
    assert coordinator.publisher.releases()[0].version == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_in_a_refresh_leaves_a_valid_timestamp(
    coordinator: Coordinator, onlooker: Onlooker, after: bool
) -> None:
    coordinator.publish(1)
    publisher = coordinator.publisher
    assert killed_at(REFRESH_WRITES, after=after, action=publisher.refresh_timestamp)
    assert onlooker.newest() is not None
    publisher.refresh_timestamp()
    assert onlooker.newest() is not None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", range(1, CREATE_WRITES + 1))
def test_a_kill_in_the_making_of_a_repository_is_made_good(
    coordinator: Coordinator, onlooker: Onlooker, write: int, after: bool
) -> None:
    shutil.rmtree(coordinator.settings.releases)
    assert killed_at(write, after=after, action=coordinator.publisher.initialise)
    coordinator.publisher.initialise()
    assert coordinator.publish(1) == 1
    assert onlooker.newest() is not None
