"""Stage `speed`: training steps, mixtures, Frechet statistics and encoding, each beside its peer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import encode
import frechet
import mixture
import torch
from harness import hardware
from peer import ours
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from expost.metrics.frechet import RunningStatistics, Statistics
from gpu_stages.bench import FLOAT32, Bench, LeaveOut, Stage, Unit
from gpu_stages.steps import (
    BLOCKS,
    ROWS,
    arithmetic,
    calls_a_block,
    images,
    operations,
    our_step,
    seconds_of,
    their_step,
)

#: Of the peak, what a step is thought to reach when its time is guessed.
GUESSED_SHARE = 0.25


@cache
def _operations(row: str, width: int) -> float:
    model, options = ROWS[row]
    return operations(ours(model, width, **options).train(), images(4, torch.device("cpu")))


def width(bench: Bench) -> int:
    """Return the width of the networks: the paper's, unless all is tiny."""
    return 8 if bench.tiny else 128


def guessed_step(bench: Bench, row: str, kind: str, batch: int) -> float:
    """Return how long a step of ours may take."""
    return _operations(row, width(bench)) * batch / (GUESSED_SHARE * bench.peaks[kind])


def units(bench: Bench) -> Iterator[Unit]:
    """Yield what is measured, best first."""
    for kind in bench.kinds:
        bench.figure("matrix product", bench.peaks[kind] / 1e12, "TFLOP/s", arithmetic=kind)
    small, large = (4, 8) if bench.tiny else (100, 1000)
    first = bench.kinds[0]
    yield from _all_steps(bench, small, first)
    if bench.cuda:
        for row in ("rae-l2", "rae-gp"):
            yield Unit(f"kernel by kernel {row}, batch {small}", partial(_one_by_one, row=row, batch=small), 5.0)
            yield Unit(f"cudnn.benchmark {row}, batch {small}", partial(_searched, row=row, batch=small), 5.0)
    yield from _all_steps(bench, large, first)
    yield _timed(
        bench, f"profile, batch {small}", partial(_profile, batch=small, kind=first), "rae-gp", first, small, 8
    )
    yield Unit("mixture", _mixture, 2.0 if bench.tiny else 25.0)
    yield Unit("mixture, array API", _mixture_array_api, 2.0 if bench.tiny else 10.0 if bench.cuda else 40.0)
    for batch in (small, large):
        for kind in bench.kinds[1:]:
            yield from _all_steps(bench, batch, kind)
    yield Unit("frechet", _frechet, 2.0 if bench.tiny else 20.0)
    yield Unit("encode", _encode, 2 * guessed_step(bench, "rae-l2", FLOAT32, _encoded(bench)) + 5.0)
    if bench.cuda:
        yield Unit(f"torch.compile rae-l2, batch {small}", partial(_compiled, row="rae-l2", batch=small), 60.0)


def _all_steps(bench: Bench, batch: int, kind: str) -> Iterator[Unit]:
    for row in ROWS:
        yield _steps(bench, row, kind, batch)


def _timed(bench: Bench, name: str, work: Callable[[Bench], Any], row: str, kind: str, batch: int, steps: int) -> Unit:
    return Unit(name, work, steps * guessed_step(bench, row, kind, batch) + (2.0 if bench.cuda else 0.5))


def _steps(bench: Bench, row: str, kind: str, batch: int) -> Unit:
    """Return the unit that measures a step of ours and of Pythae's."""
    calls = calls_a_block(guessed_step(bench, row, kind, batch))
    count = 2 * (3 + BLOCKS * calls) if bench.cuda else 2 * 3
    work = partial(_compare_steps, row=row, kind=kind, batch=batch)
    return _timed(bench, f"step {row}, {kind}, batch {batch}", work, row, kind, batch, count)


