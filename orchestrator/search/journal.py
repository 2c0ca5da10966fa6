"""Stub, replaced."""

import json, os


class Journal:
    def __init__(self, path, rows):
        self._path, self.rows = path, rows

    @classmethod
    def open(cls, path, header):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_rows(path) or []
        j = cls(path, rows)
        return j

    def append(self, rows):
        with open(self._path, "a") as f:
            f.write("".join(json.dumps(r) + "\n" for r in rows))
            f.flush()
            os.fsync(f.fileno())
        self.rows.extend(rows)


def read_rows(path):
    if not path.exists():
        return None
    return [json.loads(l) for l in open(path)]
