"""Languages by their English names: what a recipe may ask new tasks to be written in.

Those that py3langid tells apart, the dead and the invented ones left out.
"""

from __future__ import annotations

from difflib import get_close_matches

_NAMES = """
ace Acehnese, af Afrikaans, am Amharic, an Aragonese, ar Arabic, as Assamese, az Azerbaijani, ba Bashkir,
bcl Bikol, be Belarusian, bg Bulgarian, bn Bengali, br Breton, bs Bosnian, ca Catalan, crh Crimean Tatar, cs Czech,
cy Welsh, da Danish, de German, dz Dzongkha, el Greek, en English, es Spanish, et Estonian, eu Basque,
fa Persian, fi Finnish, fo Faroese, fr French, fy Frisian, ga Irish, gd Scottish Gaelic, gl Galician, gom Konkani,
gu Gujarati, ha Hausa, he Hebrew, hi Hindi, hr Croatian, ht Haitian Creole, hu Hungarian, hy Armenian, id Indonesian,
ig Igbo, is Icelandic, it Italian, ja Japanese, jv Javanese, ka Georgian, kab Kabyle, kk Kazakh, km Khmer,
kn Kannada, ko Korean, ku Kurdish, ky Kyrgyz, lb Luxembourgish, lg Luganda, lij Ligurian, ln Lingala, lo Lao,
lt Lithuanian, lv Latvian, mg Malagasy, mk Macedonian, ml Malayalam, mn Mongolian, mr Marathi, ms Malay, mt Maltese,
my Burmese, ne Nepali, nl Dutch, no Norwegian, oc Occitan, om Oromo, or Odia, pa Punjabi, pl Polish, ps Pashto,
pt Portuguese, qu Quechua, ro Romanian, ru Russian, rw Kinyarwanda, si Sinhala, sk Slovak, sl Slovenian, sn Shona,
so Somali, sq Albanian, sr Serbian, st Sesotho, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai,
tk Turkmen, tl Tagalog, tr Turkish, tt Tatar, ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vec Venetian, vi Vietnamese,
xh Xhosa, yo Yoruba, zh Chinese, zu Zulu
"""

_PAIRS = [entry.strip().split(maxsplit=1) for entry in _NAMES.split(",")]
LANGUAGES = {name: code for code, name in _PAIRS}  # English name → ISO 639 code


def language_code(name: str) -> str | None:
    """The ISO 639 code of a language, by its English name in any case; None if it is not known."""
    return LANGUAGES.get(" ".join(name.split()).title())


def language_fault(name: str) -> str | None:
    """Why a recipe cannot ask for this language, with a remedy; None if it can."""
    if language_code(name) is not None:
        return None
    near = get_close_matches(name.title(), LANGUAGES, n=1)
    by_code = [known for known, code in LANGUAGES.items() if code == name.strip().lower()]
    remedy = f"did you mean {(by_code or near)[0]!r}?" if by_code or near else f"there are: {', '.join(LANGUAGES)}"
    return f"no language of that name is known; {remedy}"
