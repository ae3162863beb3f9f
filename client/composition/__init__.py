"""The inference service, put together from its parts for `client.main`, and nowhere else."""
