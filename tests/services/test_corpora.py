"""Corpora: what is read from a file, that both ways of searching rank alike, and that a job uses what it names."""

from __future__ import annotations

import io
import itertools
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest

from app.core.errors import InvalidInput, NotFound, Problem
from app.core.presets import make_recipe
from app.core.records import MixtureCompletion, MixtureRequest
from app.engine.fake import FakeEngine
from app.pipeline.bench import WAVE
from app.services.corpora import CorpusService, corpus_problems, read_passages
from app.services.passage_index import K1, B, build_index, words_of
from app.services.passages import CorpusRetriever, search_in_memory, search_mapped
from app.storage.artifacts import append_rows
from tests.services.house import BASE, EVALUATION, House, Killed

Row = dict[str, Any]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def file_of(*rows: object) -> io.BytesIO:
    return io.BytesIO(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))


def made_up(number: int, *, salt: int = 0) -> list[Row]:
    """Passages of words as frequent as those of a language, some of them alike."""
    chance = random.Random(salt)
    words = [f"w{n}" for n in range(200)]
    shares = [1 / (n + 1) for n in range(200)]
    return [
        {
            "id": f"p{n}",
            "title": chance.choice(["", "About W3"]),
            "text": " ".join(chance.choices(words, shares, k=chance.randint(1, 12))),
        }
        for n in range(number)
    ]


class KilledAtSecondWave(FakeEngine):
    """A process that dies when the second wave of answers is asked for."""

    def __init__(self) -> None:
        super().__init__(slots=1, base_name=BASE)
        self._num_waves = 0

    def generate_mixture(self, requests: Sequence[MixtureRequest]) -> list[MixtureCompletion]:
        self._num_waves += 1
        if self._num_waves == 2:
            raise Killed
        return super().generate_mixture(requests)


def both(rows: Sequence[Row], folder: Path) -> tuple[CorpusRetriever, CorpusRetriever]:
    """In memory with rank_bm25, and through files with bm25s."""
    append_rows(folder / "rows.jsonl", rows)
    (folder / "index").mkdir()
    build_index(folder / "rows.jsonl", folder / "index")
    return search_in_memory(rows), search_mapped(folder / "rows.jsonl", folder / "index")


def test_memory_and_files_rank_alike(tmp_path: Path) -> None:
    """To the last bit: common words, unknown words, repeated words, and ties, which go by the corpus's order."""
    rows = made_up(300)
    small, mapped = both(rows, tmp_path)
    chance, num_ties = random.Random(1), 0
    for _ in range(150):
        query = " ".join(f"W{chance.randint(0, 220)}" for _ in range(chance.randint(1, 30)))
        found = small.search(query, 20)
        assert found == mapped.search(query, 20)
        scores = [passage.score for passage in found]
        assert scores == sorted(scores, reverse=True)
        for first, second in itertools.pairwise(found):
            if first.score == second.score:
                num_ties += 1
                assert int(first.id[1:]) < int(second.id[1:])
    assert num_ties > 50


def test_the_files_hold_what_bm25s_would_have_computed(tmp_path: Path) -> None:
    rows = made_up(60)
    _, mapped = both(rows, tmp_path)
    oracle = bm25s.BM25(k1=K1, b=B, method="atire", idf_method="lucene", dtype="float64")
    oracle.index([words_of(f"{row['title']} {row['text']}") for row in rows], show_progress=False)
    for query in ("w0", "w1 w2 w2", "w5 w40 w199 about"):
        scores = oracle.get_scores_from_ids(oracle.get_tokens_ids(query.split()))
        found = mapped.search(query, 60)
        assert len(found) == np.count_nonzero(scores)
        best = sorted(scores, reverse=True)[: len(found)]
        assert [passage.score for passage in found] == pytest.approx(best, abs=1e-9)


