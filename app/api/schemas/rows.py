"""Bodies about the rows of a dataset, and what people change in them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.core.records import Origin


class TextsBody(BaseModel):
    """The texts of a row."""

    instruction: str
    input: str
    output: str


class RowBody(BaseModel):
    """One row, with the texts that will be learned unless it is deleted."""

    index: int = Field(description="Its number in the dataset as it was made, from 0.")
    id: str = Field(description="Stays what it is when the texts are changed: see GET /jobs/{job_id}/dataset/{row}.")
    origin: Origin
    task: str | None = Field(description="null: the writer chose the task.")
    instruction: str
    input: str
    output: str
    is_edited: bool
    is_deleted: bool = Field(description="It is not learned.")
    was: TextsBody | None = Field(description="The texts it was made with, if they were changed.")


class RowPageBody(BaseModel):
    """Some rows of one dataset."""

    job: str
    stage: str = Field(description="The dataset's.")
    is_open: bool = Field(description="The job waits for review: rows can be changed.")
    num_rows: int = Field(description="Rows that were made.")
    num_edited: int
    num_deleted: int
    data: list[RowBody]
    next: str | None = Field(description="Give it as `after` to read on; null at the end.")


class RowChanges(BaseModel):
    """What to change; a text that is left out stays."""

    model_config = ConfigDict(extra="forbid")

    instruction: str | None = Field(None, description="May not be empty.")
    input: str | None = Field(None, description="May be empty.")
    output: str | None = Field(None, description="What the expert is to answer; may not be empty.")
