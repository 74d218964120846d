"""A small Kubernetes cluster with Seldon's operator: API server, reconciliation, traffic by weight, metrics."""

from deployments.sandbox.kubernetes.server import SandboxKubernetes

__all__ = ["SandboxKubernetes"]
