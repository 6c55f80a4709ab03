"""Published claims put to the test on a study: numbers, and shapes as predicates with intervals."""
