"""``python -m benchmarks.pipeline.novelty``: what the novelty filter costs an item, on one core, by the pool's size.

The texts are tasks as a base writes them: an instruction of the bundled examples with an input put together from
clauses of their texts, the names and numbers changed. One in five changes a few words of a text that is there, so that
close pairs are compared too. Memory is what the process grew by, a few thousand texts of the benchmark itself included.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from app.pipeline.novelty import NoveltyFilter

EXAMPLES = Path("examples")
THRESHOLD = 0.7
SIZES = (5_000, 100_000)
MOST_MS = 5.0  # an item, at the first size
_CLAUSE = re.compile(r"[^,.;:?!]+[,.;:?!]*")
_CHANGES = re.compile(r"\b(?:[A-Z][a-z]+|\d+)\b")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a size; the exit status says whether the first size keeps to its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="texts in the pool, rising")
    parser.add_argument("--judged", type=int, default=300, help="new texts judged and added at each size")
    chosen = parser.parse_args(arguments)
    before = _resident_bytes()
    novelty, texts = NoveltyFilter(THRESHOLD), write_texts()
    figures = []
    for size, last in zip(chosen.sizes, [0, *chosen.sizes], strict=False):
        for _ in range(size - last):
            novelty.add(next(texts))
        num_bytes = _resident_bytes() - before
        figures.append({"pool": size, **_measure(novelty, texts, chosen.judged), "bytes": num_bytes})
        print("{pool:>8} texts: {ms:.2f} ms an item, {new} of {judged} new, {bytes:,} bytes".format(**figures[-1]))
    is_met = figures[0]["ms"] <= MOST_MS
    print(json.dumps({"benchmark": "novelty", "most_ms": MOST_MS, "is_met": is_met, "sizes": figures}))
    return 0 if is_met else 1


def _measure(novelty: NoveltyFilter, texts: Iterator[str], count: int) -> dict[str, float]:
    """Milliseconds of this process to judge an item and to add it if it is new."""
    drawn, num_new = [next(texts) for _ in range(count)], 0
    start = time.process_time()
    for text in drawn:
        if novelty.is_new(text):
            novelty.add(text)
            num_new += 1
    seconds = time.process_time() - start
    return {"ms": round(1e3 * seconds / count, 3), "new": num_new, "judged": count}


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def write_texts(seed: int = 0) -> Iterator[str]:
    """Without end; always the same."""
    chance = random.Random(seed)
    rows = [json.loads(line) for path in sorted(EXAMPLES.glob("*/*.jsonl")) for line in path.read_text().splitlines()]
    clauses = [clause.strip() for row in rows for clause in _CLAUSE.findall(row["input"]) if len(clause.split()) > 2]
    names = sorted({name for row in rows for name in _CHANGES.findall(row["input"]) if name.isalpha()})

    def change(found: re.Match[str]) -> str:
        return chance.choice(names) if found[0].isalpha() else str(chance.randrange(1000))

    kept: list[str] = []
    while True:
        if kept and chance.random() < 0.2:
            text = " ".join(chance.choice(names) if chance.random() < 0.1 else w for w in chance.choice(kept).split())
        else:
            input = " ".join(chance.choices(clauses, k=chance.randint(4, 10)))
            text = f"{chance.choice(rows)['instruction']}\n{_CHANGES.sub(change, input)}"
        if len(kept) < 5000:
            kept.append(text)
        yield text


if __name__ == "__main__":
    sys.exit(main())
