"""Of r2p2.bench: pure parts, the generator on a virtual clock, and one run with processes."""
