"""Bounds on what a stranger can do at the DICOM port before anything about them is known.

pynetdicom takes any number of connections, shakes hands over TLS in the one thread that accepts
them, reads a PDU of up to 4 GiB into memory before it looks at it, waits for the rest of one for
ever, and counts connections that asked for nothing as associations. Here a connection has
`HANDSHAKE_SECONDS` for TLS and `PDU_SECONDS` for each PDU of at most `PDU_BYTES`; of more than
`SPARE_CONNECTIONS` beside the associations, the oldest that has none is closed, as
`client.api.connections` does.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import (
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

log = logging.getLogger(__name__)

SPARE_CONNECTIONS = 32
HANDSHAKE_SECONDS = 10.0
PDU_SECONDS = 30.0
PDU_BYTES = 256 * 1024
"""Of an A-ASSOCIATE-RQ with 128 contexts, all with all our syntaxes: 64 KiB. Data come in less."""


class BoundedEntity(AE):
    """An AE to which a connection is an association once it got a place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._asking = threading.Lock()
        self._placed: set[Association] = set()
        super().__init__(*args, **kwargs)

    @property
    def active_associations(self) -> list[Association]:
        """Return those that count against `maximum_associations`, and the one that asks.

        The one that asks gets its place here, if one is free. `is_established` is set only once
        the answer was sent: of all that ask until then, each would see the place free.
        """
        asking = threading.current_thread()
        with self._asking:
            running = super().active_associations
            self._placed = {a for a in running if a in self._placed and not _is_over(a)}
            counted = [a for a in running if a in self._placed or a is asking]
            if len(counted) <= self.maximum_associations:
                self._placed.update(counted)
            return counted


class BoundedServer(ThreadedAssociationServer):
    """Accepts connections; made by ``AE.make_server(..., server_class=BoundedServer)``."""

    daemon_threads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[socket.socket, Association | None] = OrderedDict()
        super().__init__(*args, **{**kwargs, "request_handler": _Handler})
        self._most = self.ae.maximum_associations + SPARE_CONNECTIONS

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Take a connection, making room for it; the handshake is its own thread's."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(PDU_SECONDS)
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._forget_ended()
            self._open[connection] = None
            if len(self._open) > self._most:
                self._close_oldest()
        return connection, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, then begin to wait for an association."""
        if isinstance(request, ssl.SSLSocket) and not _shakes_hands(request):
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)

    def began(self, connection: socket.socket, association: Association) -> None:
        """Remember whose connection it is."""
        with self._lock:
            if connection in self._open:
                self._open[connection] = association

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Say nothing: socketserver would print who connected, and a trace."""
        log.warning("event=dicom-connection-failed")

    def server_close(self) -> None:
        """Close the port, and what never became an association."""
        super().server_close()
        with self._lock:
            for connection in self._open:
                _hang_up(connection)

    def _forget_ended(self) -> None:
        for connection, association in list(self._open.items()):
            if connection.fileno() == -1 or (association is not None and _has_ended(association)):
                del self._open[connection]

    def _close_oldest(self) -> None:
        for connection, association in self._open.items():
            if association is None or not association.is_established:
                log.warning("event=dicom-connection-closed code=too-many-half-open")
                del self._open[connection]
                _hang_up(connection)
                return


class _Handler(RequestHandler):
    """Gives each association a socket that does not wait for ever."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        # Not a new one: making it puts "connected" into the queue, which must be there once.
        assert association.dul.socket is not None
        association.dul.socket.__class__ = _BoundedSocket
        assert isinstance(self.server, BoundedServer)
        self.server.began(self.request, association)
        return association


class _BoundedSocket(AssociationSocket):
    """Reads no more than a PDU can rightly have, and not for ever."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes; fewer if the peer hangs up.

        Raises
        ------
        OSError
            If they are too many or come too slowly: pynetdicom ends the association.
        """
        assert self.socket is not None
        if nr_bytes > PDU_BYTES:
            log.warning("event=dicom-connection-closed code=pdu-too-large")
            _hang_up(self.socket)
            raise OSError("PDU too large")
        read, until = bytearray(), time.monotonic() + PDU_SECONDS
        while len(read) < nr_bytes:
            left = until - time.monotonic()
            if left <= 0:
                log.warning("event=dicom-connection-closed code=pdu-too-slow")
                _hang_up(self.socket)
                raise TimeoutError("PDU too slow")
            self.socket.settimeout(left)
            part = self.socket.recv(min(nr_bytes - len(read), 65536))
            if not part:
                break
            read += part
        self.socket.settimeout(PDU_SECONDS)
        return read


def _shakes_hands(connection: ssl.SSLSocket) -> bool:
    """Tell whether TLS was agreed on in time; byte by byte is too slow, too."""
    timer = threading.Timer(HANDSHAKE_SECONDS, _hang_up, [connection])
    timer.daemon = True
    timer.start()
    try:
        connection.do_handshake()
    except (OSError, ValueError):
        log.warning("event=dicom-connection-closed code=tls-handshake")
        return False
    finally:
        timer.cancel()
    return True


def _is_over(association: Association) -> bool:
    """Tell whether its place is free: its thread may wait for the peer to hang up."""
    return association.is_rejected or association.is_released or association.is_aborted


def _has_ended(association: threading.Thread) -> bool:
    """Tell whether it is over; one that has not begun yet is not."""
    return association.ident is not None and not association.is_alive()


def _hang_up(connection: socket.socket) -> None:
    """Have whoever reads from a connection see its end; they close it."""
    with suppress(OSError):
        # Not SSLSocket.shutdown, which takes TLS away under a reader's feet.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
