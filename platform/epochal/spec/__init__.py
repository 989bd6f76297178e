"""What the user asks for: the job spec, read strictly and printed plainly. Needs pydantic and PyYAML alone."""

from epochal.spec.job import JobSpec

__all__ = ["JobSpec"]
