"""A coordinator and its registry, as the tests of the coordinator's side have them."""

from tests.releases import coordinator, registry  # noqa: F401 - pytest finds fixtures by name
