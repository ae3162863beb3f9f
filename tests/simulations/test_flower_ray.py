import threading

import pytest

from simulations.flower_ray import StoppableGrid, Stopped


class Grid:
    run = "run"

    def set_run(self, run):
        self.run = run

    def create_message(self, *arguments):
        return arguments

    def get_node_ids(self):
        return [1]

    def push_messages(self, messages):
        return [str(m) for m in messages]

    def pull_messages(self, message_ids):
        return list(message_ids)

    def send_and_receive(self, messages, *, timeout=None):
        return [*messages, timeout]


def calls(grid):
    return [
        grid.get_node_ids,
        lambda: grid.push_messages([1]),
        lambda: grid.pull_messages(["1"]),
        lambda: grid.send_and_receive([1], timeout=2),
        lambda: grid.create_message(None, "train", 1, "1"),
        lambda: grid.run,
    ]


def test_a_grid_hands_on_until_it_is_stopped():
    stop = threading.Event()
    grid = StoppableGrid(Grid(), stop)
    grid.set_run("other")
    assert [call() for call in calls(grid)] == [
        [1],
        ["1"],
        ["1"],
        [1, 2],
        (None, "train", 1, "1", None),
        "other",
    ]
    stop.set()
    for call in calls(grid):
        with pytest.raises(Stopped):
            call()


def test_stopping_passes_through_handlers_of_errors():
    assert not issubclass(Stopped, Exception)
