"""The frozen records that travel between stages, and their identities.

A record's ``id`` is a digest of its content, so the same seed has the same id in every job and file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


def digest_of(*parts: str) -> str:
    """A 16-digit hexadecimal digest of texts (order and boundaries count)."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Seed:
    """One labelled example a user gave: its task, the instruction, its input (may be empty), the output."""

    task: str
    instruction: str
    input: str
    output: str
    references: tuple[str, ...] = ()  # further right answers, for judging; not part of the identity
    domain: str = ""  # of several domains in one expert, the one it is from; "": the job's own. Not part of it either

    @property
    def id(self) -> str:
        return digest_of(self.task, self.instruction, self.input, self.output)


@dataclass(frozen=True, slots=True)
class Reply:
    """One raw reply of the generator to an instruction prompt, kept whole so that every row can be traced to it."""

    index: int  # which reply of the job, from 0
    seed_ids: tuple[str, ...]  # the seeds shown, in order
    task: str | None  # the seed task a prompt was anchored to, if it was
    text: str
    finish_reason: str
    num_tokens: int
    prompt: str = ""
    generator: str = "base"  # or an adapter id


@dataclass(frozen=True, slots=True)
class Check:
    """One filter's verdict on something the model wrote. ``value`` is what was measured, if it is a number."""

    name: str
    is_passed: bool
    value: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text of a corpus as the retriever found it. ``score`` is BM25's; ``weight`` p(passage | question)."""

    id: str
    title: str
    text: str
    score: float = 0.0
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new instruction with its input, read from a reply and not yet answered."""

    instruction: str
    input: str
    task: str | None
    reply: int  # Reply.index
    item: int  # position within the reply, from 0
    seed_ids: tuple[str, ...]
    output: str | None = None  # the label that the input was written for; None: still to be answered
    domain: str = ""  # see Seed.domain
    generator: str = "base"
    checks: tuple[Check, ...] = ()

    @property
    def id(self) -> str:
        return digest_of("generated", self.instruction, self.input)


@dataclass(frozen=True, slots=True)
class Answer:
    """One raw answer to a prompt of the job, kept whole; ``generator`` is "base" or an adapter id."""

    text: str
    finish_reason: str
    num_tokens: int
    generator: str
    prompt: str = ""
    samples: tuple[str, ...] = ()  # the other answers to the same task, where there are several
    sample_generators: tuple[str, ...] = ()  # who gave each of them
    sample_finish_reasons: tuple[str, ...] = ()
    confidence: float | None = None  # how far the samples agree, 0 to 1
    merged: str | None = None  # learned in place of the text: made of it and the samples, once all are there
    passages: tuple[Passage, ...] = ()  # what was retrieved for it, with the weights, the texts left out

    @classmethod
    def of(cls, completion: Completion, *, prompt: str = "") -> Answer:
        return cls(
            completion.text,
            completion.finish_reason,
            completion.completion_tokens,
            completion.adapter or "base",
            prompt,
        )


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something the generator wrote that was not kept, and why."""

    reason: str
    reply: int
    item: int
    text: str
    detail: str = ""  # what the filter measured or met


class Origin(StrEnum):
    """Where a training row comes from."""

    SEED = "seed"
    GENERATED = "generated"


@dataclass(frozen=True, slots=True)
class Example:
    """One training row before the template: an instruction, its input and the response to learn."""

    id: str
    instruction: str
    input: str
    output: str
    task: str | None
    origin: Origin
    seed_ids: tuple[str, ...]  # itself for a seed; the seeds shown to the generator otherwise
    generator: str  # "user", "base" or an adapter id: who wrote it
    reply: int | None = None
    item: int | None = None
    domain: str = ""  # see Seed.domain
    weight: float = 1.0  # of its loss
    checks: tuple[Check, ...] = ()  # every filter's verdict
    passages: tuple[Passage, ...] = ()  # what was retrieved for its response
    stage: str = ""  # the stage whose reply and answer it is: "responses", "responses-2"…


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """What the trainer sees: the loss is taken on ``target`` (and the end-of-sequence token) only."""

    prompt: str
    target: str
    weight: float = 1.0  # factor of the row's loss
    is_seed: bool = True  # a user's row, as against a generated one


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How one training differs from the recipe's plain one."""

    max_steps: int | None = None  # exactly so many optimizer steps, the rows gone through again and again; None: epochs
    start: str | None = None  # folder of an adapter whose weights training begins with; None: a new one
    seed_share: float | None = None  # share of each batch that is seeds; None: as the shuffled rows come


