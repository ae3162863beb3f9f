"""Answering: the loaded model, its batches and its predictions."""
