"""The whole way on servers chosen by URL alone: real API and worker processes, and every job runs once."""

from __future__ import annotations

import pytest

from tests.services_real.site import ENDLESS, Site

pytestmark = pytest.mark.service


def test_a_job_is_done_and_its_adapter_answers(site: Site) -> None:
    site.start_worker()
    try:
        job = site.ended(site.order("finance"))
        assert (job["status"], job["error"], job["attempt"]) == ("succeeded", None, 1)
        answer = site.http.post("/generate", params={"domain": "finance"}, json={"instruction": "Good or bad?"})
        assert answer.status_code == 200
        assert answer.headers["x-selfspec-adapter"] == "finance@v1"
        assert answer.headers["x-selfspec-adapter-id"] == job["adapter"]
        assert site.worker_check() == 0
    finally:
        assert site.stop("worker") == 0
    assert site.worker_check() == 1


def test_two_workers_share_the_jobs_and_each_runs_once(site: Site) -> None:
    """Two jobs that last show that both work at a time; cancelling them frees both for the rest."""
    lasting = [site.order("finance", **ENDLESS), site.order("law", **ENDLESS)]
    jobs = [site.order(domain) for domain in ("finance", "law", "finance", "law")]
    for name in ("first", "second"):
        site.start_worker(name)
    try:
        for job_id in lasting:
            site.at_work(job_id)
        assert len({tuple(site.owners(job_id)) for job_id in lasting}) == 2
        assert {site.job(job_id)["status"] for job_id in jobs} == {"queued"}
        for job_id in lasting:
            assert site.http.post(f"/jobs/{job_id}/cancel").status_code == 200
        for job_id in lasting:
            assert site.ended(job_id)["status"] == "cancelled"
        for job_id in jobs:
            job = site.ended(job_id)
            assert (job["status"], job["attempt"]) == ("succeeded", 1)
            assert site.events(job_id).count("job_succeeded") == len(site.owners(job_id)) == 1
    finally:
        codes = [site.stop(name) for name in ("first", "second")]
    assert codes == [0, 0]


def test_what_a_worker_leaves_at_its_end_another_finishes(site: Site) -> None:
    job_id = site.order("finance", num_examples=1000, max_prompts=100_000)
    site.start_worker("first")
    site.at_work(job_id)
    assert site.stop("first") == 0
    assert site.job(job_id)["status"] == "queued"
    assert "job_interrupted" in site.events(job_id)
    site.start_worker("second")
    try:
        job = site.ended(job_id)
        assert (job["status"], job["attempt"]) == ("succeeded", 2)
        first, second = site.owners(job_id)
        assert first != second
    finally:
        assert site.stop("second") == 0
