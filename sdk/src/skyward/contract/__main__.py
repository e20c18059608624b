"""`python -m skyward.contract [FOLDER]` writes the CustomResourceDefinitions as YAML, `crds/` by default."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from skyward.contract.crd import crd_documents, crd_filename

HEADER = "# Written by `make crds` from the models in sdk/src/skyward/contract; do not edit.\n"


def render(document: dict[str, object]) -> str:
    """One definition as the text of its file."""
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True)


def main(arguments: list[str]) -> int:
    """Write one file per kind into the folder; return the exit status."""
    folder = Path(arguments[0] if arguments else "crds")
    folder.mkdir(parents=True, exist_ok=True)
    for document in crd_documents():
        path = folder / crd_filename(document)
        path.write_text(render(document), encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
