"""What a study is given: posts and labels read and checked, and the guard against leakage."""
