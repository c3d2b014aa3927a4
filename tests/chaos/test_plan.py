"""The chaos run's plan is the seed's, and holds every kind of trouble."""

from __future__ import annotations

from tests.chaos.plan import Act, Caller, make_plan


def test_the_same_seed_makes_the_same_plan() -> None:
    assert make_plan(3, 40, list(Act)) == make_plan(3, 40, list(Act))
    assert make_plan(3, 40, list(Act)) != make_plan(4, 40, list(Act))


def test_a_small_plan_has_each_trouble_once_and_none_that_the_stack_cannot_have() -> None:
    plan = make_plan(1, 4, set(Act) - {Act.CUT})
    assert {trouble.act for trouble in plan.troubles} == set(Act) - {Act.CUT}


def test_callers_of_two_hundred_jobs_do_all_there_is_to_do() -> None:
    orders = make_plan(1, 200, list(Act)).orders
    assert {order.caller for order in orders} == set(Caller)
    assert len({order.key for order in orders}) == 200
    assert len({order.variant for order in orders}) < 40  # many must agree, so that they meet in the store


def test_troubles_come_while_there_is_still_work() -> None:
    plan = make_plan(1, 50, list(Act))
    assert [trouble.at for trouble in plan.troubles] == sorted(trouble.at for trouble in plan.troubles)
    assert plan.troubles[-1].at < sum(len(order.stages) for order in plan.orders)
