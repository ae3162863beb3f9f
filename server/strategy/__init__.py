"""How the coordinator applies the sites' mean update to the model (FedOpt, arXiv:2003.00295)."""
