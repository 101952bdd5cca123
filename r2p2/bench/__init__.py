"""Measuring: server processes, a load generator process, a report.

``command`` is the subcommand, ``generator`` the child process that makes the load, ``cluster`` starts both,
``report`` and ``plots`` show what came of it. The generator's inner loop is C (:mod:`r2p2.loadgen`).
"""
