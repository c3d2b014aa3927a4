"""The recipe: every knob of a job, frozen, and saved with everything the job makes.

The defaults are the values of Kang et al. ("Self-Specialization", §2, App. A and C).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.core.languages import language_fault

PromptStyle = Literal["list", "anchored"]
Text = Annotated[str, StringConstraints(max_length=1000)]  # with a limit, halves of surrogate pairs are refused too


class Recipe(BaseModel):
    """All knobs, with the paper's values as defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["paper", "grounded", "quick"] = "paper"
    seed: int = Field(0, ge=0, lt=2**31, description="One number makes the whole job repeatable.")

    # Instructions (paper §2, App. C, Table 6)
    num_examples: int = Field(5000, ge=0, le=1_000_000, description="Generated examples to accept (seeds come on top).")
    max_prompts: int = Field(
        20_000, ge=0, description="Prompts after which generation ends with what it has, whatever num_examples says."
    )
    replies_per_prompt: int = Field(
        1,
        ge=1,
        le=64,
        description="How often the same prompt is asked, with other random numbers each time; each counts as a prompt. "
        "1 is the paper's. More: the prompt is read once for all its replies, and they are more alike.",
    )
    prompt_style: PromptStyle = Field(
        "list",
        description="list: the paper's numbered list of new tasks. anchored: seeds of one task, a new input for it.",
    )
    seeds_per_prompt: int = Field(3, ge=1, le=20, description="Random seeds shown in a prompt.")
    tasks_per_prompt: int = Field(20, ge=2, le=50, description="Items a list prompt asks for, the seeds included.")
    instruction_temperature: float = Field(1.0, ge=0, le=2)
    instruction_top_p: float = Field(0.98, gt=0, le=1)
    instruction_max_new_tokens: int = Field(1024, ge=8, le=8192)
    novelty_threshold: float = Field(
        0.7, gt=0, le=1, description="Reject new text whose ROUGE-L F with any seed or accepted item is above this."
    )
    min_words: int = Field(
        3,
        ge=1,
        description="Shortest instruction of a list and text of an anchored prompt, words; less if its seeds are.",
    )
    max_words: int = Field(150, ge=10, description="Longest instruction or input, words; more where seeds have more.")
    language: str = Field(
        "English", min_length=2, max_length=40, description="What the new tasks are written in; other text is refused."
    )
    blocked_words: tuple[Text, ...] = Field(
        (),
        description="Words, or several in a row, that no new task may hold. None by default: map, graph and file "
        "are fine words in medicine and finance.",
    )
    label_first: bool = Field(
        False,
        description="Anchored prompts of tasks whose answers are a few labels: choose the label, then have the input "
        "written for it.",
    )
    min_yield: float = Field(
        0.05, ge=0, le=1, description="Accepted items per written item below which generation fails early; 0: never."
    )
    yield_window: int = Field(64, ge=1, description="Prompts before min_yield is looked at.")

    # Before anything is written
    task_check: Literal["off", "leave_one_out"] = Field(
        "off",
        description="leave_one_out: the base first answers each seed as it will answer new tasks, without being shown "
        "that seed. Nothing is written for tasks where one answer to all of their seeds would be as right. Tasks "
        "of fewer than 4 seeds are not judged.",
    )
    min_task_f1: float = Field(
        20.0, ge=0, le=100, description="Nor for tasks whose seeds task_check has answered with a lower mean token F1."
    )

    # Responses (App. C: no demonstrations)
    response_shots: int = Field(0, ge=0, le=10, description="Same-task seeds shown when answering; 0 is the paper's.")
    response_draws: int = Field(
        1,
        ge=1,
        le=16,
        description="Draws of response_shots seeds that each new task is answered behind (by each responder); of "
        "several answers, the one most like the others is kept. 1: every prompt's items have a draw of their own.",
    )
    response_temperature: float = Field(0.0, ge=0, le=2)
    response_max_new_tokens: int = Field(256, ge=1, le=8192)
    responders: int = Field(
        0,
        ge=0,
        le=8,
        description="Who answers the new tasks. 0: the base (from iteration 2 on the previous expert), as in the "
        "paper. Else so many adapters that first learn from the seeds alone, each from another random beginning.",
    )
    responders_join: bool = Field(
        False,
        description="Responders (from iteration 2 on the previous expert) do not take the base's place, they answer "
        "beside it, without demonstrations; the base answers once behind each draw of them.",
    )
    responder_epochs: int = Field(6, ge=1, le=100, description="Epochs over the seeds that a responder learns.")
    response_samples: int = Field(
        1,
        ge=1,
        le=64,
        description="Answers to each new task by each that answers it, behind each draw of seeds; of several, the one "
        "most like the others is kept.",
    )
    response_sample_temperature: float = Field(
        0.7, gt=0, le=2, description="Temperature of the answers drawn besides the first."
    )
    min_agreement: float = Field(
        0.0, ge=0, le=1, description="Drop a row whose kept answer is less like the other samples than this, token F1."
    )
    weigh_by_agreement: bool = Field(False, description="A row's loss counts as much as its answers agree, 0 to 1.")
    validity: Literal["off", "strict"] = Field(
        "off",
        description="strict: what an answer extracts, its numbers and its labels must be in its input or in the "
        "seeds, as far as the seeds themselves keep to that; of several answers only such are chosen from.",
    )
    merge_findings: bool = Field(
        False,
        description="Of tasks whose answers list texts of their inputs (named entities, figures): instead of choosing "
        "one of several answers, make one of what they found. What is not written in the input is left out.",
    )
    balance: bool = Field(
        False,
        description="Of tasks whose answers are a few labels, keep the labels in the seeds' shares; of others, "
        "answers that several inputs have (such as none) in theirs, or in that of one seed where no seed has them.",
    )

    # Retrieval for responses (App. D, Table 2)
    retrieval: Literal["none", "sequence", "token"] = Field(
        "none",
        description="Passages of `corpus` beside each new task, marginalized. sequence: an answer a passage, the one "
        "likeliest under all of them. token: every token from the mixture of all.",
    )
    corpus: Text | None = Field(None, description="Id of the corpus that passages come from (POST /corpora).")
    retrieval_top_k: int = Field(5, ge=1, le=50, description="Passages a task. 5 is the paper's; 1 harms (Table 2).")
    retrieval_temperature: float = Field(
        1.0, gt=0, le=100, description="Of p(passage): softmax of the z-scored BM25 scores over this."
    )

    # Review
    review: bool = Field(
        False,
        description="Stop once a dataset is made, so that people can change or delete rows (GET /jobs/{id}/rows), and "
        "go on when the job is resumed.",
    )

    # Contamination
    contamination_ngram: int = Field(
        13, ge=3, le=100, description="Drop a generated row that shares so many words in a row with an evaluation item."
    )
    contamination_threshold: float = Field(
        0.7, gt=0, le=1, description="Drop a generated row whose ROUGE-L F with an evaluation item is above this."
    )

    # Training (App. A, C)
    lora_rank: int = Field(8, ge=1, le=256)
    lora_alpha: int = Field(16, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    batch_size: int = Field(32, ge=1, description="Rows an optimizer step.")
    micro_batch_tokens: int = Field(4096, ge=64, description="Padded tokens a forward pass; bounds memory.")
    learning_rate: float = Field(3e-4, gt=0, le=0.1)
    epochs: int = Field(3, ge=1, le=100)
    warmup_fraction: float = Field(0.03, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    max_length: int = Field(1024, ge=32, le=131_072, description="Tokens a row; longer rows are dropped and counted.")
    max_grad_norm: float = Field(1.0, gt=0)
    seed_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of each batch that is seeds, repeated as needed; null, or no more than theirs of all rows: "
        "as shuffled. 0 and 1: generated rows or seeds alone.",
    )
    training_shots: int = Field(
        0,
        ge=0,
        le=10,
        description="Most seeds of its task shown before a row that is learned, so that the expert can use "
        "demonstrations; 0 is the paper's.",
    )
    training_shots_share: float = Field(
        0.5, gt=0, le=1, description="Share of the rows that are learned behind 1 to training_shots seeds."
    )
    checkpoint_steps: int = Field(50, ge=1, description="Steps between two checkpoints; a killed job loses no more.")
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description="Compute activations twice instead of keeping them. auto: where memory would not do."
    )

    # The loop (App. D, Table 3; Fig. 5)
    iterations: int = Field(
        1, ge=1, le=10, description="Rounds; from the second on the previous expert writes instructions and responses."
    )
    iteration_mode: Literal["fresh", "continue"] = Field(
        "fresh", description="fresh: each round learns a new LoRA on the base. continue: the previous one goes on."
    )
    sizes: tuple[int, ...] = Field(
        (),
        description="Numbers of generated examples to train one adapter each with, from one pool (Fig. 5): 0 is the "
        "seeds alone. The largest takes num_examples' place.",
    )
    controls: tuple[Literal["epochs", "steps"], ...] = Field(
        ("epochs", "steps"),
        description="Adapters learned from the seeds alone, for the report: by as many epochs, by as many steps.",
    )

    # Evaluation
    holdout_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of each task's seeds held out and never trained on when no evaluation is given, or when "
        "the job has several adapters to choose from.",
    )
    evaluation_max_new_tokens: int = Field(128, ge=1, le=8192, description="The same for every line.")
    evaluation_shots: tuple[int, ...] = Field(
        (0, 1, 5), description="Numbers of demonstrations (seeds of the item's task) to evaluate with; 0 leads."
    )
    off_domain_items: int = Field(
        20, ge=0, description="Items of each other domain's evaluation set to ask, so that forgetting shows; 0: none."
    )
    promotion: Literal["unless_worse", "if_better", "manual", "always"] = Field(
        "unless_worse",
        description="unless_worse: serve it unless it is surely worse. if_better: only if it is surely better. manual: "
        "never by itself. always: whatever the figures say.",
    )
    max_task_drop: float = Field(
        20.0, gt=0, le=100, description="Reject an adapter that loses surely more than this on any task, points of F1."
    )
    min_evaluation_items: int = Field(
        20, ge=1, description="Evaluation items below which the evidence counts as too small to decide by."
    )
    evaluation_stop: tuple[Text, ...] = Field(
        ("\n\n", "###"), description="Texts that end an answer besides end-of-sequence; the same for base and expert."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if found := list(self._contradictions()):
            told = "; ".join(f"{field} {reason}" for field, reason in found)
            raise PydanticCustomError("contradiction", "{told}", {"told": told, "found": found})
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """Knobs that exclude each other: the field to change, and why."""
        if (fault := language_fault(self.language)) is not None:
            yield "language", fault
        if self.prompt_style == "list" and self.seeds_per_prompt >= self.tasks_per_prompt:
            yield "tasks_per_prompt", "must exceed seeds_per_prompt: the seeds are the list's first items"
        if self.replies_per_prompt > 1 and self.instruction_temperature == 0:
            yield "replies_per_prompt", "must be 1 with instruction_temperature 0: all replies would be the same"
        if self.retrieval != "none" and self.corpus is None:
            yield "corpus", "is missing: retrieval needs one (POST /corpora)"
        if self.retrieval == "none" and self.corpus is not None:
            yield "retrieval", "is none, so corpus would not be used: set sequence or token, or leave corpus out"
        if self.sizes and self.iterations > 1:
            yield "sizes", "works with one iteration only: choose sizes or iterations"
        if len(set(self.sizes)) < len(self.sizes) or any(size < 0 for size in self.sizes):
            yield "sizes", "must be different numbers, none below 0"
        if not self.evaluation_shots or 0 not in self.evaluation_shots or min(self.evaluation_shots) < 0:
            yield "evaluation_shots", "must hold 0, and no number below it: the gate decides by it"
        if len(set(self.evaluation_shots)) < len(self.evaluation_shots) or max(self.evaluation_shots, default=0) > 20:
            yield "evaluation_shots", "must be different numbers up to 20"
        if self.response_draws > 1 and not self.response_shots:
            yield "response_draws", "needs response_shots: there are no seeds to draw"
        if self.min_agreement and self.count_answers(self.responders) == 1:
            yield "min_agreement", "needs response_draws, response_samples or responders of 2 or more"
        if self.weigh_by_agreement and self.count_answers(self.responders) == 1:
            yield "weigh_by_agreement", "needs response_draws, response_samples or responders of 2 or more"
        if self.retrieval != "none" and self.response_draws > 1:
            yield "response_draws", "must be 1 with retrieval: the passages' answers are the samples"
        if self.retrieval != "none" and self.response_samples > 1:
            yield "response_samples", "must be 1 with retrieval: the passages' answers are the samples"
        if self.retrieval == "token" and self.response_temperature > 0:
            yield "response_temperature", "must be 0 with retrieval token: its answers are greedy"
        if self.retrieval != "none" and self.responders > 1:
            yield "responders", "must be 0 or 1 with retrieval: one writer reads the passages"
        if self.merge_findings and self.validity == "off":
            yield "merge_findings", "needs validity strict, by which it is known which tasks list what they find"
        if self.merge_findings and self.retrieval != "none":
            yield "merge_findings", "must be false with retrieval: of the passages' answers the likeliest is kept whole"
        if self.label_first and self.prompt_style != "anchored":
            yield "label_first", "needs prompt_style anchored"
        if self.task_check != "off" and self.prompt_style != "anchored":
            yield "task_check", "needs prompt_style anchored: a list's tasks are none of the seeds'"
        if self.task_check != "off" and self.responders and not self.responders_join:
            yield "task_check", "needs responders 0, or responders_join: adapters of the seeds know their answers"
        if self.responders_join and not self.responders and self.iterations == 1:
            yield "responders_join", "needs responders: there is nobody to answer beside the base"
        if self.responders_join and self.retrieval != "none":
            yield "responders_join", "must be false with retrieval: one writer reads the passages"

    def count_answers(self, num_writers: int) -> int:
        """Answers to each new task, of which one is kept, where so many adapters answer; but for retrieval's."""
        if self.responders_join:
            return self.response_draws + num_writers * self.response_samples
        return max(num_writers, 1) * self.response_draws * self.response_samples

    @property
    def pool_size(self) -> int:
        """How many generated examples are to be accepted."""
        return max(self.sizes, default=self.num_examples)
