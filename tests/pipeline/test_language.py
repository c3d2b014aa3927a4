"""Languages by name, and the check that only speaks up when it is sure."""

from __future__ import annotations

import pytest

from app.core.errors import InvalidInput
from app.core.languages import LANGUAGES, language_code, language_fault
from app.pipeline.language import LanguageCheck, _identifier

SENTENCES = {
    "German": "Der Umsatz des Unternehmens stieg im zweiten Quartal um sechs Prozent.",
    "French": "Le chiffre d'affaires a progressé de 6 % au deuxième trimestre, contre 4 % un an plus tôt.",
    "Spanish": "Los ingresos de la empresa crecieron un seis por ciento, aunque el beneficio cayó mucho.",
    "Russian": "Выручка компании выросла на шесть процентов.",
    "Japanese": "会社の売上は第2四半期に6%増加した。",
    "Chinese": "公司第二季度收入增长百分之六。",
    "English": "The company's revenue grew by six percent in the second quarter of the year.",
}


@pytest.mark.parametrize("spoken", SENTENCES)
@pytest.mark.parametrize("asked", SENTENCES)
def test_a_sentence_is_refused_in_every_language_but_its_own(asked: str, spoken: str) -> None:
    found = LanguageCheck(asked).other_language(SENTENCES[spoken])
    assert (found is None) == (asked == spoken)
    if found is not None:
        assert found[0] in (LANGUAGES[spoken], "wuu", "yue")


@pytest.mark.parametrize(
    "text",
    [
        "Staphylococcus aureus, Escherichia coli, Clostridium difficile",
        "Deutsche Bank AG, Société Générale S.A. and Banco Santander",
        "Volkswagen Aktiengesellschaft",
        "Bayer 04 Leverkusen beat Borussia Mönchengladbach 3-1",
        "AAPL 12.3 14.5",
        "EUR 12.5 mn",
        "NF-κB, TGF-β and IFN-γ",
        "Nokia Oyj",
        "p53",
        "…",
        "",
        "SELECT * FROM t WHERE a = 1;",
    ],
)
def test_names_numbers_and_code_are_no_language(text: str) -> None:
    assert LanguageCheck("English").other_language(text) is None


def test_close_relatives_are_not_told_apart() -> None:
    assert LanguageCheck("Norwegian").other_language("Virksomheden solgte mange flere skibe i andet kvartal.") is None
    assert LanguageCheck("Dutch").other_language(SENTENCES["German"]) is not None


def test_every_language_that_can_be_asked_for_is_one_that_is_recognized() -> None:
    assert set(LANGUAGES.values()) <= set(_identifier().labels)
    assert all(language_code(name) == code and language_fault(name) is None for name, code in LANGUAGES.items())


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("Germn", "did you mean 'German'?"), ("de", "did you mean 'German'?"), ("Klingon-ish", "there are: ")],
)
def test_an_unknown_language_is_refused_with_a_remedy(name: str, remedy: str) -> None:
    assert remedy in (language_fault(name) or "")
    with pytest.raises(InvalidInput, match=r"recipe\.language"):
        LanguageCheck(name)


def test_names_are_taken_in_any_case() -> None:
    assert language_code(" scottish  GAELIC ") == "gd"
