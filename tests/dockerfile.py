"""Reads a Dockerfile as far as the tests ask: instructions of its last stage, in order."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """The last stage of a Dockerfile, and the whole file's arguments. Each instruction is (word, rest of the line)."""

    instructions: tuple[tuple[str, str], ...]
    arguments: dict[str, str]
    num_stages: int

    def all(self, word: str) -> list[str]:
        """What stands behind every such instruction."""
        return [rest for name, rest in self.instructions if name == word]

    def last(self, word: str) -> str:
        return self.all(word)[-1]

    def command(self, word: str) -> list[str]:
        """ENTRYPOINT or CMD in the form of a list."""
        parts: list[str] = json.loads(self.last(word))
        return parts

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair for rest in self.all("ENV") for pair in shlex.split(rest)]
        return dict(pair.split("=", 1) for pair in pairs)


def read_dockerfile(path: Path) -> Image:
    """Comments are left out and continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    found = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]
    arguments = [shlex.split(rest)[0].partition("=") for word, rest in found if word == "ARG"]
    starts = [at for at, (word, _) in enumerate(found) if word == "FROM"]
    return Image(tuple(found[starts[-1] :]), {name: value for name, _, value in arguments}, len(starts))