def test_only_passages_that_share_a_word_are_found(tmp_path: Path) -> None:
    """A word of every passage counts for a little, never against."""
    rows = [{"id": str(n), "title": "", "text": f"The firm {word}"} for n, word in enumerate(["rose", "fell", "rose"])]
    for retriever in both(rows, tmp_path):
        assert [passage.id for passage in retriever.search("It ROSE, yes", 5)] == ["0", "2"]
        assert [passage.id for passage in retriever.search("who fell? the", 5)] == ["1", "0", "2"]
        assert [passage.id for passage in retriever.search("rose", 1)] == ["0"]
        assert retriever.search("nothing like it", 5) == retriever.search("?!", 5) == []


def test_a_corpus_is_counted_and_known_by_its_content(house: House) -> None:
    corpora = house.services.corpora
    steel = {"id": 7, "title": " Steel ", "text": "Orders fell."}
    rows = [steel, {"text": "Orders  FELL.\n"}, {"text": "Banks rose.", "x": 1}]
    corpus, is_new = corpora.add(file_of(*rows), filename="news.jsonl")
    assert (corpus.name, corpus.num_passages, corpus.num_duplicates, is_new) == ("news", 2, 1, True)
    again, is_new = corpora.add(file_of(rows[0], rows[2]), name="other")
    assert (again, is_new) == (corpus, False)
    assert corpora.list() == (corpus,)
    assert corpora.get(corpus.id) == corpus
    [passage] = corpora.search(corpus.id, "who had fewer orders", k=5)
    assert (passage.id, passage.title, passage.text) == ("7", "Steel", "Orders fell.")
    assert not [path for path in (house.artifacts.root / "tmp").rglob("*") if path.is_file()]
    with pytest.raises(NotFound):
        corpora.search("0" * 16, "orders", k=5)


def test_plain_text_is_a_passage_a_line(house: House) -> None:
    text = "\ufeffOne passage.\r\n\r\n{not json}\n  Another one.\n".encode()
    for filename in ("a.txt", ""):
        corpus, _ = house.services.corpora.add(io.BytesIO(text), filename=filename)
        assert corpus.num_passages == 3
    found = house.services.corpora.search(corpus.id, "one", k=5)
    assert [passage.text for passage in found] == ["One passage.", "Another one."]


def test_every_bad_line_is_named_and_nothing_is_kept(house: House) -> None:
    rows = [
        {"text": "Good."},
        b'{"text": "open',
        ["text"],
        {"title": "no text"},
        {"text": " !? "},
        {"text": 3, "id": "a"},
        b'{"text": "\xff"}',
        {"text": "x" * 10_001},
        {"id": "p", "text": "One"},
        {"id": "p", "text": "Two"},
        {"text": "null \x00"},
        b'{"text": "' + b"y" * 200_000 + b'"}',
        {"text": "Good too."},
    ]
    with pytest.raises(InvalidInput) as caught:
        house.services.corpora.add(file_of(*rows), filename="c.jsonl")
    told = {(problem.line, problem.field): problem.reason for problem in caught.value.problems}
    lines = [(2, "json"), (3, "line"), (4, "text"), (5, "text"), (6, "text"), (7, "file"), (8, "text"), (10, "id")]
    assert list(told) == [*lines, (11, "text"), (12, "text")]
    assert "SELFSPEC_MAX_FIELD_CHARS" in told[8, "text"]
    assert "'p'" in told[10, "id"]
    assert "byte 0xff" in told[7, "file"]
    assert house.services.corpora.list() == ()
    assert not [path for path in house.artifacts.root.rglob("*") if path.is_file()]


def test_reading_ends_where_too_many_lines_are_bad(house: House) -> None:
    with pytest.raises(InvalidInput) as caught:
        house.services.corpora.add(file_of(*[[]] * 5000), filename="c.jsonl")
    assert len(caught.value.problems) == 101
    assert "not read" in caught.value.problems[-1].reason


@pytest.mark.parametrize("content", [b"", b"\n \n\n", b"\xef\xbb\xbf"])
def test_a_corpus_without_passages_is_refused(house: House, content: bytes) -> None:
    with pytest.raises(InvalidInput, match="not one passage"):
        house.services.corpora.add(io.BytesIO(content))


