"""The subcommands of `epochal`, in one visible table, and the help that lists them.

Imports nothing: the help has to appear at once.
"""

from __future__ import annotations

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "run": ("epochal.cli.commands.run:command", "Train from a job spec, here and now."),
        "validate": ("epochal.cli.commands.validate:command", "Check job specs and print every problem."),
        "plan": ("epochal.cli.commands.plan:command", "Show what a job spec would run, and what it costs."),
    },
    "Jobs": {
        "submit": ("epochal.cli.commands.submit:command", "Queue jobs on a server."),
        "jobs": ("epochal.cli.commands.jobs:command", "List jobs, or what waits and why."),
        "status": ("epochal.cli.commands.status:command", "Show one job, or how everything stands."),
        "logs": ("epochal.cli.commands.logs:command", "Print what a job's workers print."),
        "events": ("epochal.cli.commands.events:command", "List what happened to a job."),
        "why": ("epochal.cli.commands.why:command", "Say why a job waits, and what would start it."),
        "stop": ("epochal.cli.commands.job_actions:stop", "End jobs for good."),
        "pause": ("epochal.cli.commands.job_actions:pause", "Take jobs off the cluster until they are resumed."),
        "resume": ("epochal.cli.commands.job_actions:resume", "Go on with paused jobs."),
        "retry": ("epochal.cli.commands.job_actions:retry", "Submit jobs that have ended once more."),
    },
    "Sweeps": {
        "sweep": ("epochal.cli.commands.sweep:command", "Look at a hyperparameter search, and ask for more of it."),
    },
    "Inspect": {
        "runs": ("epochal.cli.commands.runs:command", "List, show and compare recorded runs."),
        "ui": ("epochal.cli.commands.ui:command", "Open the MLflow UI on this machine's runs."),
    },
    "Catalog": {
        "models": ("epochal.cli.commands.catalog:models", "List the architectures, or describe one."),
        "datasets": ("epochal.cli.commands.catalog:datasets", "List the datasets, or describe one."),
        "tasks": ("epochal.cli.commands.catalog:tasks", "List the tasks, or describe one."),
        "losses": ("epochal.cli.commands.catalog:losses", "List the losses, or describe one."),
        "optimizers": ("epochal.cli.commands.catalog:optimizers", "List the optimizers, or describe one."),
        "schedules": ("epochal.cli.commands.catalog:schedules", "List the lr schedules, or describe one."),
        "searchers": ("epochal.cli.commands.catalog:searchers", "List the searchers of sweeps, or describe one."),
        "trial-schedulers": (
            "epochal.cli.commands.catalog:trial_schedulers",
            "List the trial schedulers of sweeps, or describe one.",
        ),
    },
    "Services": {
        "up": ("epochal.cli.commands.up:command", "Start MLflow, the server and an agent on this machine."),
        "down": ("epochal.cli.commands.down:command", "End what `up` started."),
        "server": ("epochal.cli.commands.server:command", "Take jobs and answer agents, in the foreground."),
        "agent": ("epochal.cli.commands.agent:command", "Run a server's jobs on a Ray cluster, in the foreground."),
        "cluster": ("epochal.cli.commands.cluster:command", "Run an agent and its Ray cluster on Kubernetes."),
        "login": ("epochal.cli.commands.login:command", "Connect this machine to a server."),
        "config": ("epochal.cli.commands.config:command", "List and choose the servers that commands go to."),
        "token": ("epochal.cli.commands.token:command", "Create, list and revoke tokens."),
        "quota": ("epochal.cli.commands.quota:command", "Limit what users and queues may take."),
        "db": ("epochal.cli.commands.db:command", "Upgrade, back up and prune a ledger's database."),
    },
    "Machine": {
        "doctor": ("epochal.cli.commands.doctor:command", "Check this machine and say what to do."),
        "schema": ("epochal.cli.commands.schema:command", "Print the job spec's JSON Schema, for editors."),
        "version": ("epochal.cli.commands.version:command", "Print the versions of Epochal and what it stands on."),
    },
}
"""Section of the help -> subcommand -> where its ``click.Command`` is, and its line in the help."""

COMMANDS = {name: target for section in SECTIONS.values() for name, (target, _) in section.items()}

STANDARD_OUTPUT = "standard output"
"""The file's name in an ``OSError`` about it."""

_HELP = """\
Usage: epochal COMMAND [OPTIONS] [ARGS]...

  Train models data-parallel from a job spec, and record every run in MLflow.

Options:
  --version   Print the version.
  -h, --help  Show this message; `epochal COMMAND --help` shows a command's.
"""


def help_text() -> str:
    lines = [_HELP]
    for section, commands in SECTIONS.items():
        lines.append(f"{section}:")
        lines += [f"  {name:<16}  {summary}" for name, (_, summary) in commands.items()]
        lines.append("")
    return "\n".join(lines).rstrip()
