"""Posts that several tests encode."""

from __future__ import annotations

TEXTS = [
    "SUBREDDIT: r/dogs\n\nTITLE: My dog ate the sofa\n\nPOST: We went out for an hour.\nThe sofa is gone."
    "\n\nTL;DR: dog ate sofa, what now?",
    "SUBREDDIT: r/jobs\n\nTITLE: New boss\n\nPOST: My boss wants me to work on Sundays.\n\nI said no."
    "\n\nTL;DR: boss wants Sundays, I said no.",
] * 3
