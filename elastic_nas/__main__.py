"""``python -m elastic_nas``: the same as the command ``elastic-nas``."""

from elastic_nas.cli import main

main()
