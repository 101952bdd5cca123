"""Simulated clusters of the Raft core: one seed decides everything, and replays it."""
