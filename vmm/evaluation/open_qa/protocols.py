"""Published sets of open questions, and what others reach on them."""

from __future__ import annotations

OPEN_SETS = {
    "msrvtt-qa": "MSRVTT-QA",
    "msvd-qa": "MSVD-QA",
    "activitynet-qa": "ActivityNet-QA",
}
"""Name on the command line -> title."""

# Accuracy of UMT (arXiv 2303.16058) after fine-tuning, from its base to its large model.
PUBLISHED = {
    "MSRVTT-QA": "44.3 to 47.1",
    "MSVD-QA": "49.1 to 55.2",
    "ActivityNet-QA": "43.5 to 47.9",
}
