"""The demo: a whole federation on one machine, from first case to second release."""
