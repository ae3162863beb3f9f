"""Provisioning, launching a whole federation on one machine, and the command line."""
