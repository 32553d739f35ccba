"""``python -m cli``: the same as ``finetune``."""

import sys

from .main import main

sys.exit(main())
