"""What the model said at this site, kept beside the cases."""
