from types import SimpleNamespace

import pytest
from flwr.clientapp import ClientApp

from common.errors import ConfigurationError
from simulations import slow_sites
from simulations.slow_sites import SlowSite, check_slow_sites, parse_slow_site, slowed_app


def test_a_slow_site_is_a_name_and_its_seconds():
    assert parse_slow_site("north=2.5") == SlowSite("north", 2.5)


@pytest.mark.parametrize("text", ["north", "=2", "north=", "north=-1", "north=nan", "north=1e9"])
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigurationError) as caught:
        parse_slow_site(text)
    assert caught.value.code == "slow-site"


def test_a_slow_site_must_be_there():
    check_slow_sites([SlowSite("north", 1)], ["south", "north"])
    with pytest.raises(ConfigurationError, match="west"):
        check_slow_sites([SlowSite("west", 1)], ["south", "north"])


def test_only_its_training_takes_longer(monkeypatch):
    waited, names = [], {1: "north", 2: "south"}
    monkeypatch.setattr(slow_sites, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(
        slow_sites, "site_settings", lambda context: SimpleNamespace(name=names[context])
    )
    honest = ClientApp()
    for kind in (honest.train, honest.evaluate, honest.query):
        kind()(lambda message, _context: message)
    app = slowed_app(honest, [SlowSite("north", 7.0)])

    def ask(kind, node):
        message = SimpleNamespace(metadata=SimpleNamespace(message_type=kind))
        assert app(message, node) is message

    for kind in ("evaluate", "query"):
        ask(kind, 1)
    assert waited == []
    ask("train", 1)
    ask("train", 2)
    assert waited == [7.0, 0.0]
