"""Small files for readers to find."""


def touch(root, *paths):
    """Files that hold their own names; nothing is decoded."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def write(root, name, *lines):
    """A text file of these lines."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")
