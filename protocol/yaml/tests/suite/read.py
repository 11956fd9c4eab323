"""Reads YAML texts as JSON strings, one a line, and answers each with what PyYAML reads."""
import json
import sys

import yaml


class Loader(yaml.SafeLoader):
    """safe_load, but a date stays as written and a duplicate key is noticed."""

    twins = False

    def construct_yaml_timestamp(self, node):
        super().construct_yaml_timestamp(node)
        return node.value

    def key(self, node):
        # A plain `=` is a string when it is a key, but only once the mapping is flattened.
        lone = node.tag == "tag:yaml.org,2002:value"
        return node.value if lone else self.construct_object(node, True)

    def construct_mapping(self, node, deep=False):
        if isinstance(node, yaml.MappingNode):
            own = [k for k, _ in node.value]
            merges = [k for k in own if k.tag == "tag:yaml.org,2002:merge"]
            keys = [form(self.key(k)) for k in own if k not in merges]
            self.twins |= len(keys) != len(set(keys)) or len(merges) > 1
        return super().construct_mapping(node, deep)


Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_yaml_timestamp)


def form(key):
    """The key as json.dumps would write it."""
    return key if isinstance(key, str) else json.dumps(key)


def plain(value):
    if isinstance(value, dict):
        return {form(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def answer(text):
    loader = None
    try:
        loader = Loader(text)
        value = loader.get_single_data()
    except RecursionError:
        return {"refused": "nests too deep"}
    except Exception as e:
        return {"refused": f"{type(e).__name__}: {e}"}
    if loader.twins:
        return {"twins": True}
    try:
        value = plain(value)
        json.dumps(value, allow_nan=False).encode()
        return {"value": value}
    except (TypeError, ValueError, RecursionError) as e:
        return {"beyond_json": str(e)}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
