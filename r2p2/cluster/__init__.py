"""A cluster as its operator sees it: one file that describes it, processes on this machine, and its status.

`config.py` reads the file, `launcher.py` starts and ends local members, `status.py` asks members (`r2p2 status`),
`command.py` is `r2p2 cluster`. docs/operations.md is for operators.
"""
