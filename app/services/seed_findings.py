"""Labelled examples → findings: what may harm an expert though nothing forbids it. Each function finds one kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from app.pipeline.holdout import question_of
from app.pipeline.novelty import NoveltyFilter
from app.pipeline.rouge import words_for
from app.pipeline.validity import is_closed
from app.services.request_checks import ReadRequest
from app.services.seed_checks import DUPLICATE, LEAKAGE
from app.services.seed_report import Finding, LabelCount, Lengths, Severity, TaskReport, numbered
from app.services.seeds import PlacedSeed, SeedSet

NEAR = 0.9  # ROUGE-L F from which two texts of a task are near-duplicates
MAX_COMPARED = 2000  # items of a set beyond which texts are not compared with each other: it would take too long
FEW_SEEDS = 5  # the paper's number for a task
UNBALANCED = 4  # times as many
_MAX_LINES = 20  # told of a finding

Lines = dict[str | None, list[int]]
Alike = tuple[PlacedSeed, str]  # an item and what it is like


def count_tasks(read: ReadRequest) -> tuple[TaskReport, ...]:
    """Every task of seeds and evaluation, by name."""
    seeds, evaluation = _by_task(read.seeds), _by_task(read.evaluation)
    held = Counter(seed.task for seed in (read.split.holdout if read.split else ()))
    return tuple(
        TaskReport(
            task,
            domain=next((placed.seed.domain for placed in [*seeds[task], *evaluation[task]]), ""),
            seeds=len(seeds[task]),
            held_out=held[task],
            evaluation=len(evaluation[task]),
            share=len(seeds[task]) / max(1, len(read.seeds.seeds)),
            labels=_labels(seeds[task], evaluation[task]),
        )
        for task in sorted({*seeds, *evaluation})
    )


def find_all(read: ReadRequest, tasks: Sequence[TaskReport], lengths: Lengths) -> Iterator[Finding]:
    """The gravest first."""
    yield from _refusals(read)
    yield from _contradictions(read)
    yield from _task_sizes(read, tasks)
    yield from _judged(read, tasks)
    for task in tasks:
        yield from _label_findings(task, has_evaluation=bool(read.evaluation.seeds))
    yield from _near_duplicates(read)
    yield from _too_long(read, lengths)
    yield from _notes(read)


def _refusals(read: ReadRequest) -> Iterator[Finding]:
    """Counts of the problems, which are told one by one beside."""
    kinds = {
        DUPLICATE: "remove the repeated ones: a seed that is there twice counts twice in training",
        LEAKAGE: "remove them from one of the two sets, or the expert is judged by what it has learned",
    }
    for kind, remedy in kinds.items():
        found = [problem for problem in read.problems if problem.reason.startswith(f"{kind}:")]
        for source, lines in _by_source((problem.source, problem.line) for problem in found).items():
            told = f"{numbered(len(lines), 'item')} of {source}: {kind}"
            yield _finding(Severity.ERROR, kind, told, remedy, source=source, lines=lines)
    others = [problem for problem in read.problems if not problem.reason.startswith((f"{DUPLICATE}:", f"{LEAKAGE}:"))]
    if others:
        told = f"POST /specialize would refuse: {numbered(len(others), 'problem')}"
        remedy = "mend what problems lists, field by field"
        yield Finding(Severity.ERROR, "problems", told, remedy, count=len(others))


def _contradictions(read: ReadRequest) -> Iterator[Finding]:
    """One task, one question, several answers."""
    for items in (read.seeds, read.evaluation):
        answers: dict[tuple[str, tuple[str, str]], dict[str, int]] = defaultdict(dict)
        for placed in items.seeds:
            answers[placed.seed.task, question_of(placed.seed)].setdefault(placed.seed.output, placed.line)
        lines = [line for given in answers.values() if len(given) > 1 for line in given.values()]
        if lines:
            told = f"{len(lines)} items of {items.source} ask the same and answer differently"
            remedy = "keep one answer; further right answers of an evaluation item belong in its references"
            yield _finding(Severity.WARNING, "contradiction", told, remedy, source=items.source, lines=lines)


def _task_sizes(read: ReadRequest, tasks: Sequence[TaskReport]) -> Iterator[Finding]:
    learned = [task for task in tasks if task.seeds]
    for task in learned:
        if task.seeds < FEW_SEEDS:
            told = f"task {task.task!r} has {task.seeds} of the {FEW_SEEDS} seeds or more that a task should have"
            severity = Severity.WARNING if task.seeds == 1 else Severity.NOTE
            yield Finding(severity, "few_seeds", told, "send more examples of it", "seeds", task.task, task.seeds)
    most = max(learned, key=lambda task: task.seeds, default=None)
    least = min(learned, key=lambda task: task.seeds, default=None)
    if most and least and most.seeds >= UNBALANCED * least.seeds:
        told = f"task {most.task!r} has {most.seeds} seeds, {least.task!r} {least.seeds}: the expert will favour it"
        yield Finding(Severity.WARNING, "unbalanced_tasks", told, "send about as many of each task", "seeds")


def _judged(read: ReadRequest, tasks: Sequence[TaskReport]) -> Iterator[Finding]:
    """How well the report will know what the expert is worth."""
    evaluation = len(read.evaluation.seeds)
    held = len(read.split.holdout) if read.split else 0
    if held:
        told = f"{held} of {len(read.seeds.seeds)} seeds are held out and never learned" + (
            "" if evaluation else ": there is no evaluation set"
        )
        remedy = "nothing: they choose among the adapters" if evaluation else "send evaluation to learn from all seeds"
        yield Finding(Severity.NOTE, "held_out", told, remedy, "seeds", count=held)
    judging = evaluation or held
    if judging < read.recipe.min_evaluation_items and read.seeds.seeds:
        least = read.recipe.min_evaluation_items
        told = f"the expert is judged by {numbered(judging, 'item')}, fewer than min_evaluation_items ({least})"
        remedy = "send more evaluation items, else differences will mostly be chance"
        yield Finding(Severity.WARNING, "small_evaluation", told, remedy, "evaluation", count=judging)
    for task in tasks if evaluation else ():
        if not task.seeds:
            told = f"task {task.task!r} of evaluation has no seed: the expert is judged by what it was never shown"
            remedy = "send seeds of it, or check how its name is spelled"
            yield Finding(Severity.WARNING, "task_without_seeds", told, remedy, "evaluation", task.task)
        elif not task.evaluation:
            told = f"task {task.task!r} has no evaluation item, so nothing tells whether it was learned"
            yield Finding(
                Severity.WARNING, "task_without_evaluation", told, "send evaluation items of it", "seeds", task.task
            )


def _labels(seeds: Sequence[PlacedSeed], evaluation: Sequence[PlacedSeed]) -> tuple[LabelCount, ...]:
    """The answers of a task that has few of them, the most frequent first; else none."""
    if not is_closed([replace(each.seed, output=_evened(each.seed.output)) for each in [*seeds, *evaluation]]):
        return ()
    in_seeds, in_evaluation = (Counter(placed.seed.output for placed in items) for items in (seeds, evaluation))
    every = (in_seeds + in_evaluation).most_common()
    return tuple(LabelCount(label, in_seeds[label], in_evaluation[label]) for label, _ in every)


def _label_findings(task: TaskReport, *, has_evaluation: bool) -> Iterator[Finding]:
    def found(code: str, told: str, remedy: str, count: int) -> Finding:
        return Finding(Severity.WARNING, code, told, remedy, "seeds", task.task, count)

    if not task.labels or not task.seeds:
        return
    if missing := [each.label for each in task.labels if not each.seeds]:
        told = f"task {task.task!r}: no seed has the answer {_listed(missing)}, which evaluation items have"
        yield found("label_missing", told, "send a seed with each of them", len(missing))
    if has_evaluation and (missing := [each.label for each in task.labels if not each.evaluation and task.evaluation]):
        told = f"task {task.task!r}: no evaluation item has the answer {_listed(missing)}"
        yield found("label_not_judged", told, "send an evaluation item with each of them", len(missing))
    counts = sorted(each.seeds for each in task.labels if each.seeds)
    if len(counts) > 1 and counts[-1] >= UNBALANCED * counts[0]:
        told = f"task {task.task!r}: of its seeds' answers one stands {counts[-1]} times, another {counts[0]}"
        yield found("unbalanced_labels", told, "send about as many seeds of each answer", counts[-1])
    spelled: dict[str, list[str]] = defaultdict(list)
    for each in task.labels:
        spelled[_evened(each.label)].append(each.label)
    for ways in spelled.values():
        if len(ways) > 1:
            told = f"task {task.task!r}: one answer is spelled in several ways: {_listed(ways)}"
            yield found("label_spelling", told, "spell it in one way", len(ways))


def _evened(label: str) -> str:
    """The answer without what is only spelling."""
    return label.casefold().strip(" .!\"'")


def _near_duplicates(read: ReadRequest) -> Iterator[Finding]:
    """Texts of one task that are nearly the same: among the seeds, and between them and what judges."""
    if max(len(read.seeds.seeds), len(read.evaluation.seeds)) > MAX_COMPARED:
        told = f"sets of more than {MAX_COMPARED:,} items are not searched for near-duplicates"
        yield Finding(Severity.NOTE, "not_compared", told, "exact duplicates were looked for in all of them")
        return
    seeds, evaluation = _by_task(read.seeds), _by_task(read.evaluation)
    repeated: list[Alike] = []
    leaked: list[Alike] = []
    for task in sorted(seeds):
        kept = NoveltyFilter(NEAR, words=words_for(read.recipe.language))
        is_one = len({placed.seed.instruction for placed in [*seeds[task], *evaluation[task]]}) == 1
        asked: set[tuple[str, str]] = set()
        for placed in seeds[task]:
            repeated += _alike(placed, kept, asked, is_one=is_one)
            asked.add(question_of(placed.seed))
            kept.add(_varying(placed, is_one=is_one), f"line {placed.line} of {placed.source}")
        for placed in evaluation[task]:
            leaked += _alike(placed, kept, asked, is_one=is_one)
    yield from _near(
        "near_duplicate",
        repeated,
        "earlier ones",
        "keep one of each, unless just what differs matters: the others teach little new",
    )
    yield from _near("near_leakage", leaked, "seeds", "replace them, or the figures will flatter the expert")


def _alike(
    placed: PlacedSeed, kept: NoveltyFilter, asked: Collection[tuple[str, str]], *, is_one: bool
) -> Iterator[Alike]:
    """The item, if it is nearly one of those kept; one that asks exactly what they ask is found elsewhere."""
    if question_of(placed.seed) not in asked:
        likeness = kept.judge(_varying(placed, is_one=is_one))
        if not likeness.is_new:
            yield placed, f"line {placed.line} is like {likeness.name} (ROUGE-L {likeness.score:.2f})"


def _near(code: str, found: Sequence[Alike], others: str, remedy: str) -> Iterator[Finding]:
    """One finding for each set that holds such items, with the first of them."""
    for source, lines in _by_source((placed.source, placed.line) for placed, _ in found).items():
        first = next(told for placed, told in found if placed.source == source)
        told = f"{numbered(len(lines), 'item')} of {source} nearly the same as {others}: {first}"
        yield _finding(Severity.WARNING, code, told, remedy, source=source, lines=lines)


def _varying(placed: PlacedSeed, *, is_one: bool) -> str:
    """What tells an item of a task from the others: its input where all have one instruction, else both."""
    seed = placed.seed
    return seed.input if is_one and seed.input else f"{seed.instruction}\n{seed.input}"


def _too_long(read: ReadRequest, lengths: Lengths) -> Iterator[Finding]:
    if lengths.longest is None:
        told = "lengths in tokens were not counted: the tokenizer is still loading"
        yield Finding(Severity.NOTE, "lengths_unknown", told, "ask again in a minute")
    prompt, context = lengths.longest_prompt, lengths.context
    if prompt is not None and context is not None and prompt > context:
        told = f"prompts of the job take up to {prompt:,} tokens with their answers; the base reads {context:,}"
        remedy = "such prompts show fewer seeds; lower seeds_per_prompt or instruction_max_new_tokens to say which"
        yield Finding(Severity.WARNING, "long_prompts", told, remedy, "seeds")
    for task, tokens in lengths.cut_texts.items():
        limit = read.recipe.instruction_max_new_tokens
        told = f"task {task!r}: half of its texts have {tokens:,} tokens or more; new ones are cut off at {limit:,}"
        remedy = f"raise instruction_max_new_tokens above {tokens:,}: else nothing is written for this task"
        yield Finding(Severity.WARNING, "texts_cut_off", told, remedy, "seeds", task)


def _notes(read: ReadRequest) -> Iterator[Finding]:
    if read.num_left_out:
        rows = numbered(read.num_left_out, "labelled row")
        told = f"{rows} left out of the comparison: they ask what held-out seeds ask"
        yield Finding(
            Severity.NOTE,
            "labelled_left_out",
            told,
            "send evaluation to use them all",
            "labelled",
            count=read.num_left_out,
        )
    if read.ignored:
        told = f"keys that are not used: {', '.join(read.ignored)}"
        yield Finding(Severity.NOTE, "keys_ignored", told, "leave them out, or rename them if they were meant")


def _by_task(items: SeedSet) -> defaultdict[str, list[PlacedSeed]]:
    tasks: defaultdict[str, list[PlacedSeed]] = defaultdict(list)
    for placed in items.seeds:
        tasks[placed.seed.task].append(placed)
    return tasks


def _by_source(places: Iterable[tuple[str | None, int | None]]) -> Lines:
    lines: Lines = defaultdict(list)
    for source, line in places:
        lines[source].append(line or 0)
    return lines


def _finding(
    severity: Severity, code: str, told: str, remedy: str, *, source: str | None, lines: Sequence[int]
) -> Finding:
    return Finding(severity, code, told, remedy, source, count=len(lines), lines=tuple(sorted(lines)[:_MAX_LINES]))


def _listed(texts: Sequence[str]) -> str:
    shown = ", ".join(repr(text) for text in texts[:5])
    return shown + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
