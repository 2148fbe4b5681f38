"""`python tests/packaging/oldest_versions.py`: the oldest versions that the metadata allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)")


def oldest_versions() -> dict[str, str]:
    """The oldest allowed version of each package that the library or an extra for users asks for."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(line for name in extras.keys() - {"bench", "dev", "docs"} for line in extras[name]),
    ]
    return dict(sorted(_REQUIREMENT.match(line).groups() for line in asked))


if __name__ == "__main__":
    for name, version in oldest_versions().items():
        print(f"{name}=={version}")
