"""What was spent: accounting, the ledger, and the gradient self-test."""
