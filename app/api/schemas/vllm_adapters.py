"""What vLLM's clients send to load an adapter by name, and to forget it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from app.api.schemas.openai_fields import Fields

Name = Annotated[str, StringConstraints(pattern=r"^[!-?A-~]([ -?A-~]{0,198}[!-?A-~])?$")]


class LoadRequest(Fields):
    """An adapter's name and where it lies."""

    lora_name: Name = Field(description="What `model` will call it: printable ASCII without @, at most 200.")
    lora_path: str = Field(
        min_length=1,
        max_length=4096,
        pattern=r"^[^\x00]+$",
        description="Its folder on the server, in PEFT's layout, below one of SELFSPEC_ADAPTER_ROOTS.",
    )
    load_inplace: bool = Field(False, description="Replace what is loaded under this name.")


class UnloadRequest(Fields):
    """An adapter's name."""

    PASSED_OVER = frozenset({"lora_int_id"})

    lora_name: Name = Field(description="The name it was loaded under.")
