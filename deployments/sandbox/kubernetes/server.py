"""The sandbox's cluster in one object: API server, operator, router and metrics, started and stopped together."""

from __future__ import annotations

import base64
import ipaddress
import json
import secrets
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import JSONResponse

from deployments.sandbox.faults import Fault, FaultGate
from deployments.sandbox.http_server import Startable, ThreadedServer
from deployments.sandbox.kubernetes.access import User
from deployments.sandbox.kubernetes.api import KubernetesApi
from deployments.sandbox.kubernetes.responses import ApiError
from deployments.sandbox.kubernetes.router import Router
from deployments.sandbox.kubernetes.seldon_operator import SeldonOperator
from deployments.sandbox.kubernetes.store import ObjectStore

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PROMOTER_ROLE = Path(__file__).parents[3] / "k8s" / "base" / "promoter-role.yaml"
DEFAULT_NAMESPACE, DEFAULT_NAME = "models", "fraud-predictor"
BUSY = ApiError(429, "TooManyRequests", "too many requests, please try again later")
BROKEN = ApiError(500, "InternalError", "Internal error occurred: planned by a test")
REFUSALS = {
    Fault.TOO_MANY_REQUESTS: JSONResponse(BUSY.as_status(), 429, {"Retry-After": "1"}),
    Fault.SERVER_ERROR: JSONResponse(BROKEN.as_status(), 500),
}


def _write_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of the loopback address and its key: kubectl sends its token over TLS only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fraud-ab sandbox")])
    now, public = datetime.now(UTC), key.public_key()
    builder = x509.CertificateBuilder(name, name, public, x509.random_serial_number())
    certificate = (
        builder.not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "api.crt", folder / "api.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paths


class _TlsServer(ThreadedServer):
    def __init__(self, app: ASGIApp, *, certificate: Path, key: Path) -> None:
        super().__init__(app, name="kubernetes-api")
        self._server.config.ssl_certfile = certificate
        self._server.config.ssl_keyfile = key
        self.url = f"https://127.0.0.1:{self.port}"


class SandboxKubernetes(Startable):
    """A small cluster that behaves as a real one does for what the product uses; nothing is kept when it stops.

    `url` is the API server (TLS, bearer tokens of `admin` and the restricted `promoter`), `metrics_url` is where
    `/prometheus` is, `route` and `observe` are the traffic of the one deployment, `faults` lets the next API requests go wrong.
    """

    def __init__(self, *, delay_seconds: float = 0.5) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fraud-ab-kubernetes-")
        self._certificate, key = _write_certificate(Path(self._folder.name))
        self._tokens = {user: secrets.token_urlsafe(24) for user in ("admin", "promoter")}
        users = [
            User("admin", self._tokens["admin"]),
            User("promoter", self._tokens["promoter"], yaml.safe_load(PROMOTER_ROLE.read_text(encoding="utf-8"))),
        ]
        self.store = ObjectStore()
        self.operator = SeldonOperator(self.store, delay_seconds=delay_seconds)
        router = Router(self.store, DEFAULT_NAMESPACE, DEFAULT_NAME)
        self.route, self.observe = router.route, router.observe
        self.faults = FaultGate(KubernetesApi(self.store, users).application(), REFUSALS)
        self._api = _TlsServer(self.faults, certificate=self._certificate, key=key)
        self._metrics = ThreadedServer(router.application(), name="executor-metrics")
        self.url = self._api.url
        self.metrics_url = self._metrics.url

    def start(self) -> Self:
        self._api.start()
        self._metrics.start()
        self.operator.start()
        return self

    def stop(self) -> None:
        self.operator.stop()
        self._metrics.stop()
        self._api.stop()
        self._folder.cleanup()

    def write_kubeconfig(self, path: Path, *, user: str = "admin", namespace: str = DEFAULT_NAMESPACE) -> Path:
        """Write how `admin` or `promoter` reaches this cluster; the file is readable by its owner alone."""
        authority = base64.b64encode(self._certificate.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sandbox", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user, "namespace": namespace}}],
            "current-context": "sandbox",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2), encoding="utf-8")  # JSON is YAML
        return path
