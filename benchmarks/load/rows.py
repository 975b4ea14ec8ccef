"""What a load run yields, as rows of the benchmarks' report."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure, Goal, Row, Spread, counted
from benchmarks.load.run import ALONE, NOISE_OFF, NOISE_ON, Course
from benchmarks.load.users import OPERATIONS, Tally

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
MOST = 1.5


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value that this part of all stays under."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=1000, method="inclusive")[round(part * 1000) - 1]


def rows_of(course: Course) -> Iterator[Row]:
    """Yield the rows of a run."""
    yield _rates(course)
    for operation in OPERATIONS:
        yield _latency(course, operation)
    yield _by_tenant(course)
    yield _checks(course)
    yield _beside(course, "p95", goals=(Goal(NOISE_ON, at_most=MOST),))
    yield _beside(course, "p50")
    yield _beside_errors(course)
    yield _noise(course)


def _rates(course: Course) -> Row:
    tally = course.together
    rates = {"all": len(tally.of()) / tally.seconds}
    rates |= {operation: len(tally.of(operation)) / tally.seconds for operation in OPERATIONS}
    plan = course.plan
    note = (
        f"{plan.tenants} tenants × {plan.users} users, each thinking {plan.think_s:g} s between two requests: this is "
        "what they asked for, not what could be served."
    )
    return counted("requests", "requests/s", "all", rates, better="higher", note=note)


def _latency(course: Course, operation: str) -> Row:
    """The quantiles of all answers; the spread is that of the same quantile among the tenants."""
    times = course.together.of(operation)
    figures = []
    for name, part in QUANTILES.items():
        each = [
            quantile(own, part) * 1000
            for place in course.service.places
            if (own := course.together.of(operation, tenants=lambda tenant, wanted=place.name: tenant == wanted))
        ]
        among = Spread.of(each) if each else Spread.of([float("nan")])
        whole = quantile(times, part) * 1000
        figures.append(
            Figure(name, Spread(min(among.low, whole), whole, max(among.high, whole), len(times), among.fast))
        )
    return Row(operation, "ms", "p50", tuple(figures), note="The bar: quartiles of the same figure among the tenants.")


def _by_tenant(course: Course) -> Row:
    values = {
        place.name: quantile(times, 0.95) * 1000
        for place in course.service.places
        if (times := course.together.of(tenants=lambda tenant, wanted=place.name: tenant == wanted))
    }
    return counted("p95 of each tenant", "ms", next(iter(values)), values, note="All operations together.")


def _checks(course: Course) -> Row:
    """Of the entire run, the stretches between the measured ones too; errors of everybody but the noisy tenant."""
    tallies = course.tallies
    foreign = sum(len(tally.foreign) for tally in tallies)
    errors = course.together.errors_of(lambda _tenant: True)
    values = {
        "answers checked": float(sum(tally.checked for tally in tallies)),
        "with a foreign row": float(foreign),
        "errors, everybody at once": float(errors + sum(course.together.refusals.values())),
    }
    goals = (
        Goal("with a foreign row", at_most=0, by="value"),
        Goal("errors, everybody at once", at_most=0, by="value"),
    )
    return counted("answers", "answers", "answers checked", values, goals=goals, note=_wrong(course))


def _wrong(course: Course) -> str:
    told = [*{line for tally in course.tallies for line in tally.foreign}][:3]
    told += [f"{tenant}: {what} × {count}" for (tenant, what), count in course.together.errors.most_common(3)]
    return "Every text of a tenant carries its marker, and every answer is searched for others'. " + "; ".join(told)


def _beside(course: Course, name: str, *, goals: tuple[Goal, ...] = ()) -> Row:
    """The quantile of all answers; the spread is that of the same quantile, and ratio, among the rounds."""
    figures, part = [], QUANTILES[name]
    base = _quantiles(course, ALONE, part)
    for which in course.beside:
        whole, rounds = _quantiles(course, which, part)
        ratios = [mine / other for mine, other in zip(rounds, base[1], strict=True)]
        ratio = None if which == ALONE else _around(whole / base[0], ratios)
        figures.append(Figure(which, _around(whole, rounds), ratio))
    plan = course.plan
    bounds = ", ".join(f"`APP_{setting.upper()}={value}`" for setting, value in plan.on.items())
    counts = ", ".join(
        f"{sum(len(_quiet(course, tally)) for tally in tallies):,} answers {which}"
        for which, tallies in course.beside.items()
    )
    note = (
        f"All answers to the {plan.tenants - 1} quiet tenants. The noisy one has {plan.people:,} people and "
        f"{plan.clients} programs, each searching all of them in vain, again at once after an answer, and after a 429 "
        f"when it says. Budgets on: {bounds}. {counts}."
    )
    return Row(f"quiet tenants, {name}", "ms", ALONE, tuple(figures), goals=goals, note=note)


def _quiet(course: Course, tally: Tally) -> list[float]:
    return tally.of(tenants=course.is_quiet)


def _quantiles(course: Course, which: str, part: float) -> tuple[float, list[float]]:
    """Return the quantile in milliseconds of all rounds together, and of each."""
    rounds = [_quiet(course, tally) for tally in course.beside[which]]
    together = [time_s for times in rounds for time_s in times]
    return quantile(together, part) * 1000, [quantile(times, part) * 1000 for times in rounds]


def _around(whole: float, parts: Sequence[float]) -> Spread:
    spread = Spread.of(parts)
    return Spread(min(spread.low, whole), whole, max(spread.high, whole), len(parts), min(parts))


def _beside_errors(course: Course) -> Row:
    values, told = {}, []
    for which, tallies in course.beside.items():
        errors = sum((tally.errors for tally in tallies), Counter())
        errors.update({(name, "told to wait"): count for tally in tallies for name, count in tally.refusals.items()})
        of_quiet = {(tenant, what): count for (tenant, what), count in errors.items() if course.is_quiet(tenant)}
        values[which] = float(sum(of_quiet.values()))
        told += [f"{which}: {tenant}, {what} × {count}" for (tenant, what), count in of_quiet.items()]
    goals = (Goal(NOISE_ON, at_most=0, by="value"),)
    return counted("quiet tenants, errors", "answers", ALONE, values, goals=goals, note="; ".join(told))


def _noise(course: Course) -> Row:
    values, noisy = {}, course.service.noisy.name
    for which, short in ((NOISE_OFF, "budgets off"), (NOISE_ON, "budgets on")):
        seconds = sum(tally.seconds for tally in course.beside[which])
        answered = sum(len(tally.of(tenants=lambda name: name == noisy)) for tally in course.beside[which])
        values[f"{short}: answered"] = answered / seconds
        values[f"{short}: told to wait"] = sum(tally.refusals[noisy] for tally in course.beside[which]) / seconds
    return counted("the noisy tenant", "requests/s", "budgets off: answered", values, better="higher")
