import inspect
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.logger import FLOWER_LOGGER, log
from flwr.superlink.runtime import run_serverapp

from common.errors import ConfigurationError, NotFound, RoundFailed
from server import app
from server.rounds.driver import campaign_folder, driving
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator


def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])


def context(**config: str) -> Context:
    return Context(
        run_id=42, node_id=0, node_config={}, state=RecordDict(), run_config=dict(config)
    )


def start(made: Coordinator, run: Context) -> None:
    app.app(made.grid, run)


def test_the_app_runs_the_campaign_of_the_run_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = coordinator(tmp_path)
    campaign = made.create(rounds=1)
    monkeypatch.setenv(app.FOLDER_VARIABLE, str(made.settings.folder))
    monkeypatch.setattr(app, "SystemClock", lambda: made.clock)
    start(made, context(campaign=campaign.id))
    ended = made.registry.campaign(campaign.id)
    assert (ended.state, ended.flower_run) == ("finished", "42")
    assert [c.state for c in made.registry.approved_candidates()] == ["approved"]


def test_without_a_folder_or_a_campaign_the_app_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = coordinator(tmp_path)
    monkeypatch.delenv(app.FOLDER_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=app.FOLDER_VARIABLE):
        start(made, context(campaign="c"))
    monkeypatch.setenv(app.FOLDER_VARIABLE, str(made.settings.folder))
    with pytest.raises(NotFound):
        start(made, context())
    with pytest.raises(NotFound, match="no-such"):
        start(made, context(campaign="no-such"))


def test_a_campaign_runs_once(tmp_path: Path) -> None:
    made = coordinator(tmp_path)
    campaign = made.create(rounds=1)
    made.run(campaign)
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "campaign-state"
    assert made.registry.campaign(campaign.id).state == "finished"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ConnectionError, MemoryError])
def test_a_campaign_that_is_cut_off_does_not_look_as_if_it_ran_on(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    made = coordinator(tmp_path)
    campaign = made.create(rounds=3)

    pull = made.grid.pull_messages

    def cut(identifiers: Iterable[str]) -> Iterable[Message]:
        if any(site.plans for site in made.sites.values()):  # the preflight is over
            raise fault
        return pull(identifiers)

    made.grid.pull_messages = cut  # type: ignore[method-assign]
    with pytest.raises(fault):
        made.run(campaign)
    ended = made.registry.campaign(campaign.id)
    assert (ended.state, ended.failure) == ("interrupted", fault.__name__)
    made.grid.pull_messages = pull  # type: ignore[method-assign]
    made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "finished"


def test_progress_can_be_followed_in_the_registry(tmp_path: Path) -> None:
    made = coordinator(tmp_path)
    campaign = made.create(rounds=2)
    seen: list[tuple[str, int, int]] = []
    sleep = made.clock.sleep

    def watch(seconds: float) -> None:
        sleep(seconds)
        rounds = made.registry.rounds(campaign.id)
        done = len(made.registry.contributions(campaign.id))
        if rounds:
            seen.append((rounds[-1].state, len(rounds), done))

    made.clock.sleep = watch  # type: ignore[method-assign]
    made.sites["south"].delay = 1.0
    made.run(campaign)
    assert ("running", 1, 1) in seen, "the first site's answer shows while the second works"
    assert ("running", 2, 3) in seen


def test_a_late_second_serverapp_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower prints a traceback of what a ServerApp raises, unless it is told otherwise."""
    made = coordinator(tmp_path)
    campaign = made.create(rounds=1)
    monkeypatch.setenv(app.FOLDER_VARIABLE, str(made.settings.folder))
    monkeypatch.setattr("server.rounds.driver.PATIENCE_SECONDS", 0.05)
    printed: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: printed.append(handler.format(record))  # type: ignore[method-assign]
    monkeypatch.setattr(FLOWER_LOGGER, "handlers", [handler])
    with driving(campaign_folder(made.settings, campaign.id)):
        try:
            start(made, context(campaign=campaign.id))
        except Exception as error:  # as `flwr.superlink.runtime.run_serverapp` does
            log(logging.ERROR, "%s raised an exception", "ServerApp", exc_info=error)
    (line,) = printed
    assert line.startswith("campaign-driven: Another ServerApp drives campaign")
    assert "\n" not in line
    assert made.registry.campaign(campaign.id).state == "created", "the first one's business"
    log(logging.ERROR, "%s raised an exception", "ServerApp", exc_info=ValueError("a bug"))
    assert "ValueError: a bug" in printed[-1], "what nobody expected is told in full"
    log(logging.INFO, "a line")
    assert printed[-1] == "a line"


def test_flower_still_logs_a_failed_serverapp_as_this_expects() -> None:
    source = inspect.getsource(run_serverapp)
    assert re.search(r"log\(ERROR, .*exc_info=ex\)", source)
    assert "exit_code = ExitCode.SERVERAPP_EXCEPTION" in source
    assert FLOWER_LOGGER.name == app.FLOWER_LOGGER
