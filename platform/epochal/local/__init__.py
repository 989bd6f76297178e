"""`epochal up` and `down`: the services of one machine, supervised."""
