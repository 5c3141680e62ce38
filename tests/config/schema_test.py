"""The JSON schemas agree with the validator on the shared corpus.

Usage: schema_test.py PATH_OF_config_schema_dump SOURCE_DIR
The judge is python3-jsonschema. A valid file must pass its schema. An invalid one must fail it, at a path that
the file's `# expect:` lines name, unless the file says `# schema: cannot express` (contradictions between keys,
and what is lost when YAML becomes JSON: duplicate keys, anchors, tags, 010).
"""

import glob
import json
import re
import subprocess
import sys

try:
    import jsonschema
    from jsonschema import Draft202012Validator
except ImportError as error:
    print(f"SKIPPED: {error}; install python3-jsonschema")
    sys.exit(77)


def main():
    dump, source = sys.argv[1:3]
    files = sorted(
        glob.glob(f"{source}/tests/config/corpus/*/*.yaml") + glob.glob(f"{source}/config/examples/*.yaml")
    )
    answer = json.loads(subprocess.run([dump, *files], check=True, capture_output=True, text=True).stdout)
    validators = {}
    for name in ("run", "coordinator"):
        Draft202012Validator.check_schema(answer[name])
        validators[name] = Draft202012Validator(anchored(answer[name]))

    failures = []
    accepted = refused = 0
    for file in answer["files"]:
        path = file["path"]
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
        validator = validators["coordinator" if "lockstepd" in path else "run"]
        errors = list(validator.iter_errors(file["instance"]))
        if file["valid"]:
            accepted += 1
            failures += [f"{path}: valid, but the schema says: {error.message}" for error in errors]
        elif "# schema: cannot express" not in text:
            refused += 1
            if not errors:
                failures.append(f"{path}: invalid, but the schema accepts it")
            expected = re.findall(r"^# expect: \d+:\d+ ?(\S*) \|", text, re.M)
            failures += [
                f"{path}: the schema complains at '{where(error)}', where no problem is expected: {error.message}"
                for error in errors
                if not any(inside(problem, where(error)) for problem in expected)
            ]
    if accepted < 10 or refused < 30:
        failures.append(f"only {accepted} valid and {refused} invalid files were judged")
    for failure in failures:
        print(failure)
    print(f"{accepted} valid and {refused} invalid files judged, {len(failures)} disagreements")
    return 1 if failures else 0


def anchored(schema):
    """JSON Schema's patterns are ECMAScript's, where $ is the end; Python's $ also matches before a last line break."""
    if isinstance(schema, dict):
        return {
            key: re.sub(r"\$$", r"\\Z", value) if key == "pattern" and isinstance(value, str) else anchored(value)
            for key, value in schema.items()
        }
    return [anchored(item) for item in schema] if isinstance(schema, list) else schema


def where(error):
    path = ""
    for key in error.absolute_path:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else key
    return path


def inside(problem, place):
    """A missing or unknown key is the mapping's error in a schema, the key's in ours."""
    return place == "" or problem == place or problem.startswith((place + ".", place + "["))


if __name__ == "__main__":
    sys.exit(main())
