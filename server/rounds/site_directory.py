"""Who is connected: Flower's node ids against the registry's site names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from common.errors import UpdateRefused
from common.wire import describe_request, records_to_description
from server.registry.registry import Registry
from server.rounds.clock import Backoff, Clock

logger = logging.getLogger(__name__)

DESCRIBE_SECONDS = 60.0
SETTLE_SECONDS = 1.0


class SiteDirectory:
    """Names of the connected sites.

    Where sites are registered, a node counts as the site that was registered with its id, and
    a stranger is ignored. Where none is (a simulation on one machine), nodes are asked.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        The run's link to its nodes.
    registry : Registry
        Read anew each time, so that a site that is registered meanwhile can join.
    clock : Clock
        For deadlines.
    only : tuple of str or None
        The sites that take part; None is everyone.
    revoked : callable, optional
        Returns the sites that were shut out, as it is now: they are registered still, but nobody
        waits for them, asks them, or takes what they send.
    """

    def __init__(
        self,
        grid: Grid,
        registry: Registry,
        clock: Clock,
        *,
        only: tuple[str, ...] | None,
        revoked: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._grid = grid
        self._registry = registry
        self._clock = clock
        self._only = only
        self._revoked = revoked
        self._described: dict[int, str] = {}
        self._asked: dict[str, int] = {}

    def is_revoked(self, site: str) -> bool:
        """Tell whether a site was shut out, as it is now."""
        return site in self._revoked()

    def expected(self) -> frozenset[str]:
        """Return the names that ought to be there; empty where nobody is registered."""
        if self._only is not None:
            return frozenset(self._only)
        return frozenset(site.name for site in self._registry.sites()) - self._revoked()

    def reachable(self) -> frozenset[str] | None:
        """Return who could connect at all; None where nobody is registered, so that anyone may."""
        registered = frozenset(site.name for site in self._registry.sites())
        if not registered:
            return None
        registered -= self._revoked()
        return registered if self._only is None else registered & frozenset(self._only)

    def connected(self) -> dict[str, int]:
        """Return the node id of each connected site that takes part, in order of names."""
        nodes = set(self._grid.get_node_ids())
        registered = self._registry.sites()
        if registered:
            out = self._revoked()
            names = {site.node_id: site.name for site in registered if site.name not in out}
        else:
            self._describe(nodes)
            names = self._described
        found: dict[str, int] = {}
        for node in sorted(nodes & names.keys()):
            name = names[node]
            if self._only is not None and name not in self._only:
                continue
            if name in found:
                logger.warning("site-name-twice site=%s node=%d", name, node)
                continue
            found[name] = node
        return dict(sorted(found.items()))

    def wait(
        self,
        enough: Callable[[dict[str, int]], bool],
        *,
        everyone: bool,
        seconds: float,
        waiting: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> dict[str, int]:
        """Wait until enough sites are connected, and return all that are.

        Nobody is waited for who is not registered: once all who could connect have, it is over.

        Parameters
        ----------
        enough : callable
            Told the node ids by site.
        everyone : bool
            Whether to wait for all that are expected, too; where nobody is expected by name,
            until no more come.
        seconds : float
            The longest wait; after it, whoever is there is returned.
        waiting : callable, optional
            Told who is waited for, by name, whenever that changes.
        """
        end = self._clock.monotonic() + seconds
        settled = self._clock.monotonic() + SETTLE_SECONDS
        backoff = Backoff()
        before: dict[str, int] = {}
        awaited: frozenset[str] = frozenset()
        while True:
            found = self.connected()
            now = self._clock.monotonic()
            if found != before:
                settled, before = now + SETTLE_SECONDS, found
            expected, reachable = self.expected(), self.reachable()
            complete = expected <= found.keys() if expected else now >= settled
            nobody_left = reachable is not None and reachable <= found.keys()
            if now >= end or nobody_left or (enough(found) and (complete or not everyone)):
                return found
            missing = (expected if reachable is None else reachable) - found.keys()
            if missing != awaited:
                awaited = missing
                logger.info(
                    "sites-awaited sites=%s seconds=%.0f", ",".join(sorted(missing)), seconds
                )
                waiting(missing)
            self._clock.sleep(backoff.interval(end - now))

    def _describe(self, nodes: Iterable[int]) -> None:
        known = self._described.keys() | set(self._asked.values())
        for node in sorted(set(nodes) - known):
            message = Message(
                describe_request(), node, MessageType.QUERY, ttl=DESCRIBE_SECONDS, group_id="sites"
            )
            for identifier in self._grid.push_messages([message]):
                if identifier:
                    self._asked[identifier] = node
        if self._asked:
            self._take_descriptions()

    def _take_descriptions(self) -> None:
        for reply in self._grid.pull_messages(list(self._asked)):
            node = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if node is None or reply.has_error():
                continue
            try:
                description = records_to_description(reply.content)
            except UpdateRefused as error:
                logger.warning("site-description-refused node=%d code=%s", node, error.code)
                continue
            self._described[node] = description.site
            logger.info("site-found site=%s node=%d", description.site, node)
