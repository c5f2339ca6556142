"""The path of the qkv command under test.  Not in conftest.py: other folders have one too."""

import os

COMMAND = os.environ.get("QKV_COMMAND", "qkv")
