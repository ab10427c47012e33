"""Arithmetic on dimensions that may be symbols, in a normal form that shows which are equal."""

from __future__ import annotations

# A number, a symbol or expression, or None when nothing is known.
Dim = int | str | None


class SymbolTable:
    """Builds normalised expressions: (base * factor + offset), and floor divisions of them."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[str, int]] = {}  # expression -> (base, offset)

    def add(self, dim: Dim, offset: int) -> Dim:
        """Returns dim + offset."""
        if dim is None or isinstance(dim, int):
            return None if dim is None else dim + offset
        base, before = self._parts.get(dim, (dim, 0))
        offset += before
        if offset == 0:
            return base
        text = f"{base} {'+' if offset > 0 else '-'} {abs(offset)}"
        self._parts[text] = (base, offset)
        return text

    def multiply(self, dim: Dim, factor: int) -> Dim:
        """Returns dim * factor."""
        if dim is None or factor == 1:
            return dim
        if isinstance(dim, int):
            return dim * factor
        base, offset = self._parts.get(dim, (dim, 0))
        return self.add(f"{factor}*({base})", factor * offset)

    def divide(self, dim: Dim, divisor: int) -> Dim:
        """Returns floor(dim / divisor)."""
        if dim is None or divisor == 1:
            return dim
        if isinstance(dim, int):
            return dim // divisor
        base, offset = self._parts.get(dim, (dim, 0))
        whole, rest = divmod(offset, divisor)
        if base.startswith(f"{divisor}*(") and base.endswith(")"):
            return self.add(base[len(f"{divisor}*(") : -1], whole)
        inner = self.add(base, rest)
        return self.add(f"({inner})//{divisor}", whole)

    def broadcast(self, a: list[Dim], b: list[Dim]) -> list[Dim]:
        """Returns the dimensions of an elementwise result."""
        rank = max(len(a), len(b))
        a = [*[1] * (rank - len(a)), *a]
        b = [*[1] * (rank - len(b)), *b]
        result: list[Dim] = []
        for one, other in zip(a, b, strict=True):
            if one == other or other == 1:
                result.append(one)
            elif one == 1:
                result.append(other)
            elif isinstance(one, int) or isinstance(other, int):
                result.append(one if isinstance(one, int) else other)
            else:
                result.append(None)
        return result
