#!/usr/bin/env bash
# Proposes for production what test runs; --help tells the options.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/python.sh"
sens_python promote --signer "https://github.com/@@product_repository@@/.github/workflows/publish-images.yml@refs/heads/main" "$@"
