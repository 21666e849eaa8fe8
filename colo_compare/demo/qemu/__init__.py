"""Two real Linux guests in QEMU: their image, their machines, and the lab in which a proxy protects them."""
