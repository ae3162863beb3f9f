"""Reports of withdrawn cases go from the outbox, also where no process delivers any.

A file names its case, and its patient, only once it is decrypted: each is.
"""

from __future__ import annotations

from client.cases import queries
from client.cases.pseudonyms import Pseudonyms
from client.cases.transactions import Transactions
from client.dicom.outbox import SUFFIX, ReportOutbox
from client.settings import SiteSettings


def forget_reports(settings: SiteSettings, transactions: Transactions) -> None:
    """Delete what waits for the PACS of cases that were withdrawn; damaged files stay.

    The process that delivers may write a file again that it had just read; before it sends
    anything it looks the case up itself.

    Parameters
    ----------
    settings : SiteSettings
    transactions : Transactions
        Of the site's database.

    Raises
    ------
    ConfigurationError, OSError, StoreError
        If the key, the folder or the database cannot be used.
    """
    folder = settings.data / "dicom"
    if not any(folder.glob(f"*{SUFFIX}")):
        return
    outbox = ReportOutbox(folder, Pseudonyms.read(settings.keys / "pseudonyms"))
    read = (outbox.read(identifier) for identifier in outbox.pending())
    cases = {pending.id: pending.case_id for pending in read if pending is not None}
    with transactions.reading() as session:
        gone = queries.gone(session, cases.values())
    for identifier, case in cases.items():
        if case in gone:
            outbox.remove(identifier)
