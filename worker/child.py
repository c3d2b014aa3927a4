"""The process of one job: ``python -m worker.child JOB_ID OWNER ATTEMPT``. Its exit code (``worker.exits``) says how it
went, and its standard output, where it was interrupted, by what. All else it writes goes to standard error.

The worker holds the other end of its standard input. When that ends the worker is gone, nobody renews the lease, and
this process ends at once: also while it still loads what it needs, which is why nothing is imported above.
"""

from __future__ import annotations

import os
import sys
import threading

from worker.exits import Exit


def end_with_worker() -> None:
    """Blocks until the worker is gone. Reads past Python's buffers: their locks would not let a thread be left here."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(Exit.WORKER_GONE)


def take_over_output() -> int:
    """A descriptor of what standard output was; from now on what is printed goes to standard error."""
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return kept


def main(job_id: str, owner: str, attempt: str) -> Exit:
    """Work on the job under the lease that the worker took."""
    threading.Thread(target=end_with_worker, daemon=True).start()
    reasons = take_over_output()
    from app.services.lease import Lease
    from worker.job import work

    return work(Lease(job_id, owner, int(attempt)), reasons=reasons)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
