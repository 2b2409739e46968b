"""``vmm app``: a page to search an index with, for this machine only unless told otherwise.

The page is made with Gradio. It gets small films cut out of the indexed videos, never a path of
one. Films and uploads are kept in a folder of their own that goes away with the page. Nothing is
loaded from elsewhere or sent there: no fonts, no scripts, no usage statistics.
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
