"""The demo's walk: start the service, post the finance seeds, follow the job, compare base and expert, check the proof.

Ends with a SelfspecError, and so with exit code 1, unless the expert that answered is the adapter this very job made
and the service can show that it is attached and acts. An interrupted demo goes on where it was; a finished one is
shown again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from app.core.errors import SelfspecError, SetupError
from app.core.presets import make_recipe
from app.core.records import Seed, digest_of
from app.demo.client import Answer, Client, Job, Metric
from app.demo.view import lines_table, metrics_table, seconds_table, stage_view
from app.processes import Processes, ended_by_signals
from app.serve import local_url, prepare, run_service, wait_ready
from app.settings import Settings

BASE = "base_template"  # the line of the base, asked like the expert
DOMAIN = "finance"
RECIPE = {"preset": "quick"}
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / DOMAIN
INSTALL_REPORT = Path(sys.prefix) / "selfspec-install.json"
SAME_RUN_SECONDS = 60.0  # an install that ended this long before the demo began belongs to it
POLL_SECONDS = 0.5


@dataclass(slots=True)
class Stopwatch:
    """Seconds by step, in the order they were taken."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def run_demo(settings: Settings, console: Console) -> None:
    """The whole walk; the last line is JSON. Raises SelfspecError with the one line that says what is wrong."""
    watch = Stopwatch({"install": install_seconds()})
    started = time.monotonic()
    check_examples()
    with ended_by_signals():
        console.rule("1/4  Prepare: tables, base, API, worker", align="left")
        with watch.step("prepare"):
            prepare(settings, console)
        console.print(f"everything is kept in {settings.data_dir}", soft_wrap=True)
        with run_service(settings) as processes, closing(Client(local_url(settings))) as client:
            with watch.step("start"):
                wait_ready(processes, url=local_url(settings), console=console)
            figures = _walk(client, processes, settings=settings, watch=watch, console=console)
    watch.seconds["total"] = round(time.monotonic() - started + watch.seconds["install"], 1)
    console.print(seconds_table(watch.seconds))
    console.print(
        f"\n`make serve` keeps the service running; Swagger UI is then at {local_url(settings)}/docs", soft_wrap=True
    )
    print(json.dumps({"demo": {"seconds": watch.seconds, **figures}}), flush=True)


def _walk(
    client: Client, processes: Processes, *, settings: Settings, watch: Stopwatch, console: Console
) -> dict[str, object]:
    console.rule(f"2/4  Specialize: POST /specialize, {DOMAIN} seeds", align="left")
    job = follow(client, post(client, settings=settings), processes=processes, console=console)
    watch.seconds.update({stage.name: round(stage.seconds or 0.0, 1) for stage in job.stages})
    console.rule("3/4  Compare: GET /jobs/{id}/metrics", align="left")
    figures = client.metrics(job.id)
    metrics = [figure for figure in figures if (figure.against, figure.shots) == (BASE, 0)]
    for name, title in (("f1", "Token F1"), ("rougeL", "ROUGE-L")):
        console.print(metrics_table([metric for metric in metrics if metric.metric == name], title=title))
    console.print(lines_table([figure for figure in figures if (figure.task, figure.metric) == ("mean", "f1")]))
    console.rule("4/4  Ask both: POST /generate", align="left")
    with watch.step("answers"):
        adapter = ask_both(client, job, item=pick_item(metrics), console=console)
    mean = next(metric for metric in metrics if (metric.task, metric.metric) == ("mean", "f1"))
    scores = {"base_f1": mean.score, "expert_f1": mean.expert, "difference": mean.difference}
    interval = {"low": mean.low, "high": mean.high}
    return {**{name: round(score, 2) for name, score in {**scores, **interval}.items()}, "adapter": adapter}


def check_examples() -> None:
    """The examples are part of a clone, not of an installed package."""
    if not (EXAMPLES / "seeds.jsonl").exists():
        raise SetupError(f"{EXAMPLES} has no seeds.jsonl: run the demo from a clone of the repository")


