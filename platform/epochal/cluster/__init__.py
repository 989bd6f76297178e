"""Kubernetes: cluster specs, the objects they become, and what becomes of those."""
