#!/bin/sh
# The peers' environment: pythae 0.1.2 on the torch of the environment whose python is named.
#   make_peer_venv.sh /tmp/peers .venv/bin/python
# The second argument may be left out: a torch of its own is then installed.
set -eu
to=$1
from=${2:-}
"${from:-python3}" -m venv "$to"
if [ -n "$from" ]; then
    site=$("$to/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$from" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/project.pth"
else
    "$to/bin/pip" install torch scikit-learn scipy numpy pydantic typing_extensions
fi
# Without its dependency `dataclasses`, a backport for Python 3.6.
"$to/bin/pip" install --no-deps pythae==0.1.2 cloudpickle imageio tqdm
"$to/bin/python" -c 'import pythae.models, pythae.samplers, torch; print("torch", torch.__version__)'
