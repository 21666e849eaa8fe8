"""Memory checkpointers: the contract, the registry and the backends."""
