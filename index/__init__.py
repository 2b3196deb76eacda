"""The truth about the documents: files, passages, vectors, words, and search over them."""

import os

# Libraries that would tell their makers of every process are told not to, before any of them is loaded: ONNX Runtime reads this when its library is, and otherwise
# also writes an identifier of the machine into the user's cache folder. What somebody has set on purpose stays.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")
