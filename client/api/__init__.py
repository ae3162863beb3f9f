"""The inference service's HTTP edge: routers, problem documents, limits, metrics."""
