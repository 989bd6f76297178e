"""Trial schedulers by name. To add one: a file here, and a line in this table; the contract suite tests it then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.registry import Registry

if TYPE_CHECKING:
    from epochal.sweeps.trial_scheduler import TrialSchedulerEntry

TRIAL_SCHEDULERS: Registry[TrialSchedulerEntry] = Registry(
    "trial_scheduler",
    {
        "none": "epochal.sweeps.trial_schedulers.full:ENTRY",
        "median": "epochal.sweeps.trial_schedulers.median:ENTRY",
        "asha": "epochal.sweeps.trial_schedulers.asha:ENTRY",
        "hyperband": "epochal.sweeps.trial_schedulers.hyperband:ENTRY",
        "pbt": "epochal.sweeps.trial_schedulers.pbt:ENTRY",
    },
)
