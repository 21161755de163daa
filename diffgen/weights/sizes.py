"""Sizes of files as people read them."""


def in_bytes(size: int) -> str:
    """A size as `6.94 GB`, in powers of ten."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"
