"""What every topic is built from: record tables, statistics, result tables, the study and figure style."""
