#!/usr/bin/env bash
# Builds wheel and sdist into dist, and checks each in a fresh environment. Needs uv; UV can hold its path.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}
environment=.venv-package
trap 'rm -rf "$environment"' EXIT

rm -rf dist
"$uv" build --quiet --out-dir dist .
for package in dist/*.whl dist/*.tar.gz; do
    "$uv" venv --quiet --clear --python "${PYTHON:-python3}" "$environment"
    "$uv" pip install --quiet --python "$environment/bin/python" --constraint constraints/airflow-3.3.2.txt \
        "$package" 'readme-renderer[md]==46.0'
    "$environment/bin/python" scripts/check_package.py "$package"
done