PLAIN = TrainingPlan()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt for the engine. ``adapter`` None is the bare base; temperature 0 is greedy.

    ``seed`` fixes the sampling of this request alone, whatever else is in the batch; ``stop`` texts end the answer and
    are not part of it.
    """

    prompt: str
    adapter: str | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # alternatives told for each token; 0: only the chosen one's; None: nothing is told
    schema: str | None = None  # a JSON schema, as JSON text, that the answer satisfies
    ignore_end: bool = False  # write on past the end of sequence (for measurements)
    timeout_seconds: float | None = None  # from submission; what is written by then is the answer


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """How likely is ``continuation`` after ``prompt``? Computed by the bare base or one attached adapter."""

    prompt: str
    continuation: str
    adapter: str | None = None
    with_end: bool = False  # count the end of sequence after it too


@dataclass(frozen=True, slots=True)
class Score:
    """``log_probability``: of the whole continuation, natural log, before temperature; over ``num_tokens`` tokens."""

    log_probability: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class MixtureRequest:
    """One answer drawn greedily from several prompts at once (paper App. D; retrieval-augmented generation).

    ``weights`` are p(z | x) of each prompt's passage and sum to 1. The next token is the argmax of
    Σ_z w_z p(t | prompt_z, answer so far). ``mode`` "sequence": w_z is updated by Bayes' rule with every token, which
    makes it exact for the mixture of whole sequences; "token": w_z stays as it is.
    """

    prompts: tuple[str, ...]
    weights: tuple[float, ...]
    mode: str = "sequence"
    adapter: str | None = None
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MixtureCompletion:
    """The answer; ``log_probability`` of it under the mixture; ``weights`` after the last token."""

    text: str
    finish_reason: str  # "stop" or "length"
    completion_tokens: int
    adapter: str | None
    log_probability: float
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an answer: its text, its natural-log probability before temperature, and the likeliest instead."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()  # (text, log-probability), likeliest first


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer that is still being written. The pieces' texts, joined, are the completion's text."""

    text: str
    num_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine answered. ``adapter`` is read back from the slot that computed it, not from the request."""

    text: str
    finish_reason: str  # "stop" (end of sequence or a stop text), "length" or "timeout"
    prompt_tokens: int
    completion_tokens: int
    adapter: str | None
    queue_seconds: float = 0.0  # from submission to the first computed token of the prompt
    seconds: float = 0.0  # from there to the end
    first_token_seconds: float = 0.0  # from submission to the first token of the answer
    cached_tokens: int = 0  # of the prompt, not computed again: a prefix that this same adapter had computed before
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class BaseInfo:
    """The shared language model as loaded. ``fingerprint`` covers weights, tokenizer and quantization."""

    name: str
    fingerprint: str
    quantization: str  # "nf4" or "none"
    dtype: str
    device: str
    context_tokens: int
    num_parameters: int
    device_name: str = ""  # of a graphics processor


@dataclass(frozen=True, slots=True)
class Attachment:
    """Proof that an adapter is attached and acts.

    ``probe_distance``: mean absolute difference of next-token log-probabilities (nats) between adapter and base over
    a fixed probe prompt; 0 would mean that the adapter changes nothing.
    """

    adapter: str
    slot: int | None  # None: waits in host memory for a slot
    num_modules: int
    rank: int
    num_bytes: int
    probe_distance: float


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """What one adapter (None: the bare base) holds and does in the engine now."""

    adapter: str | None
    slot: int | None
    num_bytes: int
    is_pinned: bool
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class EngineState:
    """A look into the serving engine; budgets and sizes in bytes."""

    num_slots: int
    max_batch: int
    running: int
    waiting: int
    slot_bytes: int  # one slot's tensors on the device
    host_bytes: int  # adapters kept in host memory
    host_budget: int
    cache_bytes: int  # keys and values of running requests
    cache_budget: int
    prefix_bytes: int  # keys and values kept for prompts that begin alike
    prefix_budget: int
    experts: tuple[ExpertLoad, ...]
    steps_by_rows: Mapping[int, int] = field(default_factory=dict)  # decoding steps, by sequences in them
    rows_by_slots: Mapping[int, int] = field(default_factory=dict)  # adapters' sequences, by adapters beside them
    peak_bytes: int = 0  # most that was in use so far: of the device on CUDA, else of the process
    free_bytes: int = 0  # that can still be had: on the device on CUDA, else in host memory


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One optimizer step, as it happened."""

    step: int
    num_steps: int
    epoch: float
    loss: float  # mean negative log-likelihood a target token, nats
    learning_rate: float
    tokens: int  # tokens read so far, prompts included
    seconds: float  # since training began, interruptions left out
    memory_bytes: int = 0  # most that was in use so far: of the device on CUDA, else of the process


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What training did."""

    num_steps: int
    num_rows: int
    num_dropped: int  # rows longer than max_length
    tokens: int
    seconds: float
    first_loss: float
    last_loss: float
    num_parameters: int
    num_modules: int
    peak_bytes: int = 0  # see TrainingStep.memory_bytes


class Line(StrEnum):
    """Who answered in an evaluation. All get the same items, limits and stop texts."""

    BASE = "base"  # the bare base, asked without the expert's template
    BASE_TEMPLATE = "base_template"  # the bare base, asked through it: what "the base" means where only one is named
    SEEDS_SAME_EPOCHS = "seeds_same_epochs"  # learned from the seeds alone, by the same recipe
    SEEDS_SAME_STEPS = "seeds_same_steps"  # the same, for as many optimizer steps as the expert
    SUPERVISED = "supervised"  # learned from the user's own labelled rows
    CHAMPION = "champion"  # what the domain serves now
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer to one evaluation item and its scores, 0 to 100, by metric. ``line``: a Line or a candidate's name."""

    id: str
    task: str
    line: str
    shots: int
    text: str
    finish_reason: str
    scores: dict[str, float]
    num_shown: int = 0  # demonstrations; fewer than ``shots`` where the base can read no more
    num_tokens: int = 0
    generator: str = "base"  # or an adapter id, read back from what computed it


