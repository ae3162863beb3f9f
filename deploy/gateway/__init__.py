"""The gateway: nginx before the coordinator, the only thing of it that a site can reach."""
