"""Keys and values of prompts' beginnings, kept so that the next prompt that begins alike need not compute them again.

A tree for each adapter version (and one for the bare base): nothing that one adapter computed is ever seen by another.
A node is a page of tokens. The least recently used leaves go when the budget is full.
Knows nothing of rows, requests or slots.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from app.engine.rectangle import Span, span_bytes

PAGE = 16  # tokens; beginnings are shared in multiples of it


@dataclass(eq=False, slots=True)
class _Node:
    page: tuple[int, ...]
    parent: _Node | None
    span: Span
    children: dict[tuple[int, ...], _Node] = field(default_factory=dict)


class PrefixStore:
    """What was computed, by adapter id (None: the bare base) and tokens."""

    def __init__(self, budget: int) -> None:
        """``budget`` in bytes; 0 keeps nothing."""
        self.budget, self.num_bytes = budget, 0
        self._roots: dict[str | None, _Node] = {}
        self._recent: OrderedDict[_Node, None] = OrderedDict()  # least recently used first, children before parents

    def find(self, adapter: str | None, tokens: Sequence[int]) -> list[Span]:
        """The pages that ``tokens`` begin with, of PAGE tokens each; never all tokens, for one must be computed."""
        nodes = []
        node = self._roots.get(adapter)
        for page in _pages(tokens[:-1]):
            node = node.children.get(page) if node is not None else None
            if node is None:
                break
            nodes.append(node)
        self._touch(nodes)
        return [node.span for node in nodes]

    def keep(self, adapter: str | None, tokens: Sequence[int], read: Callable[[int, int], Span]) -> None:
        """Remember the pages of a computed prompt; ``read(start, end)`` copies those tokens out of it."""
        if self.budget <= 0:
            return
        node = self._roots.setdefault(adapter, _Node((), None, []))
        path = []
        for number, page in enumerate(_pages(tokens)):
            if page not in node.children:
                child = _Node(page, node, read(number * PAGE, (number + 1) * PAGE))
                node.children[page] = child
                self.num_bytes += span_bytes(child.span)
            node = node.children[page]
            path.append(node)
        self._touch(path)
        self._shrink()

    def forget(self, adapter: str | None) -> None:
        """Drop all that ``adapter`` computed."""
        root = self._roots.pop(adapter, None)
        nodes = list(root.children.values()) if root else []
        while nodes:
            node = nodes.pop()
            nodes.extend(node.children.values())
            del self._recent[node]
            self.num_bytes -= span_bytes(node.span)

    def _touch(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):  # the parent last, so that it is never older than its child
            self._recent[node] = None
            self._recent.move_to_end(node)

    def _shrink(self) -> None:
        while self.num_bytes > self.budget:
            node, _ = self._recent.popitem(last=False)
            assert node.parent is not None and not node.children
            del node.parent.children[node.page]
            self.num_bytes -= span_bytes(node.span)


def first_unknown(store: PrefixStore, adapter: str | None, tokens: Sequence[int]) -> tuple[int, ...] | None:
    """The first whole page of ``tokens`` that has to be computed, with all before it; None if there is none."""
    end = (len(store.find(adapter, tokens)) + 1) * PAGE
    return tuple(tokens[:end]) if end < len(tokens) else None


def _pages(tokens: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(tokens) - PAGE + 1, PAGE):
        yield tuple(tokens[start : start + PAGE])