MEAN = "mean"  # the task name of a comparison over all tasks


@dataclass(frozen=True, slots=True)
class Comparison:
    """The expert and another line on one task (or ``MEAN``, over tasks), 0 to 100; low and high bound the difference
    (95 %)."""

    task: str
    metric: str
    n: int
    against: str  # a Line, or the name of another candidate of the job
    shots: int  # demonstrations that both were shown
    score: float  # of ``against``
    expert: float
    difference: float
    low: float
    high: float


COUNTERS = {
    "requests": "answers given",
    "prompt_tokens": "tokens of the prompts answered",
    "generated_tokens": "tokens written",
    "prefill_tokens": "prompt tokens computed",
    "cached_tokens": "prompt tokens taken from a prefix computed before",
    "batches": "forward passes that decoded",
    "graph_batches": "of these, replays of a CUDA graph",
    "batch_rows": "sequences in those, added up",
    "adapter_rows": "of these, sequences of an adapter",
    "attachments": "adapters read from disk",
    "placements": "adapters written into a slot",
    "evictions": "adapters that lost their slot to another",
    "host_evictions": "adapters dropped from host memory",
    "preempted": "sequences that had to wait again because the cache was full",
    "slot_waits": "requests that could have run but for a slot",
    "cancelled": "requests whose caller left",
    "timeouts": "requests whose time ran out",
    "failed": "requests that ended in an error",
    "waiting": "requests waiting now",
}
