"""One hospital's side: its cases, its privacy ledger, its training and its inference service."""
