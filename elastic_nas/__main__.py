"""``python -m elastic_nas``: the same as the command ``elastic-nas``."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] in ("", os.path.realpath(".")):
    # With -m Python looks for modules in the current folder first, where a downloaded file may be
    # called torch.py; this package itself is found already.
    del sys.path[0]

from elastic_nas.cli import main

main()