def test_passages_are_found_again_by_their_ids(house: House) -> None:
    rows = [{"id": 'a "b"', "text": "One thing."}, {"id": "äö", "text": "Two things."}, {"text": "Three."}]
    corpus, _ = house.services.corpora.add(file_of(*rows))
    with house.database.session(read_only=True) as uow:
        found = read_passages(uow, house.artifacts, corpus.id, ['a "b"', "äö", "gone"])
        assert {id: passage.text for id, passage in found.items()} == {'a "b"': "One thing.", "äö": "Two things."}
        assert read_passages(uow, house.artifacts, "gone", ["a"]) == {}


def test_the_setting_chooses_the_way_and_the_index_is_made_once(house: House, tmp_path: Path) -> None:
    corpus, _ = house.services.corpora.add(file_of(*made_up(50)))
    found = house.services.corpora.search(corpus.id, "w1 w2 w30", k=10)
    assert not list(house.artifacts.root.glob("indexes/**/*.npy"))
    for _ in range(2):
        large = CorpusService(house.database, house.artifacts, clock=house.clock, max_chars=1000, small=10)
        assert large.search(corpus.id, "w1 w2 w30", k=10) == found
        files = sorted(house.artifacts.root.glob("indexes/**/*.npy"))
        times = [path.stat().st_mtime_ns for path in files]
        assert len(files) == 4
    assert times == [path.stat().st_mtime_ns for path in files]
    assert not list((house.artifacts.root / "tmp" / "index").glob("*"))


def test_a_recipe_can_only_name_a_corpus_that_is_here(house: House) -> None:
    corpus, _ = house.services.corpora.add(file_of({"text": "One thing."}))
    with house.database.session(read_only=True) as uow:
        assert corpus_problems(uow, make_recipe({})) == []
        assert corpus_problems(uow, make_recipe({"corpus": corpus.id, "retrieval": "token"})) == []
        [problem] = corpus_problems(uow, make_recipe({"corpus": "abc", "retrieval": "token"}))
    assert problem == Problem("recipe.corpus", f"there is no corpus 'abc'; there are: {corpus.id}")


WORDS = ("good", "bad", "margin", "forecast", "debt", "index", "profit", "ships", "firm", "text")


def order(house: House, form: str) -> str:
    """A job of two waves that retrieves from a corpus of ten passages."""
    corpus, _ = house.services.corpora.add(file_of(*[{"text": f"The {word} of {n}"} for n, word in enumerate(WORDS)]))
    knobs: dict[str, Any] = {"num_examples": 80, "controls": [], "off_domain_items": 0, "evaluation_max_new_tokens": 4}
    return house.order(evaluation=EVALUATION[:2], retrieval=form, corpus=corpus.id, retrieval_top_k=3, **knobs)


@pytest.mark.parametrize("form", ["sequence", "token"])
def test_a_job_answers_with_passages_of_its_corpus(house: House, form: str) -> None:
    """Every row tells its passages with weights, and the weights' entropy."""
    job_id = order(house, form)
    house.run(job_id)
    assert house.job(job_id).error_message is None
    rows = house.rows(job_id, "responses")
    assert len(rows) > WAVE
    for row in rows:
        assert len(row["passages"]) == 3
        assert sum(passage["weight"] for passage in row["passages"]) == pytest.approx(1)
        assert all(passage["text"] == "" for passage in row["passages"])
        [entropy] = [check["value"] for check in row["checks"] if check["name"] == "retrieval_entropy"]
        assert 0.2 < entropy < 1.1


def test_a_job_killed_between_waves_goes_on_to_the_same_rows(house: House) -> None:
    whole = order(house, "token")
    house.run(whole)
    shutil.rmtree(house.artifacts.root / "responses")  # else the second job's rows would only be found there
    killed = order(house, "token")
    engine = KilledAtSecondWave()
    with pytest.raises(Killed):
        house.run(killed, engine=engine)
    assert [path.name for path in house.drafts(killed)] == ["answers.jsonl"]
    house.run(killed)
    assert house.digests(killed)["responses"] == house.digests(whole)["responses"]
