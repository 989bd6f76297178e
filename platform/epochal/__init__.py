"""Epochal: distributed training orchestration on Ray, torch and MLflow."""

__version__ = "0.1.0"
