"""What a recipe's buffered rounds come to in a campaign, and what is refused."""

from __future__ import annotations

import pytest

from common.errors import ConfigurationError
from common.recipe import Recipe
from server.buffering import buffer_settings
from server.campaigns import _settings
from tests.fakes import toy_recipe

SITES = ("a", "b", "c")


def buffered(**federation: object) -> Recipe:
    return toy_recipe(mode="buffered", **federation)


def chosen(recipe: Recipe, **given: object) -> object:
    return _settings(recipe, rounds=None, quorum=None, **given).buffer


def test_synchronous_rounds_have_no_buffer() -> None:
    settings = _settings(toy_recipe(), rounds=None, quorum=None)
    assert (settings.buffer, settings.site_rounds) == (None, settings.rounds)


def test_what_is_left_out_follows_from_quorum_and_rounds() -> None:
    settings = _settings(buffered(rounds=30, quorum=2), rounds=None, quorum=3)
    assert settings.buffer is not None
    assert (settings.buffer.size, settings.buffer.site_rounds) == (3, 60)
    assert settings.site_rounds == 60
    assert buffer_settings(buffered(buffer_size=5, site_rounds=7), settings) == (
        settings.buffer.model_copy(update={"size": 5, "site_rounds": 7})
    )


@pytest.mark.parametrize(
    ("federation", "given", "words"),
    [
        ({"aggregation": {"name": "descent"}, "quorum": 3}, {}, "descent"),
        ({"rounds": 10, "site_rounds": 6}, {"sites": SITES}, "20 updates, but 3 sites"),
    ],
)
def test_what_could_never_work_is_refused(
    federation: dict[str, object], given: dict[str, object], words: str
) -> None:
    recipe = buffered(**federation)
    with pytest.raises(ConfigurationError) as caught:
        chosen(recipe, **given)
    assert caught.value.code == "campaign-settings"
    assert words in caught.value.what


def test_just_enough_rounds_a_site_are_accepted() -> None:
    assert chosen(buffered(rounds=10, site_rounds=7), sites=SITES) is not None
