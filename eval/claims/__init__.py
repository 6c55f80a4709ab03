"""Published claims put to the test on a study: numbers, and shapes as predicates with intervals."""

import eval.sections  # noqa: F401  # its list of sections holds the claims': loaded first, neither is half made
