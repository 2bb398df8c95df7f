"""Sparse updates: which tensors a training step changes, and how many channels of each."""
