"""The same client and server code on one machine: phantoms, splits, scenarios and reports."""
