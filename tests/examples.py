"""Validates docs/examples: the examples against the schemas, and the documents themselves.

Called by tests/examples.rs with the directory. Exit code 0: valid, or said what is missing here.
"""

import json
import sys
from pathlib import Path

directory = Path(sys.argv[1])


def load(name):
    return json.loads((directory / name).read_text())


try:
    import jsonschema
except ImportError:
    print("SKIPPED: python3-jsonschema is not installed, the examples are not held against schemas")
    sys.exit(0)

telemetry = load("telemetry.schema.json")
openapi = load("openapi.json")
asyncapi = load("asyncapi.json")
jsonschema.Draft202012Validator.check_schema(telemetry)


def inlined(node, document):
    """The node with its references resolved; the schemas here are not recursive."""
    if isinstance(node, dict):
        if "$ref" in node:
            where = node["$ref"]
            if where.startswith("telemetry.schema.json"):
                return inlined(telemetry, telemetry)
            assert where.startswith("#/"), where
            target = document
            for part in where[2:].split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            return inlined(target, document)
        return {name: inlined(value, document) for name, value in node.items()}
    if isinstance(node, list):
        return [inlined(value, document) for value in node]
    return node


seen = set()


def examples_fit(schema, names, what):
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for name in names:
        seen.add(name)
        text = (directory / name).read_text()
        value = text if name.endswith(".pem") else json.loads(text)
        errors = [error.message for error in validator.iter_errors(value)]
        assert not errors, f"{what}: {name}: {errors}"


def external(examples):
    return [Path(example["externalValue"]).name for example in examples.values()]


for name in ["telemetry.json", "telemetry-everything.json", "telemetry-nothing-readable.json"]:
    examples_fit(telemetry, [name], "telemetry")

# What must not fit does not: the schema says something.
for member, wrong in [
    ("cpu_pct", 100.1),
    ("seq", 0),
    ("last_seen_at", "now"),
    ("agents", [{"id": "a", "name": "b", "status": "asleep"}]),
    ("gaps", [{"from": 1, "to": 2, "reason": "lost"}]),
    ("load_avg", [1.0]),
    ("sample_id", "42"),
]:
    sample = load("telemetry.json") | {member: wrong}
    assert not jsonschema.Draft202012Validator(telemetry).is_valid(sample), (member, wrong)

# OpenAPI: each body's examples fit its schema.
for path, operations in openapi["paths"].items():
    for method, operation in operations.items():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            body = inlined(body, openapi)
            for kind, media in body.get("content", {}).items():
                examples_fit(media["schema"], external(media.get("examples", {})), f"{method} {path} {kind}")

# A 409 is a delivery or a refusal: both are told by their members.
conflict = openapi["paths"]["/monitor/server/heartbeat"]["post"]["responses"]["409"]
conflict = inlined(conflict, openapi)["content"]["application/json"]["schema"]
for answer in [{"duplicate": True}, {"error": "conflict"}, {"detail": "conflict"}]:
    assert jsonschema.Draft202012Validator(conflict).is_valid(answer), answer

# AsyncAPI: each message's examples fit its payload.
for name, message in asyncapi["components"]["messages"].items():
    examples_fit(inlined(message["payload"], asyncapi), message["x-examples"], name)
for operation in asyncapi["operations"].values():
    channel = inlined(operation["channel"], asyncapi)
    for reference in operation["messages"]:
        inlined(reference, asyncapi)
        assert reference["$ref"].rsplit("/", 1)[1] in channel["messages"]

# The documents' own rules.
try:
    from openapi_spec_validator import validate
except ImportError:
    print("SKIPPED: openapi-spec-validator is not installed, openapi.json is held against nothing else")
else:
    openapi["components"]["schemas"]["Telemetry"] = inlined(telemetry, telemetry)
    validate(openapi)

besides = {"telemetry.schema.json", "openapi.json", "asyncapi.json", "private-key.pem"}
files = {path.name for path in directory.iterdir() if path.suffix in (".json", ".pem")}
unused = files - seen - besides
assert unused == {"proof.json", "proof-resume.json"}, f"in no document: {unused}"
print(f"{len(seen)} examples fit their schemas")
