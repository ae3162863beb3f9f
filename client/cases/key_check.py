"""A database of cases belongs to the pseudonym key that it was filled with."""

from __future__ import annotations

from datetime import UTC, datetime

from client.cases.pseudonyms import Pseudonyms
from client.cases.tables import StoreIdentityRow
from client.cases.transactions import Transactions
from common.errors import ConfigurationError


def check_pseudonym_key(transactions: Transactions, pseudonyms: Pseudonyms) -> None:
    """Hold a key against the one that the database was filled with; a new one is written down.

    Raises
    ------
    ConfigurationError
        With code ``pseudonym-key``, if it was filled with another.
    """
    check = pseudonyms.key_check()
    with transactions.writing() as session:
        identity = session.get(StoreIdentityRow, 1)
        if identity is None:
            identity = StoreIdentityRow(id=1, key_check=check, created_at=datetime.now(UTC))
            session.add(identity)
        if identity.key_check != check:
            raise ConfigurationError(
                "The pseudonym key is not the one that this case store was filled with.",
                meaning="Known patients would be taken for new ones, and split anew.",
                action="Restore keys/pseudonyms from backup.",
                code="pseudonym-key",
            )
