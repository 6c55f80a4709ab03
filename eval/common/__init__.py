"""The parts that topics share: record tables, statistics, result tables, the study and figure style."""
