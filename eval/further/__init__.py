"""Further reporting sets, such as the test posts."""