def _compare_steps(bench: Bench, row: str, kind: str, batch: int) -> None:
    settings = {"row": row, "arithmetic": kind, "batch": batch, "width": width(bench)}
    x = images(batch, bench.device)
    with arithmetic(kind):
        ours = seconds_of(our_step(row, width(bench), x, kind), bench.device)
        bench.figure("step", ours, "s", **settings)
        rate = _operations(row, width(bench)) * batch / ours
        bench.figure("share of the matrix product's rate", rate / bench.peaks[kind], "", **settings)
        try:
            theirs = seconds_of(their_step(row, width(bench), x, kind), bench.device)
        except ImportError as error:
            bench.figure("Pythae's step", None, "", **settings, why=f"not measured: {error}")
            return
    bench.figure("Pythae's step", theirs, "s", **settings)
    bench.figure("Pythae's step over ours", theirs / ours, "", **settings)


def _profile(bench: Bench, batch: int, kind: str) -> None:
    """Say whether launches or arithmetic dominate a step; the table of operators goes to `profile.txt`."""
    tables = []
    for row in ("rae-l2", "rae-gp"):
        step = our_step(row, width(bench), images(batch, bench.device), kind)
        with arithmetic(kind):
            whole = seconds_of(step, bench.device)
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.cuda else [])]
            with profile(activities=activities) as recorded:
                step()
                bench.wait()
        operators = recorded.key_averages()
        settings = {"row": row, "arithmetic": kind, "batch": batch}
        if bench.cuda:
            kernels = [
                event
                for event in recorded.events()
                if event.device_type == DeviceType.CUDA and not event.is_user_annotation
            ]
            busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
            bench.figure("kernels a step", len(kernels), "", **settings)
            bench.figure("kernels' time a step", busy, "s", **settings)
            bench.figure("share of a step in which the GPU computes", busy / whole, "", **settings)
            for name, key in (("launches a step", "LaunchKernel"), ("waits for the device a step", "Synchronize")):
                count = sum(event.count for event in operators if key in event.key)
                bench.figure(name, count, "", **settings, note="one wait is that at the end")
        column = f"self_{bench.device.type}_time_total"
        used = sum(event.self_cpu_time_total for event in operators) / 1e6
        bench.figure("CPU time of a step", used, "s", **settings)
        table = operators.table(sort_by=column, row_limit=25, max_name_column_width=60)
        tables.append(f"{hardware()}, {row}, {kind}, batch {batch}: a step takes {whole:.6f} s\n{table}")
    (bench.out / "profile.txt").write_text("\n\n".join(tables) + "\n", encoding="utf-8")


def _one_by_one(bench: Bench, row: str, batch: int) -> None:
    """Take steps that are not recorded as a CUDA graph."""
    kind = bench.kinds[0]
    step = our_step(row, width(bench), images(batch, bench.device), kind, recorded=False)
    _instead(bench, "step launched kernel by kernel", seconds_of(step, bench.device), row, kind, batch)


def _compiled(bench: Bench, row: str, batch: int) -> None:
    """Compile the loss, and with it its gradient."""
    kind = bench.kinds[0]
    step = our_step(row, width(bench), images(batch, bench.device), kind, compiled=True)
    _instead(bench, "step compiled", seconds_of(step, bench.device), row, kind, batch)


def _searched(bench: Bench, row: str, batch: int) -> None:
    """Let cuDNN try its algorithms first."""
    kind, before = bench.kinds[0], torch.backends.cudnn.benchmark
    step = our_step(row, width(bench), images(batch, bench.device), kind)
    torch.backends.cudnn.benchmark = True
    try:
        seconds = seconds_of(step, bench.device)
    finally:
        torch.backends.cudnn.benchmark = before
    _instead(bench, "step with cudnn.benchmark", seconds, row, kind, batch)


def _instead(bench: Bench, name: str, seconds: float, row: str, kind: str, batch: int) -> None:
    settings = {"row": row, "arithmetic": kind, "batch": batch, "width": width(bench)}
    bench.figure(name, seconds, "s", **settings)
    plain = bench.ledger.value("speed", "step", **settings)
    if plain is not None:
        bench.figure(f"step over {name}", plain / seconds, "", **settings)


def _problem(bench: Bench) -> tuple[mixture.Problem, dict[str, int]]:
    sizes = (
        {"codes": 2_000, "dim": 8, "components": 3} if bench.tiny else {"codes": 50_000, "dim": 64, "components": 10}
    )
    return mixture.problem(**sizes), sizes


