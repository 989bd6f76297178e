"""What the user asks for: the job spec, read strictly and printed plainly. Needs pydantic and PyYAML alone."""

from epochal.spec.job import JobSpec
from epochal.spec.load import Check, LoadedSpec, load_spec, load_text

__all__ = ["Check", "JobSpec", "LoadedSpec", "load_spec", "load_text"]
