"""The checkpointer for guests whose memory is a shared memfd: docs/memory-checkpointer.md.

::

    backend ── sender ── outgoing ──> N channels ──> incoming ── receiver
       │          (trio)  (no I/O)                   (no I/O)    (trio)
       └── guest control ──> primary        secondary <── guest control ──┘

`messages`, `reader`, `page_map`, `backlog`, `outgoing` and `incoming` decide and do no I/O: time is an
argument. `guest_*` and `region` are the guest's side, `tracker_*` find out what a guest has written.
"""
