"""predict.py of an export: the program in torch that lies beside this file as text, without what a
model does not use.

It is text because the package itself needs no torch.
"""

import ast
import functools
import pathlib

TEMPLATE = pathlib.Path(__file__).with_name("predict_torch.txt")


@functools.cache
def tables():
    """The tables of the program in torch: {"HEADS": {"Classifier": "classifier", ...}, "RULES":
    ..., ...}."""
    found = {}
    for node in ast.parse(TEMPLATE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            found[node.targets[0].id] = {
                key.value: value.id
                for key, value in zip(node.value.keys, node.value.values, strict=True)
            }
    return found


def program(facts):
    """predict.py: the template without the functions that a model does not use."""
    crop = facts["transform"].get("crop")
    used = {
        "INPUTS": {facts["input"]},
        "CROPS": {crop["name"]} if crop else set(),
        "TOWERS": {facts["tower"]},
        "HEADS": {head["name"] for head in facts["heads"]},
        "RULES": {rule["name"] for rule in facts["rules"]},
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    lines, pieces, end = text.splitlines(), [], 0
    for node in ast.parse(text).body:
        source, names = (
            "\n".join(lines[end : node.end_lineno]),
            {n.id for n in ast.walk(node) if isinstance(n, ast.Name)},
        )
        end = node.end_lineno
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            defined = {alias.asname or alias.name for alias in node.names}
        else:
            defined = (
                {node.targets[0].id}
                if isinstance(node, ast.Assign)
                else {getattr(node, "name", "")}
            )
        for table in defined & set(used):
            kept = {
                key: function for key, function in tables()[table].items() if key in used[table]
            }
            names = set(kept.values())
            before = source[: len(source) - len(source.lstrip())]
            entries = ", ".join(f'"{key}": {function}' for key, function in kept.items())
            source = f"{before}{table} = {{{entries}}}"
        pieces.append((defined, names, source))
    wanted, reached = {""}, set()  # "" stands for the docstring and the last lines
    while wanted - reached:
        reached |= wanted
        wanted = wanted.union(*(names for defined, names, _ in pieces if defined & wanted))
    return "\n".join(source for defined, _, source in pieces if defined & wanted) + "\n"
