"""The coordinator's side: rounds, aggregation, registry, release gate and publishing."""
