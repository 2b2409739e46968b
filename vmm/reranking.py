"""How many candidates the matching head looks at again, wherever nobody says."""

CANDIDATES = 128
"""Of each query, as published: ``k_test`` in the code of VideoMamba (arXiv 2403.06977)."""