def install_seconds() -> float:
    """What ``make`` spent on installing just before; 0.0 if it was done in an earlier run."""
    if not INSTALL_REPORT.exists() or time.time() - INSTALL_REPORT.stat().st_mtime > SAME_RUN_SECONDS:
        return 0.0
    steps: dict[str, float] = json.loads(INSTALL_REPORT.read_text(encoding="utf-8"))["seconds"]
    return round(sum(steps.values(), 0.0), 1)


def post(client: Client, *, settings: Settings) -> Job:
    """The job for these seeds: a new one, the one an earlier demo left unfinished, or the one it finished.

    One that failed or was cancelled is not taken again.
    """
    files = {name: EXAMPLES / f"{name}.jsonl" for name in ("seeds", "evaluation")}
    knobs = make_recipe(RECIPE).model_dump_json()
    digest = digest_of(settings.engine, settings.base, knobs, *(file.read_text("utf-8") for file in files.values()))
    for attempt in range(1, 1000):
        key = f"demo-{digest}-{attempt}"
        job = client.specialize(DOMAIN, **files, recipe=RECIPE, idempotency_key=key)
        if job.status not in ("failed", "cancelled"):
            return job
    raise SelfspecError("a thousand demos failed here; remove the data folder and begin anew")


def follow(client: Client, job: Job, *, processes: Processes, console: Console) -> Job:
    """Show every stage until the job has ended; raises SelfspecError unless it succeeded, or if somebody holds it."""
    console.print(f"GET /jobs/{job.id}")
    if job.is_final:
        console.print("made by an earlier demo in this data folder; shown again")
    with stage_view(console) as view:
        view.show(job)
        while not job.is_final:
            if job.is_held:
                raise SelfspecError(f"job {job.id} waits for {job.waits_for}: POST /jobs/{job.id}/resume lets it go on")
            time.sleep(POLL_SECONDS)
            processes.check()
            job = client.job(job.id)
            view.show(job)
    if job.status != "succeeded":
        raise SelfspecError(f"job {job.id} {job.status}: {job.error or 'no reason is known'}")
    return job


def pick_item(metrics: Sequence[Metric]) -> tuple[int, Seed]:
    """The first held-out item of the task where the expert gained most, and its line in the file."""
    gains = [metric for metric in metrics if metric.metric == "f1" and metric.task != "mean"]
    task = max(gains, key=lambda metric: metric.difference).task
    lines = (EXAMPLES / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    number, row = next((number, row) for number, row in enumerate(rows, 1) if row["task"] == task)
    return number, Seed(row["task"], row["instruction"], row["input"], row["output"])


def ask_both(client: Client, job: Job, *, item: tuple[int, Seed], console: Console) -> str:
    """Ask base and expert the same, print both, check the proof; returns the adapter's id."""
    number, seed = item
    base = client.generate(seed.instruction, seed.input, domain=None)
    expert = client.generate(seed.instruction, seed.input, domain=DOMAIN)
    shown = {
        f"evaluation item {number} ({seed.task})": f"{seed.instruction}\n{seed.input}",
        "right answer": seed.output,
        f"base (adapter {base.adapter})": base.text.strip(),
        f"expert (adapter {expert.adapter})": expert.text.strip(),
    }
    for title, text in shown.items():
        console.print(f"[bold]{title}[/bold]")
        console.print(text, markup=False, end="\n\n")
    return check_proof(client, job, base=base, expert=expert, console=console)


def check_proof(client: Client, job: Job, *, base: Answer, expert: Answer, console: Console) -> str:
    """Raise SelfspecError unless this job's adapter answered, is attached, and acts; returns its id."""
    if job.adapter is None or expert.adapter != job.adapter:
        raise SelfspecError(f"the expert's answer came from adapter {expert.adapter}, the job's is {job.adapter}")
    if base.adapter is not None:
        raise SelfspecError(f"the base's answer came from adapter {base.adapter}")
    proof = client.adapter(job.adapter)
    if not (proof.attached and proof.num_modules > 0 and proof.probe_distance > 0):
        raise SelfspecError(f"adapter {job.adapter} is not attached as it should be: {proof}")
    console.print(
        f"{proof.name} is attached: {proof.num_modules} layers, log-probabilities {proof.probe_distance:.4f} nats "
        "from the base's",
        soft_wrap=True,
    )
    return job.adapter
