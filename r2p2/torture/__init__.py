"""Faults on a running cluster, and the proof from what its clients saw that nothing was lost, repeated or stale."""
