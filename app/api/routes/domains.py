"""/domains: which experts there are, and which version of each is served."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from app.api import examples
from app.api.deps import ServicesDep
from app.api.schemas.domains import DomainBody, DomainList, PromoteRequest, PromotionPage
from app.api.schemas.errors import INVALID_QUERY, refusals
from app.core.errors import Conflict, InvalidInput, NotFound, NotReady, Problem, UnknownDomain
from app.services.domain_names import RULE

router = APIRouter(prefix="/domains", tags=["domains"])

Name = Annotated[str, Path(description="The domain's name.", examples=["finance"])]
_UNKNOWN = UnknownDomain("law", ["biomedicine", "finance"])
_BAD_NAME = InvalidInput([Problem("domain", f"'F' cannot be part of a domain's name; a name is {RULE}")])
_LOADING = NotReady("the base is still loading")


@router.get(
    "",
    summary="List domains",
    description="Every domain that was ever named, with the version it serves (its champion) and all its versions.",
    responses={200: examples.response("All domains.", {"data": [examples.DOMAIN]}), **refusals()},
)
def list_domains(services: ServicesDep) -> DomainList:
    return DomainList.model_validate({"data": services.domains.list()}, from_attributes=True)


@router.get(
    "/{name}",
    summary="See one domain",
    description="Its champion and its versions with their mean figures.",
    responses={
        200: examples.response("The domain.", examples.DOMAIN),
        **refusals(no_such_domain=_UNKNOWN, bad_name=_BAD_NAME),
    },
)
def get_domain(name: Name, services: ServicesDep) -> DomainBody:
    return DomainBody.model_validate(services.domains.get(name), from_attributes=True)


@router.post(
    "/{name}/promote",
    summary="Serve another version",
    description="From the next question on the domain answers with this version, whatever the gate said of it; "
    "questions in flight end on the version they began with. Promoting what is served already changes nothing.",
    responses={
        200: examples.response("The domain as it stands now.", examples.DOMAIN),
        **refusals(
            no_such_domain=_UNKNOWN,
            no_such_version=NotFound(
                "there is no adapter finance@v9; GET /domains/finance lists its versions", param="version"
            ),
            another_base=Conflict(
                "finance@v1 was made on gemma-3-270m (77aa01f2c39be4d5), and smollm2-135m-instruct (c41d8f20b7e93a56) "
                "is loaded: it would answer nothing",
                param="version",
            ),
            bad_version=InvalidInput([Problem("version", "is missing", source="body")]),
            loading=_LOADING,
        ),
    },
)
def promote(
    name: Name,
    services: ServicesDep,
    body: Annotated[PromoteRequest, Body(openapi_examples={"by_number": {"value": examples.PROMOTE}})],
) -> DomainBody:
    domain = services.promotions.promote(name, body.version, reason=body.reason)
    return DomainBody.model_validate(domain, from_attributes=True)


@router.post(
    "/{name}/rollback",
    summary="Go back to the version before",
    description="Serves what was served before the newest promotion, by a gate or by hand; once more, what was served "
    "before that. Questions in flight end on the version they began with.",
    responses={
        200: examples.response("The domain as it stands now.", examples.DOMAIN),
        **refusals(
            no_such_domain=_UNKNOWN,
            nothing_before=Conflict(
                "domain 'finance' serves finance@v1 and nothing was served before it: there is nothing to go back to",
                param="domain",
            ),
            bad_name=_BAD_NAME,
            loading=_LOADING,
        ),
    },
)
def rollback(name: Name, services: ServicesDep) -> DomainBody:
    return DomainBody.model_validate(services.promotions.rollback(name), from_attributes=True)


@router.get(
    "/{name}/promotions",
    summary="Read what was served when",
    description="Every change of the served version, by gates, by hand and by rollbacks, the newest first.",
    responses={
        200: examples.response("A page of promotions.", {"data": [examples.PROMOTION], "next": None}),
        **refusals(no_such_domain=_UNKNOWN, bad_name=_BAD_NAME, bad_limit=INVALID_QUERY),
    },
)
def list_promotions(
    name: Name,
    services: ServicesDep,
    after: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="The last id of the page before.", examples=[17])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Promotions a page.", examples=[20])] = 20,
) -> PromotionPage:
    page = services.promotions.history(name, after=after, limit=limit)
    return PromotionPage.model_validate({"data": page.items, "next": page.next}, from_attributes=True)
