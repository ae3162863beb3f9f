"""A base model; for the tests of the outbox, a site and an honest round of each kind there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from client.outbox import Outbox
from client.settings import SiteSettings
from common.update import Tensors
from tests.client.outbox_rounds import Round, begin
from tests.client.rounds import base_tensors, make_plan, make_site


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture(scope="module")
def outbox_site(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    return make_site(tmp_path_factory.mktemp("outbox") / "site", allow_without_privacy=True)


@pytest.fixture(scope="module")
def outbox(outbox_site: SiteSettings) -> Iterator[Outbox]:
    with Outbox.open(outbox_site) as outbox:
        yield outbox


@pytest.fixture(scope="module")
def trained(outbox_site: SiteSettings, outbox: Outbox, base: Tensors) -> Round:
    return begin(outbox_site, outbox, make_plan(base=base, campaign="private"), base)


@pytest.fixture(scope="module")
def bare(trained: Round, outbox_site: SiteSettings, outbox: Outbox, base: Tensors) -> Round:
    plan = make_plan(base=base, campaign="bare", epsilon=None)
    return begin(outbox_site, outbox, plan, base)


@pytest.fixture(scope="module")
def scored(trained: Round, outbox_site: SiteSettings, outbox: Outbox, base: Tensors) -> Round:
    return begin(
        outbox_site, outbox, make_plan(base=base, campaign="score", purpose="evaluate"), base
    )


@pytest.fixture(scope="module")
def forecast(trained: Round, outbox_site: SiteSettings, outbox: Outbox) -> Round:
    plan = make_plan(campaign="preflight", purpose="preflight")
    return begin(outbox_site, outbox, plan, {})
