"""What OpenAI's requests have in common: which of their fields are read, which are passed over, which are refused.

A field that would change the answer is never passed over in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Fields(BaseModel):
    """A JSON object of OpenAI's. ``null`` means left out; unknown fields are refused with the name that was meant."""

    model_config = ConfigDict(extra="forbid")

    PASSED_OVER: ClassVar[frozenset[str]] = frozenset()
    """Fields that change nothing in an answer here: accepted and not read."""
    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Fields of things not done here, with the values that ask for nothing."""

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value is not None and name not in cls.PASSED_OVER}
        faults = [fault for name, value in given.items() if (fault := cls._fault(name, value))]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return {name: value for name, value in given.items() if name not in cls.NEUTRAL}

    @classmethod
    def _fault(cls, name: str, value: Any) -> InitErrorDetails | None:
        known = [field.alias or own_name for own_name, field in cls.model_fields.items()]
        if name in known or _is_one_of(value, cls.NEUTRAL.get(name, ())):
            return None
        if name in cls.NEUTRAL:
            values = " or ".join(_written(neutral) for neutral in cls.NEUTRAL[name])
            reason = f"is not supported: leave it out{f' or send {values}' if values else ''}"
        else:
            near = difflib.get_close_matches(name, [*known, *cls.NEUTRAL], n=1)
            reason = "unknown field" + (f"; did you mean {near[0]}?" if near else "")
        return InitErrorDetails(type=custom(reason), loc=(name,), input=value)


def custom(reason: str) -> PydanticCustomError:
    """A fault in our own words; braces in them are left as they are."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Compared with the type in mind: ``true`` is not 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _written(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value).replace("'", '"')
