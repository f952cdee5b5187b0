"""
Check an installed distribution, away from the checkout.

Usage: ``python scripts/check_package.py dist/….whl`` in an environment in which it is installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
from pathlib import Path

NAME = "airflow-provider-wassly"


def main(package: str) -> None:
    import airflow_provider_wassly

    checkout = Path(__file__).resolve().parent.parent
    here = Path(airflow_provider_wassly.__file__).resolve().parent
    if here.is_relative_to(checkout / "airflow_provider_wassly"):
        raise SystemExit(f"imported from the checkout ({here}), not from {package}")

    installed = importlib.metadata.distribution(NAME)
    names = {str(file) for file in installed.files or ()}
    expected = {
        str(path.relative_to(checkout))
        for path in (checkout / "airflow_provider_wassly").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if missing := expected - names:
        raise SystemExit(f"{package} lacks {sorted(missing)}")
    foreign = {name for name in names if not name.startswith(("airflow_provider_wassly/", "airflow_provider_wassly-"))}
    if foreign:
        raise SystemExit(f"{package} holds more than the package: {sorted(foreign)}")
    if not any(name.endswith("LICENSE") for name in names):
        raise SystemExit(f"{package} lacks the license")

    for module in pkgutil.walk_packages(airflow_provider_wassly.__path__, "airflow_provider_wassly."):
        # The sandbox needs its extra, the plugin pytest; that they say so is tested elsewhere.
        if ".sandbox" not in module.name and not module.name.endswith(".pytest_plugin"):
            importlib.import_module(module.name)
    (entry_point,) = importlib.metadata.entry_points(group="apache_airflow_provider", name="provider_info").select(
        module="airflow_provider_wassly.get_provider_info"
    )
    info = entry_point.load()()
    print(f"{package}: version {installed.version}, {len(names)} files, provider {info['name']!r}")


if __name__ == "__main__":
    main(sys.argv[1])
