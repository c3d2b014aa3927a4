"""/corpora: passages that jobs may retrieve from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response

from app.api import examples
from app.api.corpora_examples import CORPUS, CORPUS_ID, LINES, PASSAGE, TEXT
from app.api.corpus_body import FORM, RAW, corpus_file
from app.api.deps import ServicesDep
from app.api.schemas.corpora import CorpusBody, CorpusList, PassageBody, PassageList
from app.api.schemas.errors import INVALID_QUERY, refusals
from app.core.errors import InvalidInput, NotFound, Problem, TooLarge

router = APIRouter(prefix="/corpora", tags=["corpora"])

DESCRIPTION = """\
Passages for the recipe's `retrieval`: the base reads the best ones beside each new task when it writes the answer.

Send the file as the body or as a form's `file`. JSONL: a line is `{"text": …}` with `id` and `title` if there are any;
other keys are not used. Plain text: a line is a passage. Texts that differ in case or spacing only are kept once. The
same passages are the same corpus: sending them again answers 200 and the corpus there is.
"""
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/x-ndjson": {"schema": {"type": "string"}, "example": LINES},
        "text/plain": {"schema": {"type": "string"}, "example": TEXT},
        FORM: {
            "schema": {
                "type": "object",
                "title": "CorpusForm",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary", "description": "JSONL or plain text."}},
            },
            "example": {"file": LINES},
        },
    },
}
assert set(_BODY["content"]) <= {FORM, *RAW}
_MISSING = NotFound("there is no corpus '0000000000000000'; POST /corpora makes one", param="corpus")
_FAULTS = InvalidInput(
    [Problem("json", "broken JSON: Expecting ',' delimiter (column 31)", 17, "file"), Problem("text", "is missing", 23)]
)

CorpusId = Annotated[str, Path(description="The corpus's id.", examples=[CORPUS_ID])]


@router.post(
    "",
    status_code=201,
    summary="Add a corpus",
    description=DESCRIPTION,
    response_model=CorpusBody,
    responses={
        201: examples.response("The corpus was stored.", CORPUS, Location="Where it can be seen."),
        200: examples.response("It was there before.", CORPUS, Location="Where it can be seen."),
        **refusals(
            too_large=TooLarge([Problem("body", "larger than 4,294,967,296 bytes (SELFSPEC_MAX_CORPUS_BYTES)")]),
            faults=_FAULTS,
        ),
    },
    openapi_extra={"requestBody": _BODY},
)
async def add_corpus(
    request: Request,
    response: Response,
    services: ServicesDep,
    name: Annotated[str, Query(description="For people; left out: the file's name.", examples=["filings"])] = "",
) -> CorpusBody:
    async with corpus_file(request) as file:
        corpus, is_new = await to_thread.run_sync(
            lambda: services.corpora.add(file.file, filename=file.filename or "", name=name)
        )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/corpora/{corpus.id}"
    return CorpusBody.model_validate(corpus, from_attributes=True)


@router.get(
    "",
    summary="List corpora",
    description="All corpora, the newest first.",
    responses={200: examples.response("All corpora.", {"data": [CORPUS]}), **refusals()},
)
def list_corpora(services: ServicesDep) -> CorpusList:
    return CorpusList.model_validate({"data": services.corpora.list()}, from_attributes=True)


@router.get(
    "/{corpus}",
    summary="See one corpus",
    description="How many passages it holds, and how many repeated ones were left out.",
    responses={200: examples.response("The corpus.", CORPUS), **refusals(no_such_corpus=_MISSING)},
)
def get_corpus(corpus: CorpusId, services: ServicesDep) -> CorpusBody:
    return CorpusBody.model_validate(services.corpora.get(corpus), from_attributes=True)


@router.get(
    "/{corpus}/search",
    summary="Search a corpus",
    description="The best passages by BM25, as a job finds them: only those that share a word with the query. The "
    "first search of a large corpus builds its index and takes a while.",
    responses={
        200: examples.response("What was found, the best first.", {"data": [PASSAGE]}),
        **refusals(no_such_corpus=_MISSING, bad_query=INVALID_QUERY),
    },
)
def search_corpus(
    corpus: CorpusId,
    services: ServicesDep,
    q: Annotated[str, Query(description="What to look for.", min_length=1, max_length=20_000, examples=["dividend"])],
    k: Annotated[int, Query(description="Most passages to show.", ge=1, le=50, examples=[5])] = 5,
) -> PassageList:
    found = services.corpora.search(corpus, q, k=k)
    return PassageList(data=[PassageBody.model_validate(asdict(passage)) for passage in found])
