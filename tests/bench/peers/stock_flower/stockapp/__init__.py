"""A stock Flower application: efficientnet_b0, FedAvg, no local work."""
