"""Several answers to one task → the one most like all of them, and how far they agree (self-consistency).

The answer with the highest mean token F1 to the others is the one of least expected loss, if the answers are draws from
what the model believes (minimum Bayes risk).
"""

from __future__ import annotations

from collections.abc import Sequence

from app.pipeline.scores import token_f1


def most_agreed(answers: Sequence[str], valid: Sequence[bool] | None = None) -> tuple[int, float]:
    """Position of the answer most like the others, the first of equals, and its mean token F1 with them (0 to 1).

    ``valid``: which of them may be chosen; the others agree with nobody. If none may, the first is chosen and agrees
    with nobody either. A single valid answer agrees with itself. Raises ValueError if there is none at all.
    """
    if not answers:
        raise ValueError("there is no answer to choose from")
    chosen_from = [at for at in range(len(answers)) if valid is None or valid[at]]
    if not chosen_from:
        return 0, 0.0
    if len(answers) == 1:
        return 0, 1.0
    totals = {at: sum(token_f1(answers[at], answers[to]) for to in chosen_from if to != at) for at in chosen_from}
    best = max(chosen_from, key=lambda at: totals[at])
    return best, totals[best] / (len(answers) - 1)
