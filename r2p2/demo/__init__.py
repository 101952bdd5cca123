"""The demo: a replicated store under load, its leader killed, and the proof that nothing was lost.

``command`` is the subcommand, ``scenario`` one run over one backend, ``outage`` finds the interruption in what the load
generator saw.
"""
