"""Which SeldonDeployments are valid: the parts of Seldon's schema that the product uses, and the rules of Seldon's webhook.

Pod specs and the status are not looked into.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from deployments.sandbox.kubernetes.responses import JSON, Cause

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_STRING: JSON = {"type": "string"}
_NAME: JSON = {"type": "string", "maxLength": 63}
_INTEGER: JSON = {"type": "integer"}
_STRINGS: JSON = {"type": "object", "additionalProperties": _STRING}


def _object(required: str = "", anything: str = "", **properties: JSON) -> JSON:
    unchecked: dict[str, JSON] = {name: {} for name in anything.split()}
    known = {**properties, **unchecked}
    return {"type": "object", "properties": known, "required": required.split(), "additionalProperties": False}


def _list(items: JSON) -> JSON:
    return {"type": "array", "items": items}


_POD: JSON = {"type": "object", "required": ["containers"], "properties": {"containers": _list({"required": ["name"]})}}
_GRAPH = _object(
    "name",
    "children endpoint logger methods",
    **dict.fromkeys(("type", "implementation", "modelUri", "envSecretRefName", "serviceAccountName"), _STRING),
    name=_NAME,
    storageInitializerImage=_STRING,
    parameters=_list(_object("name type value", name=_STRING, type=_STRING, value=_STRING)),
)
_PREDICTOR = _object(
    "name graph",
    "engineResources explainer progressDeadlineSeconds ssl svcOrchSpec",
    name=_NAME,
    graph=_GRAPH,
    componentSpecs=_list(_object("", "metadata hpaSpec kedaSpec pdbSpec", spec=_POD, replicas=_INTEGER)),
    replicas=_INTEGER,
    traffic=_INTEGER,
    shadow={"type": "boolean"},
    annotations=_STRINGS,
    labels=_STRINGS,
)
_SPEC = _object(
    "predictors",
    predictors=_list(_PREDICTOR),
    **dict.fromkeys(("name", "protocol", "transport", "serverType", "oauth_key", "oauth_secret"), _STRING),
    replicas=_INTEGER,
    annotations=_STRINGS,
)
_METADATA = _object(
    "",
    "creationTimestamp deletionTimestamp finalizers generateName generation managedFields name namespace ownerReferences "
    "resourceVersion selfLink uid",
    annotations=_STRINGS,
    labels=_STRINGS,
)
_VALIDATOR = Draft202012Validator(_object("", "status", apiVersion=_STRING, kind=_STRING, metadata=_METADATA, spec=_SPEC))
_WITHOUT_TENSORFLOW = {"SKLEARN_SERVER", "XGBOOST_SERVER", "MLFLOW_SERVER", "HUGGINGFACE_SERVER"}
_WITHOUT_MODEL = {
    "UNKNOWN_IMPLEMENTATION",
    "SIMPLE_MODEL",
    "SIMPLE_ROUTER",
    "RANDOM_ABTEST",
    "AVERAGE_COMBINER",
    "HUGGINGFACE_SERVER",
}
_GO_TYPES = {str: "string", bool: "boolean", int: "integer", float: "float64", list: "array", dict: "object"}


def _path(error: ValidationError) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")


def unknown_fields(seldon_deployment: JSON) -> list[str]:
    """The paths of fields that the schema does not have."""
    return [
        f"{_path(error)}.{name}".lstrip(".")
        for error in _VALIDATOR.iter_errors(seldon_deployment)
        if error.validator == "additionalProperties"
        for name in error.instance.keys() - error.schema["properties"].keys()
    ]


def _wrong_fields(seldon_deployment: JSON) -> Iterator[Cause]:
    for error in _VALIDATOR.iter_errors(seldon_deployment):
        path, found = _path(error), _GO_TYPES.get(type(error.instance), "null")
        match error.validator:
            case "required":
                yield f"{path}.{error.message.split(chr(39))[1]}", "FieldValueRequired", "Required value"
            case "type":
                why = f'{path} in body must be of type {error.validator_value}: "{found}"'
                yield path, "FieldValueTypeInvalid", f'Invalid value: "{found}": {why}'
            case "maxLength":
                yield path, "FieldValueTooLong", f"Too long: may not be more than {error.validator_value} bytes"
            case _:
                continue


def _broken_traffic_rules(predictors: list[JSON]) -> Iterator[str]:
    live = [predictor.get("traffic", 0) for predictor in predictors if not predictor.get("shadow")]
    if not predictors:
        yield "Graph contains no predictors"
    if len(live) > 1 and sum(live) != 100:
        yield "Traffic must sum to 100 for multiple predictors"
    if len(predictors) == 1 and 0 < predictors[0].get("traffic", 0) < 100:
        yield "Traffic must sum be 100 for a single predictor when set"
    if len(predictors) - len(live) > 1:
        yield "Multiple shadows are not allowed"
    if len(predictors) == 1 and not live:
        yield "Shadow can not exist as only predictor"
    if len({predictor["name"] for predictor in predictors}) < len(predictors):
        yield "Duplicate predictor name"


def _broken_protocol_rules(spec: JSON) -> Iterator[str]:
    if spec.get("protocol", "") not in ("", "seldon", "tensorflow", "kfserving", "v2"):
        yield "Invalid protocol"
    if spec.get("transport", "") not in ("", "rest", "grpc"):
        yield "Invalid transport"
    servers = {predictor["graph"].get("implementation") for predictor in spec["predictors"]}
    if spec.get("protocol") == "tensorflow" and servers & _WITHOUT_TENSORFLOW:
        yield "Prepackaged server does not handle tensorflow protocol"


def _broken_predictor_rules(predictor: JSON) -> Iterator[str]:
    graph: JSON = predictor["graph"]
    server = graph.get("implementation", "UNKNOWN_IMPLEMENTATION")
    pods: list[Any] = [component.get("spec", {}) for component in predictor.get("componentSpecs", [])]
    containers = [container["name"] for pod in pods for container in pod.get("containers", [])]
    if server == "UNKNOWN_IMPLEMENTATION" and graph["name"] not in containers:
        yield "Can't find container for Predictive Unit"
    if server not in _WITHOUT_MODEL and not graph.get("modelUri"):
        yield "Predictive unit modelUri required when using standalone servers"
    if predictor.get("shadow") and not 0 <= predictor.get("traffic", 0) <= 100:
        yield "shadow traffic is illegal, the traffic number should be between [0, 100]"


def find_problems(seldon_deployment: JSON) -> list[Cause]:
    """Every reason to refuse this object, in the real server's words; empty when it is valid."""
    causes = list(_wrong_fields(seldon_deployment))
    if causes or "spec" not in seldon_deployment:
        return causes
    spec: JSON = seldon_deployment["spec"]
    broken = [("spec", rule) for rule in (*_broken_traffic_rules(spec["predictors"]), *_broken_protocol_rules(spec))]
    for place, predictor in enumerate(spec["predictors"]):
        broken += [(f"spec.predictors[{place}]", rule) for rule in _broken_predictor_rules(predictor)]
    return [(field, "FieldValueInvalid", f"Invalid value: {rule}") for field, rule in broken]
