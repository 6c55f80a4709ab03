"""Preference against temperature and top-p."""
