"""R2P2: request-response pairs over UDP, with Raft inside the transport."""
