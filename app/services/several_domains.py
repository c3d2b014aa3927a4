"""Several domains in one expert: their labelled sets → one, in which every item says which domain it is from.

A task name that two of the domains share is told apart by its domain: ``law/summary``. Knows nothing of storage: sets
that were sent before are looked up by who calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from app.core.errors import Problem
from app.core.records import Seed
from app.services.domain_names import name_problem
from app.services.seed_checks import DUPLICATE
from app.services.seeds import Limits, PlacedSeed, SeedSet, check_number, read_seeds, unusable_text

MEMBER_KEYS = ("domain", "description", "seeds", "evaluation")
_FORM = 'names ("law") or objects with ' + ", ".join(MEMBER_KEYS)


@dataclass(frozen=True, slots=True)
class StoredDomain:
    """What was sent last for a domain."""

    description: str
    seeds: tuple[Seed, ...]
    evaluation: tuple[Seed, ...]


FindDomain = Callable[[str], StoredDomain | None]


@dataclass(frozen=True, slots=True)
class Member:
    """One of the domains: what was sent for it now, or else before."""

    name: str
    description: str
    seeds: SeedSet
    evaluation: SeedSet


@dataclass(frozen=True, slots=True)
class Union:
    """All of them as one set each; ``description`` joins theirs."""

    seeds: SeedSet
    evaluation: SeedSet
    description: str = ""


def unite(given: object, *, evaluation: SeedSet | None, find: FindDomain, limits: Limits) -> Union:
    """One set of what ``given`` lists. ``evaluation``: items sent beside the list, in place of the domains' own.

    Faults are kept as problems of the sets; raises TooLarge.
    """
    members, problems = _read_members(given, find=find, limits=limits)
    check_number(sum(len(member.seeds.seeds) for member in members), source="domains", limits=limits)
    shared = _shared_tasks(members)
    seeds = [_told_apart(placed, member.name, shared) for member in members for placed in member.seeds.seeds]
    problems += [problem for member in members for problem in member.seeds.problems]
    problems += _repeated(placed for member in members for placed in member.seeds.seeds)
    return Union(
        _joined("domains", seeds, problems, [member.seeds for member in members]),
        _evaluation(members, evaluation, shared),
        description="; ".join(f"{member.name}: {member.description}" for member in members if member.description),
    )


def _read_members(given: object, *, find: FindDomain, limits: Limits) -> tuple[list[Member], list[Problem]]:
    if not isinstance(given, list) or len(given) < 2:
        reason = f"must list at least two domains: {_FORM}; of a single domain send its seeds"
        return [], [Problem("domains", reason, source="domains")]
    members: list[Member] = []
    problems: list[Problem] = []
    for position, entry in enumerate(given, start=1):
        fields = {"domain": entry} if isinstance(entry, str) else entry
        faults = list(_entry_faults(fields, {member.name for member in members}))
        if not faults and fields.get("seeds") is None and (stored := find(fields["domain"])) is None:
            reason = f"there are no seeds of domain {fields['domain']!r} from an earlier job: send them here"
            faults = [("seeds", reason)]
        problems += [Problem(field, reason, position, "domains") for field, reason in faults]
        if not faults:
            members.append(_stored(fields, stored) if fields.get("seeds") is None and stored else _sent(fields, limits))
    return members, problems


def _entry_faults(entry: object, taken: set[str]) -> Iterator[tuple[str, str]]:
    """Field and reason of everything wrong with one entry of the list."""
    if not isinstance(entry, dict):
        yield "item", f"must be one of {_FORM}"
        return
    if fault := name_problem(entry.get("domain")):
        yield "domain", fault.reason
    elif entry["domain"] in taken:
        yield "domain", f"{entry['domain']!r} is there twice"
    description = entry.get("description")
    if description is not None and not isinstance(description, str):
        yield "description", "must be a text"
    elif reason := unusable_text(description or ""):
        yield "description", reason
    for key in ("seeds", "evaluation"):
        if entry.get(key) is not None and not isinstance(entry[key], list):
            yield key, "must be a list of examples"
    if entry.get("evaluation") is not None and entry.get("seeds") is None:
        yield "evaluation", "comes with the domain's seeds: send both, or only the domain's name"
    for key in entry:
        if key not in MEMBER_KEYS:
            yield str(key), f"unknown key; there are: {', '.join(MEMBER_KEYS)}"


def _sent(entry: dict[str, object], limits: Limits) -> Member:
    name = str(entry["domain"])

    def read(key: str) -> SeedSet:
        given = entry.get(key)
        source = f"domains.{name}.{key}"
        return read_seeds(given, source=source, limits=limits) if isinstance(given, list) else _placed((), source)

    return Member(name, str(entry.get("description") or "").strip(), read("seeds"), read("evaluation"))


def _stored(entry: dict[str, object], stored: StoredDomain) -> Member:
    name = str(entry["domain"])
    description = entry.get("description") or stored.description
    seeds, evaluation = _placed(stored.seeds, f"seeds of {name}"), _placed(stored.evaluation, f"evaluation of {name}")
    return Member(name, str(description).strip(), seeds, evaluation)


def _placed(seeds: Iterable[Seed], source: str) -> SeedSet:
    return SeedSet(source, tuple(PlacedSeed(seed, line, source) for line, seed in enumerate(seeds, start=1)), ())


def _shared_tasks(members: Sequence[Member]) -> set[str]:
    owners = Counter(task for member in members for task in _tasks(member))
    return {task for task, number in owners.items() if number > 1}


def _tasks(member: Member) -> set[str]:
    return {placed.seed.task for items in (member.seeds, member.evaluation) for placed in items.seeds}


def _told_apart(placed: PlacedSeed, name: str, shared: set[str]) -> PlacedSeed:
    """The item with its domain; one that came from several domains itself keeps what it has."""
    seed = placed.seed
    task = f"{name}/{seed.task}" if seed.task in shared else seed.task
    return replace(placed, seed=replace(seed, task=task, domain=seed.domain or name))


def _repeated(seeds: Iterable[PlacedSeed]) -> Iterator[Problem]:
    """Seeds that another domain's set has too; those of its own are found with every set's."""
    first: dict[str, PlacedSeed] = {}
    for placed in seeds:
        there = first.setdefault(placed.seed.id, placed)
        if there.source != placed.source:
            told = f"{DUPLICATE}: the same as line {there.line} of {there.source}"
            yield Problem("item", told, placed.line, placed.source)


def _evaluation(members: Sequence[Member], given: SeedSet | None, shared: set[str]) -> SeedSet:
    """The domains' own items, or those that were sent in their place."""
    if given is None:
        items = [_told_apart(placed, member.name, shared) for member in members for placed in member.evaluation.seeds]
        sets = [member.evaluation for member in members]
        return _joined("evaluation", items, [problem for each in sets for problem in each.problems], sets)
    problems, placed_items = list(given.problems), []
    if any(member.evaluation.source.startswith("domains.") and member.evaluation.seeds for member in members):
        problems.append(Problem("evaluation", "is given twice: beside domains and in them", source="evaluation"))
    for placed in given.seeds:
        owners = [member.name for member in members if _is_of(placed.seed.task, member, shared)]
        if placed.seed.task in shared:
            names = ", ".join(f"{member.name}/{placed.seed.task}" for member in members if _has(member, placed))
            reason = f"several of the domains have a task {placed.seed.task!r}: name it {names}"
            problems.append(Problem("task", reason, placed.line, placed.source))
        domain = owners[0] if owners else ""
        placed_items.append(replace(placed, seed=replace(placed.seed, domain=domain)))
    return _joined("evaluation", placed_items, problems, [given])


def _has(member: Member, placed: PlacedSeed) -> bool:
    return placed.seed.task in _tasks(member)


def _is_of(task: str, member: Member, shared: set[str]) -> bool:
    """Whether an item sent beside the domains names a task of this one."""
    return task in {f"{member.name}/{own}" if own in shared else own for own in _tasks(member)}


def _joined(source: str, items: Sequence[PlacedSeed], problems: Sequence[Problem], sets: Sequence[SeedSet]) -> SeedSet:
    ignored = sorted({key for each in sets for key in each.ignored})
    return SeedSet(source, tuple(items), tuple(problems), tuple(ignored))
