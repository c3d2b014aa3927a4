"""Is a text in another language than it should be? Says so only when it is sure: names and numbers are no language.

py3langid tells which of 139 languages a text is in, offline, with a probability that stays modest for short texts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Set
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from app.core.errors import InvalidInput, Problem
from app.core.languages import language_code, language_fault

_SURE = 0.95  # probability of another language at which a text is refused
_IMPOSSIBLE = 1e-3  # probability of its own language below which a text in another script is refused
_FEWEST_LETTERS = 4  # in another script
# Latin names of species and compounds are English; the others are invented or no language
_NEVER = frozenset({"la", "grc", "hbo", "sa", "vo", "eo", "zxx"})
_RELATIVES = (  # that cannot be told apart by a sentence or two
    {"no", "nn", "da"},
    {"hr", "bs", "sr"},
    {"id", "ms"},
    {"zh", "yue", "wuu"},
    {"ar", "ary", "arz"},
    {"en", "pcm"},
    {"uz", "uzs"},
    {"ku", "sdh"},
    {"lv", "ltg"},
    {"es", "ext"},
    {"ht", "gcf", "gcr"},
)


class LanguageCheck:
    """Finds texts that are surely not in one language."""

    def __init__(self, language: str) -> None:
        """``language``: its English name. Raises InvalidInput, naming ``recipe.language``, if nobody knows it."""
        code = language_code(language)
        if code is None:
            raise InvalidInput([Problem("recipe.language", language_fault(language) or "")])
        self._own = _kin(code)

    def other_language(self, text: str) -> tuple[str, float] | None:
        """ISO 639 code of the language that ``text`` is in, with its probability; None unless it is surely another."""
        ranked = dict(_identifier().rank(text))
        code = next(iter(ranked))  # the likeliest
        if code in self._own:
            return None
        probability = sum(ranked[kin] for kin in _kin(code))
        is_sure = probability >= _SURE and code not in _NEVER
        if is_sure or (_is_in_other_script(text) and max(ranked[own] for own in self._own) < _IMPOSSIBLE):
            return code, probability
        return None


def _kin(code: str) -> Set[str]:
    """The language and those that it cannot be told apart from."""
    return next((relatives for relatives in _RELATIVES if code in relatives), {code})


def _is_in_other_script(text: str) -> bool:
    """Most letters are not Latin: then a language that is impossible is not meant, however short the text."""
    letters = [char for char in text if char.isalpha()]
    others = sum(not unicodedata.name(char, "").startswith(("LATIN", "GREEK")) for char in letters)
    return others >= _FEWEST_LETTERS and 2 * others > len(letters)


@cache
def _identifier() -> LanguageIdentifier:
    """Half a second and 90 MB, once, when the first text is judged."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
