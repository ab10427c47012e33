"""64-bit ARM without the hardware: counts under emulation, and cycles by models of cores."""
