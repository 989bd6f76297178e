"""`epochal plan`: what a job spec would run, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import connect, server_options
from epochal.cli.options import output_option, set_option, spec_argument
from epochal.cli.own_code import load, own_code
from epochal.cli.progress import counted
from epochal.cli.render import Output
from epochal.errors import CapacityError, SpecError

if TYPE_CHECKING:
    from epochal.catalog.data import LoadedData
    from epochal.spec import LoadedSpec
    from epochal.training.every_sample import BadSample
    from epochal.training.plan import Plan


@click.command()
@spec_argument
@set_option
@click.option("--data", "all_data", is_flag=True, help="Read every sample once, and list those that are bad.")
@server_options
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(source: str, overrides: tuple[str, ...], all_data: bool, output: Output, **where: Any) -> int:
    """Show what a job spec would run, without running it.

    Prints every value of the resolved spec with where it comes from, the size of the model, the cost of a step, the
    number of steps and the resources of all workers together, and what each column or array of your data is taken for.
    Loads the data, and runs two samples through the model where that takes no more than a second; a larger model takes
    no memory. What could not be trained is refused, as its workers would. With --server or --context that server says
    whether any of its clusters could ever hold the job. Exit code: 0 it can be trained, 2 it cannot, 5 nowhere.
    """
    loaded = load(source, overrides)
    room = _room(loaded, **where) if any(where.values()) else None
    with own_code(loaded.code_folder if loaded.spec.code else None):
        return _planned(loaded, all_data, output, room) or (CapacityError.exit_code if room else 0)


def _room(loaded: LoadedSpec, server: str | None, context: str | None) -> str:
    """Why no cluster of a server could ever hold the job; empty where one could."""
    from epochal.client.room import why_never

    with connect(server, context) as client:
        agents = client.agents()
    if not any(agent.alive for agent in agents):
        render.message(f"no agent of {client.server} is alive: nobody can say whether the job has room")
    return why_never(loaded.spec.model_dump(mode="json"), agents)


def _planned(loaded: LoadedSpec, all_data: bool, output: Output, room: str | None) -> int:
    from epochal.catalog.build import load_data
    from epochal.sweeps.plan import first_corner, plan_sweep
    from epochal.training.plan import plan

    try:
        trained = first_corner(loaded.spec)
        data = load_data(trained.data, loaded.folder)
        total = sum(len(split) for _, split in data.splits())
        if all_data and (bad := _bad_samples(data, loaded, total)):
            _show_bad(bad, total, output)
            return 2
        planned = plan(trained, loaded.folder, data)
        planned = replace(planned, notes=(*planned.notes, *data.doubts()))
    except SpecError as error:
        raise loaded.placed(error) from error
    more: dict[str, Any] = {"data": {"samples": total, "bad": []}} if all_data else {}
    if loaded.spec.sweep is not None:
        more["sweep"] = plan_sweep(loaded.spec).as_dict()
    if room is not None:
        more["room"] = {"fits": not room, "why": room}
    _show(planned, loaded, more, output)
    if room:
        render.message(f"no cluster could ever hold it: {room}")
    if all_data:
        render.message(f"all of the {total:,} samples can be read")
    return 0


def _bad_samples(data: LoadedData, loaded: LoadedSpec, total: int) -> tuple[BadSample, ...]:
    import os

    from epochal.settings import home
    from epochal.training.every_sample import read_once

    with counted("reading the data", total) as tell:
        return read_once(data, loaded.spec, home().read_data, os.cpu_count() or 1, tell)


def _show_bad(bad: Sequence[BadSample], total: int, output: Output) -> None:
    rows = [asdict(one) for one in bad]
    if output is Output.TABLE:
        render.records(rows, ["split", "sample", "reason"], title="samples that cannot be trained on")
        render.message(f"{len(bad):,} of {total:,} samples cannot be trained on: mend them, or take them out")
    else:
        render.document({"data": {"samples": total, "bad": rows}}, output)


def _show(planned: Plan, loaded: LoadedSpec, more: Mapping[str, Any], output: Output) -> None:
    from epochal.spec.environment import is_read_at_start

    if output is Output.TABLE:
        render.records(_values(loaded), ["field", "value", "from"], title="values")
        render.text("")
        if planned.understood:
            rows = [{**asdict(one), "missing": one.missing or ""} for one in planned.understood]
            render.records(rows, ["name", "taken_for", "missing", "note"], title="parts of the data")
            render.text("")
        if planned.classes:
            columns = ["name", "train", "validation", *(["test"] if planned.test_samples else [])]
            render.records([asdict(one) for one in planned.classes], columns, title="classes")
            render.text("")
        if "sweep" in more:
            _show_sweep(more["sweep"])
        summary = _summary(planned)
        if names := ", ".join(name for name in loaded.spec.env if is_read_at_start(name)):
            summary["start"] = f"in new processes, seconds later than in idle ones, because of {names} in env"
        render.document(summary)
        for note in planned.notes:
            render.message(f"note: {note}")
    else:
        spec = loaded.spec.model_dump(mode="json")
        render.document({"spec": spec, "origins": loaded.origins, "plan": planned.as_dict(), **more}, output)


def _show_sweep(sweep: Mapping[str, Any]) -> None:
    """Before the cost of its first trial."""
    unit = sweep["unit"]
    render.records(sweep["space"], ["path", "draws", "when"], title="searched")
    render.text("")
    render.records(sweep["rungs"], ["length", "trials"], title=f"rungs, in {unit}")
    render.text("")
    own = f", {sweep['own_points']} of them your own points" if sweep["own_points"] else ""
    saved = f", of {sweep['full_cost']:,g} if all trained to the end" if sweep["cost"] < sweep["full_cost"] else ""
    most = f"{sweep['concurrency']} at most" if sweep["concurrency"] else "as many as the cluster fits"
    each = f"{sweep['workers']} worker{'s' if sweep['workers'] > 1 else ''} each"
    packs = {"auto": ", packed where that is faster", "off": ""}.get(sweep["pack"], f", in packs of {sweep['pack']}")
    told = {
        "trials": f"{sweep['trials']:,}{own}",
        "all trials": f"about {sweep['cost']:,g} {unit}{saved}",
        "at a time": f"{most}, {each}{packs}",
    }
    render.document(told)
    render.text("")
    render.text("One trial, with everything searched at its lowest or first:")


def _values(loaded: LoadedSpec) -> list[dict[str, Any]]:
    """One row for every value; those that are null by default say nothing, and are left out."""
    from epochal.spec.tree import dotted, leaves

    rows = [
        {"field": (field := dotted(path)), "value": value, "from": loaded.origins.get(field, "")}
        for path, value in leaves(loaded.spec.model_dump(mode="json"))
    ]
    return [row for row in rows if row["from"] != "default" or row["value"] not in (None, "", [], {})]


def _summary(planned: Plan) -> dict[str, Any]:
    from epochal.training.data_summary import split_text
    from epochal.units import Bytes

    cost, workers, total = planned.cost, planned.workers, planned.resources
    largest, smallest = workers.shares
    share = f"{largest}" if largest == smallest else f"{smallest} to {largest}"
    passes = f" in {workers.micro_batches} micro-batches" if workers.micro_batches > 1 else ""
    elastic = f"{workers.least} to {workers.count}" if workers.least < workers.count else f"{workers.count}"
    memory = "" if total.memory is None else f", {Bytes(total.memory).human()} of memory"
    return {
        "data": split_text(planned.train_samples, planned.validation_samples, planned.test_samples),
        "length": f"{planned.total_steps:,} steps"
        + (f", {planned.steps_per_epoch:,} an epoch, {planned.epochs:g} epochs" if planned.steps_per_epoch else ""),
        "parameters": f"{cost.parameters:,}, of them {cost.trainable:,} trained",
        "step": f"{_flops(cost.flops)} over a global batch of {planned.global_batch_size:,}",
        "memory": (
            f"weights {Bytes(cost.weights).human()}, gradients {Bytes(cost.gradients).human()},"
            f" optimizer state {Bytes(cost.optimizer_state).human()}"
        ),
        "workers": (
            f"{elastic} by {workers.strategy}, each with {share} samples of a step{passes}"
            f" and {Bytes(workers.bytes_each).human()} of memory, without activations"
        ),
        "resources": f"{total.cpus:g} CPUs, {total.gpus:g} GPUs{memory}",
    }


def _flops(count: int) -> str:
    from epochal.units import three_digits

    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if count >= size:
            return f"{three_digits(count / size)} {unit}"
    return f"{count:,} FLOP"