def _mixture(bench: Bench) -> None:
    """Fit a mixture by ours and by scikit-learn on NumPy: same start, same iterations; that one once, it takes long."""
    problem, sizes = _problem(bench)
    iterations = 5 if bench.tiny else 30
    z = problem.z.to(bench.device)
    ours = seconds_of(lambda: mixture.ours(problem, z, iterations), bench.device)
    bench.figure("mixture", ours, "s", **sizes, iterations=iterations)
    started = time.perf_counter()
    likelihood = mixture.theirs(problem, iterations)
    theirs = time.perf_counter() - started
    gap = mixture.ours(problem, z, iterations) - likelihood
    bench.figure("mixtures' log-likelihood: ours less scikit-learn's", gap, "nats", **sizes)
    bench.figure("scikit-learn's mixture, NumPy", theirs, "s", **sizes, iterations=iterations)
    bench.figure("scikit-learn's mixture, NumPy, over ours", theirs / ours, "", **sizes)


def _mixture_array_api(bench: Bench) -> None:
    """The same by scikit-learn on torch tensors, on the device."""
    problem, sizes = _problem(bench)
    iterations = 5 if bench.tiny else 30
    try:
        likelihood = mixture.theirs(problem, iterations, bench.device)
    except (ImportError, RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise LeaveOut(f"scikit-learn's array-API mixture does not run here: {str(error).splitlines()[0]}") from None
    seconds = seconds_of(lambda: mixture.theirs(problem, iterations, bench.device), bench.device)
    settings = {**sizes, "iterations": iterations, "device": bench.device.type}
    bench.figure("scikit-learn's mixture, array API", seconds, "s", **settings, likelihood=round(likelihood, 6))
    ours = bench.ledger.value("speed", "mixture", **sizes)
    if ours is not None:
        bench.figure("scikit-learn's mixture, array API, over ours", seconds / ours, "", **settings)


def _frechet(bench: Bench) -> None:
    """Mean and covariance, on the CPU and on the device, and the distance."""
    sizes = {"images": 500, "dim": 64} if bench.tiny else {"images": 10_000, "dim": 2048}
    a, b = frechet.features(**sizes)
    first, second = Statistics.of(a), Statistics.of(b)
    cpu = torch.device("cpu")
    theirs = seconds_of(lambda: frechet.numpy_statistics(a), cpu)
    bench.figure("NumPy's statistics", theirs, "s", **sizes)
    bench.figure("statistics on the CPU", seconds_of(lambda: Statistics.of(a), cpu), "s", **sizes)
    there = a.to(bench.device)

    def on_device() -> None:
        running = RunningStatistics(bench.device)
        running.add(there)
        _ = running.result()

    seconds = seconds_of(on_device, bench.device)
    bench.figure("statistics on the device", seconds, "s", **sizes, device=bench.device.type)
    bench.figure("NumPy's statistics over those on the device", theirs / seconds, "", **sizes)
    distance = seconds_of(lambda: frechet.frechet_distance(first, second), cpu)
    bench.figure("Frechet distance, on the CPU", distance, "s", **sizes)


def _encoded(bench: Bench) -> int:
    return 64 if bench.tiny else 10_000 if bench.cuda else 500


def _encode(bench: Bench) -> None:
    """Encode a data set by ours and by the loop of Pythae's samplers."""
    count = _encoded(bench)
    settings = {"images": count, "width": width(bench)}
    ours, theirs = encode.routes(count, width(bench), bench.device)
    seconds = seconds_of(ours, bench.device)
    bench.figure("encoding", count / seconds, "images/s", **settings)
    with contextlib.suppress(ImportError):
        slower = seconds_of(theirs(), bench.device)
        bench.figure("Pythae's encoding", count / slower, "images/s", **settings)
        bench.figure("encoding over Pythae's", slower / seconds, "", **settings)


def expected(bench: Bench) -> float:
    """Return how long all of it may take."""
    return 5.0 if bench.tiny else 180.0 if bench.cuda else 1_000.0


STAGE = Stage(
    "speed",
    "steps against Pythae, mixture against scikit-learn, Frechet statistics, encoding",
    units,
    expected,
    share=0.35,
)
