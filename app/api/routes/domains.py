"""/domains: which experts there are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from app.api import examples
from app.api.deps import ServicesDep
from app.api.schemas.domains import DomainBody, DomainList
from app.api.schemas.errors import refusals
from app.core.errors import InvalidInput, Problem, UnknownDomain
from app.services.domain_names import RULE

router = APIRouter(prefix="/domains", tags=["domains"])


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
        **refusals(
            no_such_domain=UnknownDomain("law", ["biomedicine", "finance"]),
            bad_name=InvalidInput([Problem("domain", f"'F' cannot be part of a domain's name; a name is {RULE}")]),
        ),
    },
)
def get_domain(
    name: Annotated[str, Path(description="The domain's name.", examples=["finance"])], services: ServicesDep
) -> DomainBody:
    return DomainBody.model_validate(services.domains.get(name), from_attributes=True)
