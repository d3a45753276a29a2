"""Evaluation, calibration and training. Imports reader and retriever, never serving."""
